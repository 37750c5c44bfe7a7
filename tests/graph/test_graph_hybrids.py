"""Networks of convolutions and attention: how much of them can shrink, exactly, and down to the file."""

import keras
import numpy as np
import pytest
from equivalence import check, difference, example_inputs, outputs
from keras import layers, ops

from dcp_tf import tflite
from dcp_tf.graph import ChannelGraph, shrinkable_fraction

WIDTH = 8


def half_step(y, name):
    z = layers.Dense(4 * WIDTH, activation="silu", name=f"{name}_hidden")(layers.LayerNormalization()(y))
    return y + 0.5 * layers.Dense(WIDTH, name=f"{name}_out")(layers.Dropout(0.1)(z))


def conformer():
    """A block for speech: half-step MLPs around attention and a gated depthwise convolution."""
    x = keras.Input((10, 5))
    y = half_step(layers.Dense(WIDTH, name="stem")(x), "first")
    z = layers.LayerNormalization()(y)
    y = y + layers.MultiHeadAttention(2, 4, name="attention")(z, z)
    z = layers.Conv1D(2 * WIDTH, 1, name="expand")(layers.LayerNormalization()(y))
    values, gates = ops.split(z, 2, axis=-1)
    z = layers.DepthwiseConv1D(3, padding="same", name="depthwise")(values * ops.sigmoid(gates))
    z = layers.Activation("silu")(layers.BatchNormalization()(z))
    y = half_step(y + layers.Conv1D(WIDTH, 1, name="project")(z), "second")
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(y))))


def mobilevit():
    """A block for images: attention among the pixels at one place of each patch, between convolutions."""
    size, patch, width = 4, 2, 6
    count = size // patch
    x = keras.Input((size, size, 3))
    stem = layers.Conv2D(WIDTH, 3, padding="same", activation="silu", name="stem")(x)
    y = layers.Conv2D(WIDTH, 3, padding="same", activation="silu", name="local")(stem)
    y = layers.Conv2D(width, 1, use_bias=False, name="embed")(y)
    y = layers.Permute((2, 4, 1, 3, 5))(layers.Reshape((count, patch, count, patch, width))(y))
    y = layers.Reshape((patch**2, count**2, width))(y)
    z = layers.LayerNormalization()(y)
    y = y + layers.MultiHeadAttention(2, 3, attention_axes=2, name="attention")(z, z)
    z = layers.Dense(2 * width, activation="silu", name="hidden")(layers.LayerNormalization()(y))
    y = layers.LayerNormalization()(y + layers.Dense(width, name="out")(z))
    y = layers.Permute((3, 1, 4, 2, 5))(layers.Reshape((patch, patch, count, count, width))(y))
    y = layers.Conv2D(WIDTH, 1, activation="silu", name="fold")(layers.Reshape((size, size, width))(y))
    y = layers.Conv2D(WIDTH, 3, padding="same", name="fusion")(layers.Concatenate()([stem, y]))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def windows_of(y, window):
    _, rows, columns, width = y.shape
    y = ops.reshape(y, (-1, rows // window, window, columns // window, window, width))
    return ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, window**2, width))


def shifted_windows(x, heads, size, shift, name):
    """Attention within windows, with learned biases for each head and pair of positions, and an MLP."""
    _, rows, columns, width = x.shape
    y = windows_of(ops.roll(layers.LayerNormalization()(x), (-shift, -shift), axis=(1, 2)), 2)
    qkv = layers.Dense(3 * heads * size, name=f"{name}_qkv")(y)
    query, key, value = ops.unstack(ops.transpose(ops.reshape(qkv, (-1, 4, 3, heads, size)), (2, 0, 3, 1, 4)), 3)
    pairs = ops.cast(ops.zeros_like(y[:, :, :1]), "int32")[:, :, 0][:, :1] + np.arange(16, dtype="int32")
    biases = ops.reshape(layers.Embedding(16, heads, name=f"{name}_biases")(pairs), (-1, 4, 4, heads))
    logits = ops.matmul(query * size**-0.5, ops.swapaxes(key, 2, 3)) + ops.transpose(biases, (0, 3, 1, 2))
    y = ops.transpose(ops.matmul(ops.softmax(logits), value), (0, 2, 1, 3))
    y = layers.Dense(width, name=f"{name}_attention")(ops.reshape(y, (-1, 4, heads * size)))
    y = ops.transpose(ops.reshape(y, (-1, rows // 2, columns // 2, 2, 2, width)), (0, 1, 3, 2, 4, 5))
    x = x + ops.roll(ops.reshape(y, (-1, rows, columns, width)), (shift, shift), axis=(1, 2))
    y = layers.Dense(4 * width, activation="gelu", name=f"{name}_hidden")(layers.LayerNormalization()(x))
    return x + layers.Dense(width, name=f"{name}_out")(y)


def swin():
    """Two stages of attention in windows, patches merged between them."""
    x = keras.Input((16, 16, 3))
    y = layers.Conv2D(WIDTH, 2, 2, name="patches")(x)
    y = shifted_windows(shifted_windows(y, 2, 4, 0, "first"), 2, 4, 1, "second")
    merged = ops.concatenate([y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=-1)
    y = layers.Dense(2 * WIDTH, use_bias=False, name="merge")(layers.LayerNormalization()(merged))
    y = layers.LayerNormalization()(shifted_windows(y, 4, 4, 0, "third"))
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


INSIDE = {"attention/heads": 2, "attention/query": 8, "attention/value": 8}
PRUNABLE = {
    conformer: INSIDE | {"first_hidden": 32, "second_hidden": 32, "expand": 8},
    mobilevit: dict.fromkeys(INSIDE, 6)
    | {"attention/heads": 2, "hidden": 12}
    | dict.fromkeys(("stem", "local", "fold", "fusion"), 8),
    swin: {"first_qkv": 8, "second_qkv": 8, "third_qkv": 16}
    | {"first_biases": 2, "second_biases": 2, "third_biases": 4}
    | {"first_hidden": 32, "second_hidden": 32, "third_hidden": 64},
}


@pytest.mark.parametrize("network", PRUNABLE)
def test_most_of_a_hybrid_can_shrink(network):
    model = network()
    graph, _ = check(model, prunable=PRUNABLE[network], save=True)
    of_all = {"kinds": (layers.Layer,)}
    assert shrinkable_fraction(graph, **of_all) > 0.8
    assert shrinkable_fraction(ChannelGraph(model, ignore_statistics=True), **of_all) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("network", PRUNABLE)
def test_a_pruned_hybrid_becomes_a_file(network):
    model = network()
    _, small = check(model)
    images = example_inputs(small)
    runner = tflite.Runner(tflite.convert(small, "float32"))
    assert difference(outputs(small, images), [np.asarray(runner.predict(images), np.float64)]) < 1e-4
