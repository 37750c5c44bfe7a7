"""U-Net, for a class at every pixel."""

import keras
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.models.networks.building_blocks import bn_relu, conv


def unet(
    input_shape: tuple[int, int, int] = (256, 256, 3), num_classes: int = 2, width: int = 64, depth: int = 4
) -> keras.Model:
    """Builds U-Net (Ronneberger et al. 2015): an encoder, and a decoder that also reads the encoder's feature maps.

    A level is two 3x3 convolutions, each with BatchNormalization and ReLU. Each level down halves height and width by
    max pooling and doubles the channels; each level up is a 2x2 transposed convolution and a concatenation with the
    encoder's map of the same size. Convolutions are padded, so that the logits are as large as the image (the paper
    crops).

    Args:
        input_shape: (H, W, C); H and W can be halved `depth` times.
        num_classes: the number of logits at each pixel.
        width: channels of the first level.
        depth: how often height and width are halved.

    Returns:
        An untrained functional model that ends in logits of shape (H, W, num_classes).

    Raises:
        UsageError: the image cannot be halved so often.
    """
    if any(size % 2**depth for size in input_shape[:2]):
        raise UsageError(
            f"a U-Net of depth {depth} needs images whose height and width are multiples of {2**depth}, "
            f"received {input_shape[0]} x {input_shape[1]}"
        )
    x = inputs = keras.Input(input_shape, name="image")
    skips = []
    for level in range(depth):
        x = _two_convolutions(x, width * 2**level, f"down{level + 1}")
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{level + 1}_pool")(x)
    x = _two_convolutions(x, width * 2**depth, "bottom")
    for level in reversed(range(depth)):
        filters, name = width * 2**level, f"up{level + 1}"
        x = layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal", name=f"{name}_conv0")(x)
        x = layers.Concatenate(name=f"{name}_concat")([skips[level], x])
        x = _two_convolutions(x, filters, name)
    return keras.Model(inputs, conv(num_classes, 1, 1, "logits", use_bias=True)(x), name="unet")


def _two_convolutions(x, filters: int, name: str):
    for number in (1, 2):
        x = bn_relu(conv(filters, 3, 1, f"{name}_conv{number}")(x), f"{name}_{number}")
    return x
