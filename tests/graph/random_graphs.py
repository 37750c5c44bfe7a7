"""Random functional models that mix every kind of operation. A new kind is one entry of a table."""

import keras
import numpy as np
from declared_groups import Ledger, image, join
from hypothesis import strategies as st
from keras import layers, ops
from mixing_networks import GlobalResponseNorm, LayerScale

# Each entry takes (draw, x) with x a `Map` (N, H, W, C), and returns a `Map`: the tensor and what is done to channels.
UNARY = {
    "conv": lambda d, x: x.read(
        layers.Conv2D(d(st.integers(1, 6)), d(st.sampled_from([1, 3])), padding="same", use_bias=d(st.booleans()))(
            x.tensor
        )
    ),
    "grouped": lambda d, x: grouped(x, d(st.integers(1, 2)), d(st.sampled_from(divisors(x.size)))),
    "depthwise": lambda d, x: depthwise(x, d(st.integers(1, 2))),
    "separable": lambda d, x: x.read(layers.SeparableConv2D(d(st.integers(1, 5)), 3, padding="same")(x.tensor)),
    "transposed": lambda d, x: x.read(layers.Conv2DTranspose(d(st.integers(1, 5)), 3, padding="same")(x.tensor)),
    "dense": lambda d, x: x.read(layers.Dense(d(st.integers(1, 6)), activation="tanh")(x.tensor)),
    "norm": lambda d, x: x.keep(layers.BatchNormalization(axis=d(st.sampled_from([-1, -1, 1])))(x.tensor)),
    "prelu": lambda d, x: x.keep(layers.PReLU(shared_axes=d(st.sampled_from([None, [1, 2], [3]])))(x.tensor)),
    "activation": lambda d, x: x.keep(layers.Activation(d(st.sampled_from(["relu", "gelu", "hard_silu"])))(x.tensor)),
    "dropout": lambda d, x: x.keep(layers.Dropout(0.3)(x.tensor)),
    "pool": lambda d, x: x.keep(layers.AveragePooling2D(3, strides=1, padding="same")(x.tensor)),
    "pad and crop": lambda d, x: x.keep(layers.Cropping2D(1)(layers.ZeroPadding2D(1)(x.tensor))),
    "up and down": lambda d, x: x.keep(layers.MaxPooling2D()(layers.UpSampling2D()(x.tensor))),
    "permute": lambda d, x: x.keep(layers.Permute((2, 1, 3))(x.tensor)),
    "reshape and back": lambda d, x: x.keep(layers.Reshape(x.shape[1:])(layers.Reshape((-1, x.size))(x.tensor))),
    "shuffle": lambda d, x: shuffle(x, d(st.sampled_from(divisors(x.size)))),
    "squeeze and excite": lambda d, x: squeeze_and_excite(x),
    "arithmetic": lambda d, x: x.keep(1.0 - (x.tensor * 2 + 1) / 3),
    "constant": lambda d, x: x.keep(x.tensor * np.linspace(0.5, 2, x.size, dtype="float32")),
    "spread": lambda d, x: x.gate(x.tensor * layers.Conv2D(1, 1, activation="sigmoid")(x.tensor), 1),
    "range": lambda d, x: cut(x, d(st.integers(0, x.size - 1))),
    "rotate": lambda d, x: rotate(x),
    "flip": lambda d, x: flip(x, d(st.sampled_from([1, 3]))),
    "double": lambda d, x: x.move(ops.repeat(x.tensor, 2, axis=-1), np.repeat(range(x.size), 2)) if x.size < 7 else x,
    "widen": lambda d, x: widen(x, d(st.integers(0, 1))),
    "by number": lambda d, x: by_number(x, d(st.permutations(range(x.size)))[1:] or [0]),
    "running sums": lambda d, x: x.keep(ops.cumsum(x.tensor, axis=1) * 0.3),
    "mixed rows": lambda d, x: x.keep(ops.einsum("pq,bqwc->bpwc", np.tri(4, dtype="float32") / 2, x.tensor)),
    "blocks and back": lambda d, x: x.keep(ops.depth_to_space(ops.relu(ops.space_to_depth(x.tensor, 2)), 2)),
    "mixed by layers": lambda d, x: mixed(x, d(st.integers(2, 4))),
    "own scale": lambda d, x: x.keep(LayerScale(x.size)(x.tensor)),
    "own statistics": lambda d, x: x.pin(GlobalResponseNorm()(x.tensor)),
    "statistics": lambda d, x: x.pin(layers.LayerNormalization()(x.tensor)),
    "unknown": lambda d, x: x.pin(ops.cumsum(x.tensor, axis=-1), whole=True),
    "softmax": lambda d, x: softmax(x, d(st.sampled_from([1, -1]))),
    "nested": lambda d, x: nested(d, x),
    "nested twice": lambda d, x: nested(d, x, twice=True),
    "shared": lambda d, x: x.read_again(twice(layers.Conv2D(x.size, 3, padding="same"), x.tensor)),
}

# Each entry takes (x, y) of equal shape.
BINARY = {
    "add": lambda x, y: x.meet(layers.Add()([x.tensor, y.tensor]), y, residual=True),
    "subtract": lambda x, y: x.meet(x.tensor - y.tensor, y, residual=True),
    "multiply": lambda x, y: x.meet(layers.Multiply()([x.tensor, ops.sigmoid(y.tensor)]), y, residual=False),
    "maximum": lambda x, y: x.meet(ops.maximum(x.tensor, y.tensor), y, residual=False),
    "average": lambda x, y: x.meet(layers.Average()([x.tensor, y.tensor]), y, residual=True),
    "where": lambda x, y: x.meet(ops.where(x.tensor > 0, x.tensor, y.tensor), y, residual=False),
}

JOIN = {
    "concatenate": lambda x, y: join(layers.Concatenate()([x.tensor, y.tensor]), x, y),
    "concatenate op": lambda x, y: join(ops.concatenate([x.tensor, y.tensor, x.tensor], axis=3), x, y, x),
    "gate of one channel": lambda x, y: x.spread(x.tensor * ops.sigmoid(y.tensor[..., :1]), y),
}


def divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


def grouped(x, multiplier, groups):
    y = layers.Conv2D(x.size * multiplier, 3, padding="same", groups=groups)(x.tensor)
    return x.read_in_groups(y, groups)


def depthwise(x, multiplier):
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(x.tensor)
    return x.move(y, np.repeat(range(x.size), multiplier))


def squeeze_and_excite(x):
    gates = layers.Dense(x.size, activation="sigmoid")(ops.mean(x.tensor, [1, 2], True))
    return x.gate(x.tensor * gates, x.size)


def mixed(x, hidden):
    y = layers.Dense(hidden, activation="relu")(layers.Permute((1, 3, 2))(x.tensor))
    return x.mix(x.tensor + layers.Permute((1, 3, 2))(layers.Dense(x.shape[2])(y)), hidden)


def cut(x, start):
    return x.move(x.tensor[..., start:], range(start, x.size), part=start > 0)


def rotate(x):
    if x.size == 1:
        return x.keep(-x.tensor)
    first, others = ops.split(x.tensor, [1], axis=-1)
    parts = x.move(others, range(1, x.size), part=True), x.move(first, [0], part=True)
    return join(ops.concatenate([others, first], -1), *parts)


def flip(x, axis):
    return x.move(ops.flip(x.tensor, axis=axis), range(x.size) if axis == 1 else range(x.size)[::-1])


def widen(x, back):
    return x.pad(ops.pad(x.tensor, ((0, 0), (0, 0), (0, 0), (1, back))), 1, back)


def by_number(x, numbers):
    return x.move(ops.take(x.tensor, numbers, axis=-1), numbers, part=True)


def softmax(x, axis):
    y = ops.softmax(x.tensor, axis=axis)
    return x.keep(y) if axis == 1 else x.pin(y)


def shuffle(x, groups):
    height, width, channels = x.shape[1:]
    y = layers.Reshape((height, width, groups, channels // groups))(x.tensor)
    return x.shuffle(layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(y)), groups)


def nested(draw, x, twice=False):
    z = keras.Input(x.shape[1:])
    inner = draw(st.integers(2, 4))
    y = layers.Conv2D(inner, 3, padding="same", activation="relu")(z)
    y = draw(st.sampled_from([layers.BatchNormalization(), layers.Activation("relu")]))(y)
    y = layers.Conv2D(x.size if twice else draw(st.integers(1, 4)), 1)(y * 0.5)
    model = keras.Model(z, y)
    if not draw(st.booleans()):
        model = keras.Sequential([keras.Input(x.shape[1:]), model, layers.ReLU(negative_slope=0.1)])
    return x.read_again(model(model(x.tensor)), inner) if twice else x.read(model(x.tensor), inner)


def twice(layer, x):
    return layer(layer(x))


def random_graph(draw, max_steps=7):
    """A random model on 4 x 4 images with one or two inputs and outputs; `draw` as in `st.data()`.

    Returns:
        The model, and how many groups of each kind may shrink, as its steps declare (see `Ledger.prunable`).
    """
    inputs = [image() for _ in range(draw(st.integers(1, 2)))]
    maps = [x.read(layers.Conv2D(draw(st.integers(2, 6)), 3, padding="same")(x.tensor)) for x in inputs]
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
        if y.size <= 16:
            maps.append(y)
    other = draw(st.sampled_from(maps))
    last = join(layers.Concatenate()([maps[-1].tensor, other.tensor]), maps[-1], other)
    tops = [layers.Flatten()(last.tensor), layers.GlobalAveragePooling2D()(last.tensor)]
    outputs = [layers.Dense(2)(top) for top in (tops if draw(st.booleans()) else [draw(st.sampled_from(tops))])]
    return keras.Model([x.tensor for x in inputs], outputs), declared(last, readers=len(outputs))


def declared(last, readers=1):
    """The groups of a model in which so many kernels read the map."""
    ledger = Ledger()
    for _ in range(readers):
        ledger.declare(last.channels(ledger), "consumer")
    return ledger.prunable()


def random_model(draw, max_steps=7):
    """The model of `random_graph` alone."""
    return random_graph(draw, max_steps)[0]
