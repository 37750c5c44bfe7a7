"""Residual networks for small images, activated after the addition."""

import keras
from keras import layers, ops

from dcp_tf.errors import UsageError
from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv


def cifar_resnet(
    depth: int,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    shortcuts: str = "A",
    width: int = 16,
) -> keras.Model:
    """Builds the ResNet for CIFAR (He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2).

    A 3x3 stem, then three stages of basic blocks (conv-BN-ReLU-conv-BN, ReLU after the addition) with `width`,
    `2 * width` and `4 * width` channels; stages 2 and 3 begin with stride 2. No convolution has a bias. Without
    BatchNorm's statistics and with the shortcuts A / B: ResNet-20 has 269,722 / 272,474 parameters, ResNet-56 853,018 /
    855,770, ResNet-110 1,727,962 / 1,730,714.

    Args:
        depth: 6n + 2, with n blocks per stage: 8, 14, 20, ..., 56, ..., 110.
        input_shape: (H, W, C).
        num_classes: the number of logits.
        shortcuts: where a block changes the shape: "A": every second row and column, with channels of zeros on both
            sides; "B": a 1x1 convolution with BatchNormalization; "conv": one with a bias alone.
        width: the channels of the stem and of stage 1.

    Returns:
        An untrained functional model that ends in logits.

    Raises:
        UsageError: the depth is not 6n + 2, or there are no such shortcuts.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise UsageError(f"a resnet for CIFAR has a depth of 6n + 2 (8, 14, 20, ..., 56, 110), received {depth}")
    if shortcuts not in ("A", "B", "conv"):
        raise UsageError(f"shortcuts are 'A' or 'B', or 'conv', received {shortcuts!r}")
    inputs = keras.Input(input_shape, name="image")
    x = bn_relu(conv(width, 3, 1, "stem_conv")(inputs), "stem")
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width * 2 ** (stage - 1), stride, shortcuts, f"stage{stage}_block{block}")
    name = f"resnet{depth}" + ("b" if shortcuts == "B" else "")
    return keras.Model(inputs, classifier(x, num_classes), name=name)


def resnet8(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds the ResNet-8 of MLPerf Tiny (Banbury et al. 2021), for microcontrollers: one block a stage.

    The 1x1 convolutions of its shortcuts have a bias and no BatchNormalization. 12,501,632 MACs; 78,666 parameters as
    published, of which 240 are biases before BatchNormalization, which change nothing and are left out here.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return cifar_resnet(8, input_shape, num_classes, shortcuts="conv")


def _basic_block(x, filters: int, stride: int, shortcuts: str, name: str):
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        is_plain = shortcuts == "conv"
        shortcut = _pad(x, filters, stride) if shortcuts == "A" else _project(x, filters, stride, name, is_plain)
    y = bn_relu(conv(filters, 3, stride, f"{name}_conv1")(x), f"{name}_conv1")
    y = conv(filters, 3, 1, f"{name}_conv2")(y)
    y = layers.BatchNormalization(name=f"{name}_conv2_bn")(y)
    y = layers.Add(name=f"{name}_add")([shortcut, y])
    return layers.ReLU(name=f"{name}_relu")(y)


def _pad(x, filters: int, stride: int):
    before = (filters - x.shape[-1]) // 2
    after = filters - x.shape[-1] - before
    return ops.pad(x[:, ::stride, ::stride, :], [[0, 0], [0, 0], [0, 0], [before, after]])


def _project(x, filters: int, stride: int, name: str, is_plain: bool):
    x = conv(filters, 1, stride, f"{name}_shortcut", use_bias=is_plain)(x)
    return x if is_plain else layers.BatchNormalization(name=f"{name}_shortcut_bn")(x)
