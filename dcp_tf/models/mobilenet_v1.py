"""MobileNetV1, for ImageNet and for small images."""

import keras

from dcp_tf.models.parts import bn_relu, classifier, conv, depthwise

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
        num_classes: how many logits come out.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1", 2, input_shape, num_classes)


def mobilenet_v1_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds `mobilenet_v1` for small images: the stem has stride 1, so 32 pixels end as 2.

    3,217,226 parameters with 10 classes, without BatchNorm's statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: how many logits come out.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _mobilenet_v1("mobilenet_v1_cifar", 1, input_shape, num_classes)


def _mobilenet_v1(name: str, stem_stride: int, input_shape, num_classes: int) -> keras.Model:
    inputs = keras.Input(input_shape, name="image")
    x = bn_relu(conv(32, 3, stem_stride, "stem_conv")(inputs), "stem")
    for number, (filters, stride) in enumerate(_BLOCKS, start=1):
        block = f"block{number}"
        x = bn_relu(depthwise(3, stride, f"{block}_depthwise")(x), f"{block}_depthwise")
        x = bn_relu(conv(filters, 1, 1, f"{block}_pointwise_conv")(x), f"{block}_pointwise")
    return keras.Model(inputs, classifier(x, num_classes), name=name)
