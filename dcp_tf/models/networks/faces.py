"""Networks that turn a face into an embedding."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_prelu, conv, depthwise, prelu

# Stages of (expansion, channels, blocks, stride of the first block).
_MOBILEFACENET_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_WIDTHS = (64, 128, 256, 512)


def mobilefacenet(input_shape: tuple[int, int, int] = (112, 112, 3), embedding: int = 128) -> keras.Model:
    """Builds MobileFaceNet (Chen et al. 2018): inverted residual blocks with PReLU and a global depthwise convolution.

    With an embedding of 128 values 1,003,136 parameters without BatchNorm's statistics for images of 112 x 112, and
    999,552 for 112 x 96.

    Args:
        input_shape: (H, W, C).
        embedding: the size of the embedding.

    Returns:
        An untrained functional model that ends in embeddings (not normalized).
    """
    inputs = keras.Input(input_shape, name="image")
    x = bn_prelu(conv(64, 3, 2, "stem_conv")(inputs), "stem")
    x = bn_prelu(depthwise(3, 1, "stem_depthwise")(x), "stem_depthwise")
    for stage, (expansion, channels, blocks, first_stride) in enumerate(_MOBILEFACENET_STAGES, start=1):
        for block in range(1, blocks + 1):
            stride = first_stride if block == 1 else 1
            x = _inverted_residual(x, expansion, channels, stride, f"stage{stage}_block{block}")
    x = bn_prelu(conv(512, 1, 1, "head_conv")(x), "head")
    size = tuple(x.shape[1:3])
    x = layers.DepthwiseConv2D(size, use_bias=False, depthwise_initializer="he_normal", name="head_depthwise")(x)
    x = layers.BatchNormalization(name="head_depthwise_bn")(x)
    x = conv(embedding, 1, 1, "embedding_conv")(x)
    x = layers.BatchNormalization(name="embedding_bn")(x)
    return keras.Model(inputs, layers.Flatten(name="embedding")(x), name="mobilefacenet")


def _inverted_residual(x, expansion: int, filters: int, stride: int, name: str):
    y = bn_prelu(conv(expansion * x.shape[-1], 1, 1, f"{name}_expand_conv")(x), f"{name}_expand")
    y = bn_prelu(depthwise(3, stride, f"{name}_depthwise")(y), f"{name}_depthwise")
    y = conv(filters, 1, 1, f"{name}_project_conv")(y)
    y = layers.BatchNormalization(name=f"{name}_project_bn")(y)
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and x.shape[-1] == filters else y


def lresnet34e_ir(input_shape: tuple[int, int, int] = (112, 112, 3), embedding: int = 512) -> keras.Model:
    """Builds LResNet34E-IR (Deng et al. 2019, "ArcFace"): ResNet-34 in "improved residual" blocks, and output "E".

    A block is BN-conv-BN-PReLU-conv-BN, its second convolution has the stride; the first block of each stage has a 1x1
    convolution as its shortcut. The output is BN-Dropout-Dense-BN. With 112 x 112 pixels and an embedding of 512
    values 34,139,328 parameters without BatchNorm's statistics.

    Args:
        input_shape: (H, W, C).
        embedding: the size of the embedding.

    Returns:
        An untrained functional model that ends in embeddings (not normalized).
    """
    inputs = keras.Input(input_shape, name="image")
    x = bn_prelu(conv(64, 3, 1, "stem_conv")(inputs), "stem")
    for stage, (filters, blocks) in enumerate(zip(_WIDTHS, (3, 4, 6, 3), strict=True), start=1):
        for block in range(1, blocks + 1):
            x = _improved_residual(x, filters, block == 1, f"stage{stage}_block{block}")
    x = layers.BatchNormalization(name="head_bn")(x)
    x = layers.Dropout(0.4, name="head_dropout")(x)
    x = layers.Flatten(name="head_flatten")(x)
    x = layers.Dense(embedding, kernel_initializer="he_normal", name="embedding_dense")(x)
    return keras.Model(inputs, layers.BatchNormalization(name="embedding")(x), name="lresnet34e_ir")


def _improved_residual(x, filters: int, first: bool, name: str):
    stride = 2 if first else 1
    shortcut = x
    if first:
        shortcut = conv(filters, 1, stride, f"{name}_shortcut")(x)
        shortcut = layers.BatchNormalization(name=f"{name}_shortcut_bn")(shortcut)
    y = layers.BatchNormalization(name=f"{name}_pre_bn")(x)
    y = bn_prelu(conv(filters, 3, 1, f"{name}_conv1")(y), f"{name}_conv1")
    y = conv(filters, 3, stride, f"{name}_conv2")(y)
    y = layers.BatchNormalization(name=f"{name}_conv2_bn")(y)
    return layers.Add(name=f"{name}_add")([shortcut, y])


def spherenet4(input_shape: tuple[int, int, int] = (112, 96, 3), embedding: int = 512) -> keras.Model:
    """Builds SphereNet-4 (Liu et al. 2017, "SphereFace"): four 3x3 convolutions with stride 2.

    With 112 x 96 pixels and an embedding of 512 values 12,562,496 parameters. See `spherenet20`.
    """
    return _spherenet("spherenet4", (0, 0, 0, 0), input_shape, embedding)


def spherenet20(input_shape: tuple[int, int, int] = (112, 96, 3), embedding: int = 512) -> keras.Model:
    """Builds SphereNet-20 (Liu et al. 2017, "SphereFace"): as SphereNet-4, with (1, 2, 4, 1) residual units between.

    A unit is two 3x3 convolutions with PReLU. There is no BatchNormalization; the convolutions with stride have
    biases. With 112 x 96 pixels and an embedding of 512 values 22,666,944 parameters.

    Args:
        input_shape: (H, W, C).
        embedding: the size of the embedding.

    Returns:
        An untrained functional model that ends in embeddings (not normalized).
    """
    return _spherenet("spherenet20", (1, 2, 4, 1), input_shape, embedding)


def _spherenet(name: str, units: tuple[int, ...], input_shape, embedding: int) -> keras.Model:
    x = inputs = keras.Input(input_shape, name="image")
    for stage, (filters, count) in enumerate(zip(_WIDTHS, units, strict=True), start=1):
        x = prelu(f"stage{stage}_prelu")(conv(filters, 3, 2, f"stage{stage}_conv", use_bias=True)(x))
        for unit in range(1, count + 1):
            y, step = x, f"stage{stage}_unit{unit}"
            for number in (1, 2):
                y = prelu(f"{step}_prelu{number}")(conv(filters, 3, 1, f"{step}_conv{number}")(y))
            x = layers.Add(name=f"{step}_add")([x, y])
    x = layers.Flatten(name="head_flatten")(x)
    outputs = layers.Dense(embedding, kernel_initializer="he_normal", name="embedding")(x)
    return keras.Model(inputs, outputs, name=name)
