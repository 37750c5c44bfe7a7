"""A small vision transformer, for images of CIFAR's size."""

import keras
from keras import layers


def vit_cifar(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 128,
    blocks: int = 6,
    heads: int = 4,
    patch: int = 4,
) -> keras.Model:
    """Builds a vision transformer (Dosovitskiy et al. 2021) with LayerNormalization before attention and MLP.

    Positions come from a 3x3 depthwise convolution of the patches (Chu et al. 2021), so that no layer of dcp_tf is
    needed to load it; the mean over all patches goes to the classifier. The MLP is twice as wide as the stream.

    Args:
        input_shape: (H, W, C), H and W multiples of `patch`.
        num_classes: the number of logits.
        width: channels of the stream.
        blocks: how many blocks of attention and MLP.
        heads: of each attention; they share `width`.
        patch: height and width of a patch in pixels.

    Returns:
        An untrained functional model that ends in logits.
    """
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(inputs)
    positions = layers.DepthwiseConv2D(3, padding="same", name="positions")(x)
    x = layers.Add(name="embedding")([x, positions])
    x = layers.Reshape((-1, width), name="tokens")(x)
    for number in range(1, blocks + 1):
        x = transformer_block(x, heads, f"block{number}")
    x = layers.LayerNormalization(epsilon=1e-6, name="head_norm")(x)
    x = layers.GlobalAveragePooling1D(name="head_pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="vit")


def transformer_block(x: keras.KerasTensor, heads: int, name: str, axis: int = 1) -> keras.KerasTensor:
    """Attention, then an MLP twice as wide as the stream, each behind a LayerNormalization and added to its input.

    Args:
        x: (..., channels).
        heads: of the attention; they share the channels.
        name: the layers' names begin with it.
        axis: of the positions that attend to each other.
    """
    width = x.shape[-1]
    normal = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_attention_norm")(x)
    attention = layers.MultiHeadAttention(heads, width // heads, attention_axes=axis, name=f"{name}_attention")
    x = layers.Add(name=f"{name}_attention_add")([x, attention(normal, normal)])
    normal = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_mlp_norm")(x)
    hidden = layers.Dense(2 * width, activation="gelu", name=f"{name}_mlp_hidden")(normal)
    return layers.Add(name=f"{name}_mlp_add")([x, layers.Dense(width, name=f"{name}_mlp_out")(hidden)])
