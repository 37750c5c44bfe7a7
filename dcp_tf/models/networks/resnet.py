"""Residual networks for ImageNet."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv

_WIDTHS = (64, 128, 256, 512)


def resnet18(input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000) -> keras.Model:
    """Builds ResNet-18 (He et al. 2016): basic blocks of two 3x3 convolutions, (2, 2, 2, 2) per stage.

    11,689,512 parameters without BatchNorm's statistics. Padding is TensorFlow's "same".

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _resnet("resnet18", _basic_block, 1, (2, 2, 2, 2), input_shape, num_classes)


def resnet50(input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000) -> keras.Model:
    """Builds ResNet-50 (He et al. 2016): bottlenecks of 1x1, 3x3 and 1x1 convolutions, (3, 4, 6, 3) per stage.

    The stride is on the 3x3 convolution (as in torchvision). 25,557,032 parameters without BatchNorm's statistics.
    Padding is TensorFlow's "same".

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _resnet("resnet50", _bottleneck, 4, (3, 4, 6, 3), input_shape, num_classes)


def _resnet(name: str, block, expansion: int, depths: tuple[int, ...], input_shape, num_classes: int) -> keras.Model:
    inputs = keras.Input(input_shape, name="image")
    x = bn_relu(conv(64, 7, 2, "stem_conv")(inputs), "stem")
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True), start=1):
        for number in range(1, depth + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = _residual(x, block, width, expansion * width, stride, f"stage{stage}_block{number}")
    return keras.Model(inputs, classifier(x, num_classes), name=name)


def _residual(x, block, width: int, filters: int, stride: int, name: str):
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = conv(filters, 1, stride, f"{name}_shortcut")(x)
        shortcut = layers.BatchNormalization(name=f"{name}_shortcut_bn")(shortcut)
    y = block(x, width, filters, stride, name)
    y = layers.Add(name=f"{name}_add")([shortcut, y])
    return layers.ReLU(name=f"{name}_relu")(y)


def _basic_block(x, width: int, filters: int, stride: int, name: str):
    y = bn_relu(conv(width, 3, stride, f"{name}_conv1")(x), f"{name}_conv1")
    y = conv(filters, 3, 1, f"{name}_conv2")(y)
    return layers.BatchNormalization(name=f"{name}_conv2_bn")(y)


def _bottleneck(x, width: int, filters: int, stride: int, name: str):
    y = bn_relu(conv(width, 1, 1, f"{name}_conv1")(x), f"{name}_conv1")
    y = bn_relu(conv(width, 3, stride, f"{name}_conv2")(y), f"{name}_conv2")
    y = conv(filters, 1, 1, f"{name}_conv3")(y)
    return layers.BatchNormalization(name=f"{name}_conv3_bn")(y)
