"""MobileNetV2: for ImageNet, for small images, and a small one for small images."""

from collections.abc import Sequence

import keras
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv, depthwise

# Stages of (expansion, channels, blocks, stride of the first block).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_CIFAR_STAGES = tuple((e, c, n, 1 if c == 24 else stride) for e, c, n, stride in STAGES)
SMALL_STAGES = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 1), (4, 64, 2, 2), (4, 96, 1, 1))


def mobilenet_v2(input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000) -> keras.Model:
    """Builds MobileNetV2 (Sandler et al. 2018): inverted residual blocks, seventeen of them.

    A block is a 1x1 expansion (none where the factor is 1), a 3x3 depthwise convolution and a linear 1x1 projection;
    ReLU6; the input is added where the block keeps the shape. No convolution has a bias. 3,504,872 parameters without
    BatchNorm's statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    inputs = keras.Input(input_shape, name="image")
    *_, x = feature_maps(inputs, STAGES, 32, 2).values()
    x = conv_bn_relu(x, 1280, 1, 1, "head")
    return keras.Model(inputs, classifier(x, num_classes), name="mobilenet_v2")


def mobilenet_v2_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds MobileNetV2 for small images, with a shortcut around each block that keeps height and width.

    Stem and stage 2 have stride 1, so 32 pixels end as 4. Where a block with stride 1 changes the channels, its
    shortcut is a 1x1 convolution with BatchNormalization; every block has an expansion, also where its factor is 1;
    ReLU in place of ReLU6. With 10 classes 2,296,922 parameters without BatchNorm's statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn_relu(inputs, 32, 3, 1, "stem", None)
    for name, expansion, channels, stride in _blocks(_CIFAR_STAGES):
        y = inverted_residual(x, expansion, channels, stride, name, always_expand=True, max_value=None)
        if stride == 1 and x.shape[-1] != channels:
            x = conv(channels, 1, 1, f"{name}_shortcut")(x)
            x = layers.BatchNormalization(name=f"{name}_shortcut_bn")(x)
        x = _add_if_same(x, y, stride, name)
    x = conv_bn_relu(x, 1280, 1, 1, "head", None)
    return keras.Model(inputs, classifier(x, num_classes), name="mobilenet_v2_cifar")


def mobilenet_v2_small(
    input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10, alpha: float = 1.0
) -> keras.Model:
    """Builds a small network in the manner of MobileNetV2, with eight blocks.

    A quarter of the input's height and width is left at the end.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.
        alpha: scales all channel counts, which stay multiples of 8.

    Returns:
        An untrained functional model that ends in logits.

    Raises:
        UsageError: alpha is not above 0.
    """
    inputs = keras.Input(input_shape, name="image")
    *_, x = feature_maps(inputs, SMALL_STAGES, 16, 1, alpha).values()
    x = conv_bn_relu(x, scaled(256, alpha), 1, 1, "head")
    return keras.Model(inputs, classifier(x, num_classes), name="mobilenet_v2_small")


def feature_maps(
    inputs: keras.KerasTensor,
    stages: Sequence[tuple[int, int, int, int]],
    stem: int,
    stem_stride: int,
    alpha: float = 1.0,
) -> dict[str, keras.KerasTensor]:
    """The outputs of the inverted residual blocks by name, from `stage1_block1` on.

    Args:
        inputs: images.
        stages: of (expansion, channels, blocks, stride of the first block), such as `STAGES`.
        stem: channels of the first convolution.
        stem_stride: its stride.
        alpha: scales all channel counts, which become multiples of 8.

    Raises:
        UsageError: alpha is not above 0.
    """
    if alpha <= 0:
        raise UsageError(f"alpha must be above 0, received {alpha}")
    x, maps = conv_bn_relu(inputs, scaled(stem, alpha), 3, stem_stride, "stem"), {}
    for name, expansion, channels, stride in _blocks(stages):
        x = _add_if_same(x, inverted_residual(x, expansion, scaled(channels, alpha), stride, name), stride, name)
        maps[name] = x
    return maps


def _blocks(stages):
    """Yields (name, expansion, channels, stride) of every block."""
    for stage, (expansion, channels, count, first_stride) in enumerate(stages, start=1):
        for block in range(1, count + 1):
            yield f"stage{stage}_block{block}", expansion, channels, first_stride if block == 1 else 1


def scaled(channels: int, alpha: float) -> int:
    """The multiple of 8 that is nearest to `alpha * channels`, at least 8."""
    return max(8, round(channels * alpha / 8) * 8)


def inverted_residual(
    x,
    expansion: int,
    filters: int,
    stride: int,
    name: str,
    always_expand: bool = False,
    max_value: float | None = 6.0,
):
    """A 1x1 expansion, a 3x3 depthwise convolution and a linear 1x1 projection, without the sum."""
    if expansion != 1 or always_expand:
        x = conv_bn_relu(x, expansion * x.shape[-1], 1, 1, f"{name}_expand", max_value)
    x = bn_relu(depthwise(3, stride, f"{name}_depthwise")(x), f"{name}_depthwise", max_value)
    x = conv(filters, 1, 1, f"{name}_project_conv")(x)
    return layers.BatchNormalization(name=f"{name}_project_bn")(x)


def _add_if_same(x, y, stride: int, name: str):
    if stride == 1 and x.shape[-1] == y.shape[-1]:
        return layers.Add(name=f"{name}_add")([x, y])
    return y


def conv_bn_relu(x, filters: int, size: int, stride: int, name: str, max_value: float | None = 6.0):
    """A convolution, BatchNormalization and ReLU6."""
    return bn_relu(conv(filters, size, stride, f"{name}_conv")(x), name, max_value)
