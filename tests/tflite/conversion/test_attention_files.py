"""Files of pruned attention: as their Keras models, in every mode, with no operation more than the original's file."""

import collections

import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers, ops

from dcp_tf import tflite
from dcp_tf.graph import ChannelGraph, count_cost, rebuild
from dcp_tf.tflite.conversion.layer_normalization import centred_layer_normalization
from dcp_tf.tflite.schema.kernel_support import outside_xnnpack

TOKENS, WIDTH, HEADS, SIZE = 9, 24, 4, 8


def by_hand(x):
    query, key, value = (layers.Reshape((TOKENS, HEADS, SIZE))(layers.Dense(HEADS * SIZE)(x)) for _ in range(3))
    scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", query, key) / SIZE**0.5)
    return layers.Dense(WIDTH)(layers.Reshape((TOKENS, HEADS * SIZE))(ops.einsum("bhqk,bkhd->bqhd", scores, value)))


ATTENTION = {
    "multi_head": lambda x: layers.MultiHeadAttention(HEADS, SIZE)(x, x),
    "grouped_query": lambda x: layers.GroupQueryAttention(SIZE, HEADS, HEADS // 2)(x, x),
    "by_hand": by_hand,
}


def network(kind):
    """A block of a transformer, pooled; and it without about half of what lies inside of its attention and MLP."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((TOKENS, 6))
    x = layers.Dense(WIDTH)(x)
    x = layers.Add()([x, ATTENTION[kind](layers.LayerNormalization()(x))])
    y = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(WIDTH)(y)]))
    model = nets.settle(keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x))))
    graph = ChannelGraph(model)
    of_heads = lambda group: group.heads * 5  # noqa: E731  (of 8, which suits no kernel)
    widths = {g.name: of_heads(g) if g.head is not None else (3 * g.size + 3) // 5 for g in graph.prunable()}
    assert sum(group.are_heads for group in graph.prunable()) == 1
    kept = graph.at_widths(widths)
    return model, rebuild(graph, kept), count_cost(graph, kept).macs


def convert(model, mode):
    settings = {"representative_data": samples(64)} if mode == "int8" else {}
    return tflite.convert(model, mode, **settings)


def samples(count):
    return np.random.default_rng(2).normal(size=(count, TOKENS, 6)).astype(np.float32)


@pytest.mark.parametrize("kind", ATTENTION)
def test_pruned_attention_has_files_in_all_modes(kind):
    original, small, macs = network(kind)
    for mode in ("float32", "dynamic", "float16", "int8") if kind == "multi_head" else ("float32", "int8"):
        file = convert(small, mode)
        tflite.check_tolerance(tflite.check_parity(file, small, samples(32)), mode)
        if mode in ("float32", "int8"):
            before, after = (collections.Counter(tflite.inspect(f).operations) for f in (convert(original, mode), file))
            assert not after - before
            assert tflite.count_macs(file) == macs
        if mode == "int8":
            assert not tflite.inspect(file).float_operations
            assert "BATCH_MATMUL" not in outside_xnnpack(file)


@pytest.mark.parametrize(
    ("axis", "settings"), [(-1, {}), ((1, 3), {}), (2, {"center": False}), (-1, {"scale": False, "epsilon": 0.1})]
)
def test_a_normalization_centred_first_is_the_same_function(axis, settings):
    layer = layers.LayerNormalization(axis, **settings)
    model = nets.settle(keras.Sequential([keras.Input((4, 5, 6)), layer]))
    values = np.random.default_rng(0).normal(3.0, 2.0, (7, 4, 5, 6)).astype(np.float32)
    expected = layer(values)
    with centred_layer_normalization():
        found = layer(values)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert layer(values).numpy().tobytes() == expected.numpy().tobytes()
    assert tflite.inspect(tflite.convert(model)).operations.get("SQUARED_DIFFERENCE") is None
