"""MobileNetV1, for ImageNet and for small images."""

from collections.abc import Callable
from functools import partial

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv, depthwise

# (channels, stride) of the thirteen blocks.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)


def mobilenet_v1(input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000) -> keras.Model:
    """Builds MobileNetV1 (Howard et al. 2017): a stem and thirteen blocks of depthwise 3x3 and 1x1 convolutions.

    4,231,976 parameters without BatchNorm's statistics. Each convolution is followed by BatchNormalization and ReLU
    (the paper's ReLU, not ReLU6) and has no bias.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1", 2, input_shape, num_classes)


def mobilenet_v1_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds `mobilenet_v1` for small images: the stem has stride 1, so 32 pixels end as 2.

    3,217,226 parameters with 10 classes, without BatchNorm's statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1_cifar", 1, input_shape, num_classes)


def mobilenet_v1_sparse(input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000) -> keras.Model:
    """Builds `mobilenet_v1` so that a runtime can skip the zeros of pruned kernels: XNNPACK's sparse kernels on Arm.

    They take a graph only if each convolution of stride 2 has the same padding on all sides, which "same" has not. So
    zeros are put around the image first, one pixel on each side. Weights of `mobilenet_v1` fit, but for even image
    sizes the network sees each image shifted by a pixel, so they have to be trained on for a little.

    Args:
        input_shape: (H, W, C); the sparse kernels need 3 channels and sizes that can be halved five times, for at odd
            ones TFLite's converter turns the padding back into "same".
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1_sparse", 2, input_shape, num_classes, explicit_padding=True)


def mobilenet_v1_025(input_shape: tuple[int, int, int] = (96, 96, 3), num_classes: int = 2) -> keras.Model:
    """Builds `mobilenet_v1` with a quarter of its channels: "visual wake words" of MLPerf Tiny (Banbury et al. 2021).

    With 96 pixels and 2 classes 7,489,664 MACs; 221,794 parameters as published, of which 2,736 are biases before
    BatchNormalization, which change nothing and are left out here.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1_025", 2, input_shape, num_classes, alpha=0.25)


def _mobilenet_v1(
    name: str, stem_stride: int, input_shape, num_classes: int, explicit_padding: bool = False, alpha: float = 1
) -> keras.Model:
    def strided(x, make: Callable[..., layers.Layer], stride: int, layer: str):
        if not (explicit_padding and stride == 2):
            return make(stride=stride, name=layer)(x)
        x = layers.ZeroPadding2D(1, name=f"{layer}_pad")(x)
        return make(stride=stride, name=layer, padding="valid")(x)

    inputs = keras.Input(input_shape, name="image")
    x = bn_relu(strided(inputs, partial(conv, round(32 * alpha), 3), stem_stride, "stem_conv"), "stem")
    for number, (filters, stride) in enumerate(_BLOCKS, start=1):
        block = f"block{number}"
        x = bn_relu(strided(x, partial(depthwise, 3), stride, f"{block}_depthwise"), f"{block}_depthwise")
        x = bn_relu(conv(round(filters * alpha), 1, 1, f"{block}_pointwise_conv")(x), f"{block}_pointwise")
    return keras.Model(inputs, classifier(x, num_classes), name=name)
