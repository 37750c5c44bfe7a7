"""A small hybrid of convolutions and attention, for images of CIFAR's size."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import classifier, conv
from dcp_tf.models.networks.mobilenet_v2 import conv_bn_relu, inverted_residual
from dcp_tf.models.networks.vit import transformer_block


def mobilevit_cifar(input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds a small network like MobileViT (Mehta and Rastegari 2022): inverted residuals, then attention.

    Two MobileViT blocks of widths 64 and 80 with two and three transformer layers, at 8 x 8 and 4 x 4 positions of an
    image of 32 pixels. In each, pixels of the same place in their patches of 2 x 2 attend to each other.

    Args:
        input_shape: (H, W, C), H and W multiples of 16.
        num_classes: the number of logits.

    Returns:
        An untrained functional model that ends in logits.
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_bn_relu(inputs, 16, 3, 1, "stem")
    x = inverted_residual(x, 2, 24, 2, "stage1_block1")
    x = layers.Add(name="stage1_block2_add")([x, inverted_residual(x, 2, 24, 1, "stage1_block2")])
    x = inverted_residual(x, 2, 48, 2, "stage2_block1")
    x = _mobilevit_block(x, 64, 2, "stage2_vit")
    x = inverted_residual(x, 2, 64, 2, "stage3_block1")
    x = _mobilevit_block(x, 80, 3, "stage3_vit")
    x = conv_bn_relu(x, 256, 1, 1, "head")
    return keras.Model(inputs, classifier(x, num_classes), name="mobilevit")


def _mobilevit_block(x: keras.KerasTensor, width: int, depth: int, name: str) -> keras.KerasTensor:
    """A convolution, transformer layers over the patches, and a convolution of their result beside the input."""
    _, height, breadth, channels = x.shape
    local = conv_bn_relu(x, channels, 3, 1, f"{name}_local")
    local = conv(width, 1, 1, f"{name}_widen", use_bias=True)(local)
    rows, columns = height // 2, breadth // 2
    # (rows, 2, columns, 2) -> place in the patch, patch
    tokens = layers.Reshape((rows, 2, columns, 2 * width), name=f"{name}_split")(local)
    tokens = layers.Permute((2, 1, 3, 4), name=f"{name}_unfold")(tokens)
    tokens = layers.Reshape((2, rows * columns, 2, width), name=f"{name}_pairs")(tokens)
    tokens = layers.Permute((1, 3, 2, 4), name=f"{name}_places")(tokens)
    tokens = layers.Reshape((4, rows * columns, width), name=f"{name}_patches")(tokens)
    for number in range(1, depth + 1):
        tokens = transformer_block(tokens, 4, f"{name}_layer{number}", axis=2)
    tokens = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(tokens)
    tokens = layers.Reshape((2, 2, rows * columns, width), name=f"{name}_by_place")(tokens)
    tokens = layers.Permute((1, 3, 2, 4), name=f"{name}_by_row")(tokens)
    tokens = layers.Reshape((2, rows, columns, 2 * width), name=f"{name}_rows")(tokens)
    tokens = layers.Permute((2, 1, 3, 4), name=f"{name}_fold")(tokens)
    tokens = layers.Reshape((height, breadth, width), name=f"{name}_join")(tokens)
    wide = conv_bn_relu(tokens, channels, 1, 1, f"{name}_narrow")
    return conv_bn_relu(layers.Concatenate(name=f"{name}_beside")([x, wide]), channels, 3, 1, f"{name}_fusion")
