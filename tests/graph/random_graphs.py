"""Random functional models that mix every kind of operation. A new kind is one entry of a table."""

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

# Each entry takes (draw, x) with x a feature map (N, H, W, C), and returns a feature map.
UNARY = {
    "conv": lambda d, x: layers.Conv2D(
        d(st.integers(1, 6)), d(st.sampled_from([1, 3])), padding="same", use_bias=d(st.booleans())
    )(x),
    "grouped": lambda d, x: layers.Conv2D(
        x.shape[-1] * d(st.integers(1, 2)), 3, padding="same", groups=d(st.sampled_from(divisors(x.shape[-1])))
    )(x),
    "depthwise": lambda d, x: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=d(st.integers(1, 2)))(x),
    "separable": lambda d, x: layers.SeparableConv2D(d(st.integers(1, 5)), 3, padding="same")(x),
    "transposed": lambda d, x: layers.Conv2DTranspose(d(st.integers(1, 5)), 3, padding="same")(x),
    "dense": lambda d, x: layers.Dense(d(st.integers(1, 6)), activation="tanh")(x),
    "norm": lambda d, x: layers.BatchNormalization(axis=d(st.sampled_from([-1, -1, 1])))(x),
    "prelu": lambda d, x: layers.PReLU(shared_axes=d(st.sampled_from([None, [1, 2], [3]])))(x),
    "activation": lambda d, x: layers.Activation(d(st.sampled_from(["relu", "gelu", "hard_silu"])))(x),
    "dropout": lambda d, x: layers.Dropout(0.3)(x),
    "pool": lambda d, x: layers.AveragePooling2D(3, strides=1, padding="same")(x),
    "pad and crop": lambda d, x: layers.Cropping2D(1)(layers.ZeroPadding2D(1)(x)),
    "up and down": lambda d, x: layers.MaxPooling2D()(layers.UpSampling2D()(x)),
    "permute": lambda d, x: layers.Permute((2, 1, 3))(x),
    "reshape and back": lambda d, x: layers.Reshape(x.shape[1:])(layers.Reshape((-1, x.shape[-1]))(x)),
    "shuffle": lambda d, x: shuffle(x, d(st.sampled_from(divisors(x.shape[-1])))),
    "squeeze and excite": lambda d, x: x * layers.Dense(x.shape[-1], activation="sigmoid")(ops.mean(x, [1, 2], True)),
    "arithmetic": lambda d, x: 1.0 - (x * 2 + 1) / 3,
    "constant": lambda d, x: x * np.linspace(0.5, 2, x.shape[-1], dtype="float32"),
    "spread": lambda d, x: x * layers.Conv2D(1, 1, activation="sigmoid")(x),
    "range": lambda d, x: x[..., d(st.integers(0, x.shape[-1] - 1)) :],
    "rotate": lambda d, x: ops.concatenate(ops.split(x, [1], axis=-1)[::-1], -1) if x.shape[-1] > 1 else -x,
    "flip": lambda d, x: ops.flip(x, axis=d(st.sampled_from([1, 3]))),
    "double": lambda d, x: ops.repeat(x, 2, axis=-1) if x.shape[-1] < 7 else x,
    "widen": lambda d, x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, d(st.integers(0, 1))))),
    "by number": lambda d, x: ops.take(x, d(st.permutations(range(x.shape[-1])))[1:] or [0], axis=-1),
    "running sums": lambda d, x: ops.cumsum(x, axis=1) * 0.3,
    "mixed rows": lambda d, x: ops.einsum("pq,bqwc->bpwc", np.tri(4, dtype="float32") / 2, x),
    "blocks and back": lambda d, x: ops.depth_to_space(ops.relu(ops.space_to_depth(x, 2)), 2),
    "statistics": lambda d, x: layers.LayerNormalization()(x),
    "unknown": lambda d, x: ops.cumsum(x, axis=-1),
    "softmax": lambda d, x: ops.softmax(x, axis=d(st.sampled_from([1, -1]))),
    "nested": lambda d, x: nested(d, x)(x),
    "nested twice": lambda d, x: twice(nested(d, x, same_width=True), x),
    "shared": lambda d, x: twice(layers.Conv2D(x.shape[-1], 3, padding="same"), x),
}

# Each entry takes (x, y) of equal shape.
BINARY = {
    "add": lambda x, y: layers.Add()([x, y]),
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: layers.Multiply()([x, ops.sigmoid(y)]),
    "maximum": lambda x, y: ops.maximum(x, y),
    "average": lambda x, y: layers.Average()([x, y]),
    "where": lambda x, y: ops.where(x > 0, x, y),
}

JOIN = {
    "concatenate": lambda x, y: layers.Concatenate()([x, y]),
    "concatenate op": lambda x, y: ops.concatenate([x, y, x], axis=3),
    "gate of one channel": lambda x, y: x * ops.sigmoid(y[..., :1]),
}


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


def shuffle(x, groups):
    height, width, channels = x.shape[1:]
    y = layers.Reshape((height, width, groups, channels // groups))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(y))


def nested(draw, x, same_width=False):
    z = keras.Input(x.shape[1:])
    y = layers.Conv2D(draw(st.integers(2, 4)), 3, padding="same", activation="relu")(z)
    y = draw(st.sampled_from([layers.BatchNormalization(), layers.Activation("relu")]))(y)
    y = layers.Conv2D(x.shape[-1] if same_width else draw(st.integers(1, 4)), 1)(y * 0.5)
    if draw(st.booleans()):
        return keras.Model(z, y)
    return keras.Sequential([keras.Input(x.shape[1:]), keras.Model(z, y), layers.ReLU(negative_slope=0.1)])


def twice(layer, x):
    return layer(layer(x))


def random_model(draw, max_steps=7):
    """A random model on 4 x 4 images with one or two inputs and outputs; `draw` as in `st.data()`."""
    inputs = [keras.Input((4, 4, 3)) for _ in range(draw(st.integers(1, 2)))]
    maps = [layers.Conv2D(draw(st.integers(2, 6)), 3, padding="same")(x) for x in inputs]
    for _ in range(draw(st.integers(2, max_steps))):
        x = draw(st.sampled_from(maps[-3:]))
        equal = [y for y in maps if y.shape == x.shape and y is not x]
        kinds = [("unary", k) for k in UNARY] + [("join", k) for k in JOIN] + [("binary", k) for k in BINARY if equal]
        family, kind = draw(st.sampled_from(kinds))
        if family == "unary":
            y = UNARY[kind](draw, x)
        elif family == "binary":
            y = BINARY[kind](x, draw(st.sampled_from(equal)))
        else:
            y = JOIN[kind](x, draw(st.sampled_from(maps)))
        if y.shape[-1] <= 16:
            maps.append(y)
    last = layers.Concatenate()([maps[-1], draw(st.sampled_from(maps))])
    tops = [layers.Flatten()(last), layers.GlobalAveragePooling2D()(last)]
    outputs = [layers.Dense(2)(top) for top in (tops if draw(st.booleans()) else [draw(st.sampled_from(tops))])]
    return keras.Model(inputs, outputs)
