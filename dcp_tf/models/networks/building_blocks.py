"""Building blocks of the networks in this folder."""

import keras
from keras import layers


def conv(
    filters: int, size: int, stride: int, name: str, *, use_bias: bool = False, padding: str = "same"
) -> layers.Layer:
    """A square convolution that, padded, keeps the size of the image (divided by the stride)."""
    return layers.Conv2D(
        filters, size, strides=stride, padding=padding, use_bias=use_bias, kernel_initializer="he_normal", name=name
    )


def depthwise(size: int, stride: int, name: str, *, padding: str = "same") -> layers.Layer:
    """A square depthwise convolution without a bias that, padded, keeps the image's size (divided by the stride)."""
    return layers.DepthwiseConv2D(
        size, strides=stride, padding=padding, use_bias=False, depthwise_initializer="he_normal", name=name
    )


def bn_relu(x: keras.KerasTensor, name: str, max_value: float | None = None) -> keras.KerasTensor:
    """BatchNormalization and a ReLU that is cut at `max_value`."""
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(max_value, name=f"{name}_relu")(x)


def prelu(name: str) -> layers.Layer:
    """A PReLU with one slope per channel, .25 at first."""
    return layers.PReLU(alpha_initializer=keras.initializers.Constant(0.25), shared_axes=[1, 2], name=name)


def bn_prelu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """BatchNormalization and a PReLU."""
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return prelu(f"{name}_prelu")(x)


def classifier(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """The mean over the image and a fully connected layer that gives logits."""
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    return layers.Dense(num_classes, kernel_initializer="he_normal", name="logits")(x)
