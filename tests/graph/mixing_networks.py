"""Networks whose blocks mix positions by something else than attention, or beside it; small by default."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("mixing")
class LayerScale(keras.layers.Layer):
    """One weight for each channel, as users write it; `width` is in its config."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.gamma = self.add_weight(shape=(self.width,), initializer=keras.initializers.Constant(0.1), name="gamma")

    def call(self, x):
        return x * self.gamma

    def compute_output_shape(self, shape):  # else Keras calls it, on a sparse tensor behind a product with a constant
        return shape

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("mixing")
class GlobalResponseNorm(keras.layers.Layer):
    """As in ConvNeXt V2: each channel's norm over space, divided by the mean of all channels'."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="zeros", name="gamma")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros", name="beta")

    def call(self, x):
        norms = ops.sqrt(ops.sum(ops.square(x), axis=(1, 2), keepdims=True))
        return self.gamma * (x * norms / (ops.mean(norms, axis=-1, keepdims=True) + 1e-6)) + self.beta + x

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable("mixing")
class Positions(keras.layers.Layer):
    """Adds a table of positions."""

    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer="random_normal", name="table")

    def call(self, x):
        return x + self.table


def mlp(x, hidden, name, activation="gelu"):
    y = layers.Dense(hidden, activation=activation, name=f"{name}_hidden")(x)
    return layers.Dense(x.shape[-1], name=f"{name}_out")(y)


def patches(x, patch, width, name="patches"):
    """Patches by reshape and transpose, then a Dense layer."""
    rows, columns, channels = x.shape[1] // patch, x.shape[2] // patch, x.shape[3]
    x = ops.transpose(ops.reshape(x, (-1, rows, patch, columns, patch, channels)), (0, 1, 3, 2, 4, 5))
    return layers.Dense(width, name=name)(ops.reshape(x, (-1, rows * columns, patch * patch * channels)))


def mlp_mixer(size=8, patch=4, width=6, tokens=5, hidden=7, depth=2, classes=3, normalize=layers.LayerNormalization):
    """MLP-Mixer: a Dense layer over positions, then one over channels."""
    inputs = keras.Input((size, size, 3))
    x = patches(inputs, patch, width)
    for i in range(depth):
        y = layers.Permute((2, 1))(normalize()(x))
        x = x + layers.Permute((2, 1))(mlp(y, tokens, f"tokens{i}"))
        x = x + mlp(normalize()(x), hidden, f"channels{i}")
    x = layers.GlobalAveragePooling1D()(normalize()(x))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="mlp_mixer")


def gmlp(size=8, patch=4, width=6, hidden=8, depth=2, classes=3, normalize=layers.LayerNormalization):
    """gMLP: half of the hidden channels, mixed over positions, gate the others."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(width, patch, patch, name="patches")(inputs)
    x = layers.Reshape((-1, width))(x)
    for i in range(depth):
        y = layers.Dense(hidden, activation="gelu", name=f"hidden{i}")(normalize()(x))
        values, gates = ops.split(y, 2, axis=-1)
        gates = ops.swapaxes(layers.Dense(x.shape[1], name=f"gate{i}")(ops.swapaxes(gates, 1, 2)), 1, 2)
        x = x + layers.Dense(width, name=f"out{i}")(values * gates)
    return keras.Model(inputs, layers.Dense(classes, name="head")(layers.GlobalAveragePooling1D()(x)), name="gmlp")


def pool_former(size=16, widths=(4, 6), ratio=2, depth=1, classes=3, normalize=None):
    """PoolFormer: a pooled map minus itself mixes positions; LayerScale and stochastic depth around it."""
    normalize = normalize or (lambda: layers.GroupNormalization(1))
    inputs = x = keras.Input((size, size, 3))
    for stage, width in enumerate(widths):
        x = layers.Conv2D(width, 3, 2, padding="same", name=f"down{stage}")(x)
        for i in range(depth):
            y = normalize()(x)
            y = layers.AveragePooling2D(3, 1, padding="same")(y) - y
            x = x + layers.Dropout(0.1, noise_shape=(None, 1, 1, 1))(LayerScale(width)(y))
            y = layers.Conv2D(ratio * width, 1, activation="gelu", name=f"hidden{stage}{i}")(normalize()(x))
            y = layers.Conv2D(width, 1, name=f"out{stage}{i}")(y)
            x = x + layers.Dropout(0.1, noise_shape=(None, 1, 1, 1))(LayerScale(width)(y))
    x = layers.GlobalAveragePooling2D()(normalize()(x))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="pool_former")


def conv_next(size=16, widths=(4, 6), ratio=2, depth=1, classes=3, scale=LayerScale, response=None, dense=True):
    """ConvNeXt; with `response=GlobalResponseNorm` and without a scale V2."""
    inputs = x = keras.Input((size, size, 3))
    for stage, width in enumerate(widths):
        x = layers.Conv2D(width, 2, 2, name=f"down{stage}")(layers.LayerNormalization()(x) if stage else x)
        for i in range(depth):
            y = layers.LayerNormalization()(layers.DepthwiseConv2D(7, padding="same")(x))
            point = (lambda n, **k: layers.Dense(n, **k)) if dense else (lambda n, **k: layers.Conv2D(n, 1, **k))
            y = point(ratio * width, activation="gelu", name=f"hidden{stage}{i}")(y)
            y = response()(y) if response else y
            y = point(width, name=f"out{stage}{i}")(y)
            x = x + (scale(width)(y) if scale else y)
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="conv_next")


def windows(x, window):
    """(N, H, W, C) to (N, windows, window * window, C)."""
    rows, columns, channels = x.shape[1] // window, x.shape[2] // window, x.shape[3]
    x = ops.transpose(ops.reshape(x, (-1, rows, window, columns, window, channels)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, rows * columns, window * window, channels))


def whole(x, window, rows, columns):
    """The way back from `windows`."""
    x = ops.reshape(x, (-1, rows, columns, window, window, x.shape[-1]))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * window, columns * window, x.shape[-1]))


def swin(size=16, patch=2, widths=(8, 16), heads=(2, 4), window=4, ratio=2, depth=2, classes=3):
    """Swin-like: attention in windows, shifted in every second block, and merged patches between stages."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(widths[0], patch, patch, name="patches")(inputs)
    for stage, (width, count) in enumerate(zip(widths, heads, strict=True)):
        if stage:
            x = ops.reshape(x, (-1, x.shape[1] // 2, 2, x.shape[2] // 2, 2, x.shape[3]))
            x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, x.shape[1], x.shape[3], 4 * x.shape[5]))
            x = layers.Dense(width, use_bias=False, name=f"merge{stage}")(layers.LayerNormalization()(x))
        for i in range(depth):
            rows, columns, shift = x.shape[1] // window, x.shape[2] // window, window // 2 * (i % 2)
            y = layers.LayerNormalization()(x)
            y = windows(ops.roll(y, (-shift, -shift), (1, 2)) if shift else y, window)
            attention = layers.MultiHeadAttention(count, width // count, attention_axes=2, name=f"attention{stage}{i}")
            y = whole(attention(y, y), window, rows, columns)
            x = x + (ops.roll(y, (shift, shift), (1, 2)) if shift else y)
            x = x + mlp(layers.LayerNormalization()(x), ratio * width, f"mlp{stage}{i}")
    x = layers.GlobalAveragePooling2D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="swin")


def conv_then_attention(size=16, widths=(4, 8), ratio=2, depth=1, heads=2, classes=3):
    """EfficientFormer- and FastViT-like: stages of convolutions with three branches, then blocks of attention."""
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(widths[0], 3, 4, padding="same", name="stem")(inputs)
    for i in range(depth):
        branches = [layers.DepthwiseConv2D(k, padding="same", use_bias=False)(x) for k in (3, 1)]
        y = layers.Add()([layers.BatchNormalization()(b) for b in (*branches, x)])
        y = layers.Conv2D(ratio * widths[0], 1, activation="gelu", name=f"hidden0{i}")(y)
        x = x + layers.Conv2D(widths[0], 1, name=f"out0{i}")(y)
    x = layers.BatchNormalization()(layers.Conv2D(widths[1], 3, 2, padding="same", name="down")(x))
    x = layers.Reshape((-1, widths[1]))(x)
    x = Positions(name="positions")(x)
    for i in range(depth):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, widths[1] // heads, name=f"attention{i}")(y, y)
        x = x + mlp(layers.LayerNormalization()(x), ratio * widths[1], f"mlp{i}")
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="conv_then_attention")
