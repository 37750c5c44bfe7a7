"""A small MobileNetV2 for small images."""

import keras
from keras import layers

from dcp_tf.errors import UsageError

# Stages of (expansion, channels, blocks, stride of the first block).
_STAGES = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 1), (4, 64, 2, 2), (4, 96, 1, 1))
_STEM, _HEAD = 16, 256


def mobilenet_v2_small(
    input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10, alpha: float = 1.0
) -> keras.Model:
    """Builds a small network in the manner of MobileNetV2 (Sandler et al. 2018).

    Inverted residual blocks (1x1 expansion, 3x3 depthwise, linear 1x1 projection; ReLU6), eight of them, with a quarter
    of the input's height and width at the end. No convolution has a bias.

    Args:
        input_shape: (H, W, C).
        num_classes: how many logits come out.
        alpha: scales all channel counts, which stay multiples of 8.

    Returns:
        An untrained functional model that ends in logits.

    Raises:
        UsageError: alpha is not above 0.
    """
    if alpha <= 0:
        raise UsageError(f"alpha must be above 0, received {alpha}")
    inputs = keras.Input(input_shape, name="image")
    x = _conv_bn(inputs, _scaled(_STEM, alpha), 3, "stem", relu=True)
    for stage, (expansion, channels, blocks, first_stride) in enumerate(_STAGES, start=1):
        for block in range(1, blocks + 1):
            stride = first_stride if block == 1 else 1
            x = _inverted_residual(x, expansion, _scaled(channels, alpha), stride, f"stage{stage}_block{block}")
    x = _conv_bn(x, _scaled(_HEAD, alpha), 1, "head", relu=True)
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    outputs = layers.Dense(num_classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model(inputs, outputs, name="mobilenet_v2_small")


def _scaled(channels: int, alpha: float) -> int:
    return max(8, round(channels * alpha / 8) * 8)


def _inverted_residual(x, expansion: int, filters: int, stride: int, name: str):
    y = x
    if expansion != 1:
        y = _conv_bn(y, expansion * x.shape[-1], 1, f"{name}_expand", relu=True)
    y = layers.DepthwiseConv2D(
        3, strides=stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_depthwise"
    )(y)
    y = layers.BatchNormalization(name=f"{name}_depthwise_bn")(y)
    y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(y)
    y = _conv_bn(y, filters, 1, f"{name}_project", relu=False)
    if stride == 1 and x.shape[-1] == filters:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


def _conv_bn(x, filters: int, size: int, name: str, *, relu: bool):
    x = layers.Conv2D(
        filters, size, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
