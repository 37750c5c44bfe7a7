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
        block = f"block{number}"
        normal = layers.LayerNormalization(epsilon=1e-6, name=f"{block}_attention_norm")(x)
        attended = layers.MultiHeadAttention(heads, width // heads, name=f"{block}_attention")(normal, normal)
        x = layers.Add(name=f"{block}_attention_add")([x, attended])
        normal = layers.LayerNormalization(epsilon=1e-6, name=f"{block}_mlp_norm")(x)
        hidden = layers.Dense(2 * width, activation="gelu", name=f"{block}_mlp_hidden")(normal)
        x = layers.Add(name=f"{block}_mlp_add")([x, layers.Dense(width, name=f"{block}_mlp_out")(hidden)])
    x = layers.LayerNormalization(epsilon=1e-6, name="head_norm")(x)
    x = layers.GlobalAveragePooling1D(name="head_pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, name="logits")(x), name="vit")
