"""A classifier of images that also reads a row of numbers."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_relu
from dcp_tf.models.networks.mobilenet_v2 import SMALL_STAGES, conv_bn_relu, feature_maps, scaled


def image_and_metadata(
    input_shape: tuple[int, int, int] = (64, 64, 3),
    num_classes: int = 8,
    metadata: int = 8,
    alpha: float = 1.0,
    units: int = 64,
) -> keras.Model:
    """Builds a network for an image and what is known of it besides, such as age, site or distance.

    Two fully connected layers read the metadata; their outputs and the pooled features of the image are concatenated,
    and a fully connected layer in front of the logits reads both (late fusion, as in Gessert et al. 2020, "Skin lesion
    classification using ensembles of multi-resolution EfficientNets with meta data"). The image goes through the
    blocks of `mobilenet_v2_small`, with a stem of stride 2.

    Args:
        input_shape: (H, W, C) of the image.
        num_classes: the number of logits.
        metadata: how many numbers.
        alpha: scales the channel counts of the image's part.
        units: of the fully connected layers.

    Returns:
        An untrained functional model of a dict of `image` and `metadata` that ends in logits.
    """
    image, row = keras.Input(input_shape, name="image"), keras.Input((metadata,), name="metadata")
    *_, x = feature_maps(image, SMALL_STAGES, 16, 2, alpha).values()
    x = conv_bn_relu(x, scaled(256, alpha), 1, 1, "head")
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    y = _dense_bn_relu(_dense_bn_relu(row, units, "metadata_1"), units, "metadata_2")
    x = _dense_bn_relu(layers.Concatenate(name="fusion_concat")([x, y]), 2 * units, "fusion")
    logits = layers.Dense(num_classes, kernel_initializer="he_normal", name="logits")(x)
    return keras.Model({"image": image, "metadata": row}, logits, name="image_and_metadata")


def _dense_bn_relu(x, units: int, name: str):
    dense = layers.Dense(units, use_bias=False, kernel_initializer="he_normal", name=f"{name}_dense")
    return bn_relu(dense(x), name)
