"""VGG networks with BatchNormalization for small images."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv

_WIDTHS = (64, 128, 256, 512, 512)


def vgg16_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds VGG-16 (Simonyan & Zisserman 2015) with BatchNormalization and one fully connected layer.

    Thirteen 3x3 convolutions with biases, (2, 2, 3, 3, 3) per stage. 14,728,266 parameters without BatchNorm's
    statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _vgg("vgg16_cifar", (2, 2, 3, 3, 3), input_shape, num_classes)


def vgg19_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds VGG-19 (Simonyan & Zisserman 2015) with BatchNormalization and one fully connected layer.

    Sixteen 3x3 convolutions with biases, (2, 2, 4, 4, 4) per stage. 20,040,522 parameters without BatchNorm's
    statistics.

    Args:
        input_shape: (H, W, C).
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    return _vgg("vgg19_cifar", (2, 2, 4, 4, 4), input_shape, num_classes)


def _vgg(name: str, depths: tuple[int, ...], input_shape, num_classes: int) -> keras.Model:
    x = inputs = keras.Input(input_shape, name="image")
    for stage, (filters, depth) in enumerate(zip(_WIDTHS, depths, strict=True), start=1):
        if stage > 1:
            # "same": images of less than 16 pixels shrink to one pixel and no further.
            x = layers.MaxPooling2D(2, padding="same", name=f"stage{stage - 1}_pool")(x)
        for number in range(1, depth + 1):
            step = f"stage{stage}_conv{number}"
            x = bn_relu(conv(filters, 3, 1, step, use_bias=True)(x), step)
    return keras.Model(inputs, classifier(x, num_classes), name=name)
