"""Attention, transformer blocks, Einstein sums, and statistics over channels that the user lets go."""

import keras
import pytest
from equivalence import check, example_inputs, outputs, randomize
from keras import layers

from dcp_tf.graph import ChannelGraph, count_cost, rebuild


def block(x, width, name):
    y = layers.LayerNormalization(name=f"{name}_norm1")(x)
    x = x + layers.MultiHeadAttention(2, 4, name=f"{name}_attention")(y, y)
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(width, activation="gelu", name=f"{name}_hidden")(y)
    return x + layers.Dense(x.shape[-1], name=f"{name}_out")(y)


def transformer():
    x = keras.Input((9,), dtype="int32")
    y = layers.Embedding(11, 8, name="words")(x)
    y = block(block(y, 12, "first"), 10, "second")
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))


def test_hidden_widths_of_a_transformer_shrink():
    graph, _ = check(transformer(), prunable={"first_hidden": 12, "second_hidden": 10}, save=True)
    assert "takes statistics over the channels" in graph.group("words").pinned_because


def test_statistics_can_be_ignored():
    model = transformer()
    randomize(model)
    graph = ChannelGraph(model, ignore_statistics=True)
    assert {g.name: g.size for g in graph.prunable(residual=True)}["words"] == 8
    small = rebuild(graph, graph.kept({"words": [0, 1, 2, 5, 6]}))
    assert small.get_layer("words").output_dim == 5
    assert small.get_layer("second_norm2").gamma.shape == (5,)
    assert outputs(small, example_inputs(small))[0].shape == (2, 2)
    assert count_cost(graph, graph.kept({"words": [0, 1, 2, 5, 6]})) == count_cost(small)


@pytest.mark.parametrize("layer", ["LayerNormalization", "RMSNormalization", "UnitNormalization", "GroupNormalization"])
def test_ignored_statistics_are_of_the_channels_that_stay(layer):
    options = {"groups": 2} if layer == "GroupNormalization" else {}
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    model = keras.Model(x, layers.Dense(2)(getattr(layers, layer)(**options, name="norm")(y)))
    randomize(model)
    graph = ChannelGraph(model, ignore_statistics=True)
    small = rebuild(graph, graph.kept({"first": [1, 3]}))
    rest = 4 if layer == "GroupNormalization" else 2
    assert small.get_layer("first").filters == rest
    small(example_inputs(small))


def test_attention_reads_and_makes_channels():
    x = keras.Input((9, 5))
    a, b, c = (layers.Dense(n, name=name)(x) for n, name in ((6, "query"), (7, "value"), (8, "key")))
    y = layers.MultiHeadAttention(2, 4, value_dim=3, output_shape=10, name="attention")(a, b, c)
    model = keras.Model(x, layers.Dense(2)(layers.Dense(6, name="after")(y)))
    check(model, prunable={"query": 6, "value": 7, "key": 8, "attention": 10, "after": 6}, save=True)
    costs = {cost.path: cost.macs for cost in count_cost(model).layers}
    assert costs["attention"] == 9 * (6 * 8 + 7 * 6 + 8 * 8 + 6 * 10)


def test_attention_with_an_open_output_shape():
    x = keras.Input((9, 5))
    y = layers.Dense(6, name="query")(x)
    y = layers.MultiHeadAttention(2, 4, name="attention")(y, layers.Dense(7, name="value")(x))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"query": 6, "value": 7, "attention": 6}, save=True)


def test_attention_with_a_mask_is_pinned():
    x = keras.Input((9, 5))
    y = layers.Dense(6, name="query")(layers.Dense(7, name="first")(x))
    y = layers.MultiHeadAttention(2, 4, name="attention")(y, y, attention_mask=x[..., :1] > 0)
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 7})
    assert "attention" in graph.group("query").pinned_because


@pytest.mark.parametrize(
    ("equation", "shape", "bias_axes"),
    [
        ("abc,cd->abd", (9, 6), "d"),
        ("abc,cd->abd", (9, 6), None),
        ("...x,xy->...y", (6,), "y"),
        ("...x,xy->...y", 6, None),
        ("abc,dc->abd", (9, 6), "d"),
    ],
)
def test_einsum_dense_along_the_last_axis(equation, shape, bias_axes):
    x = keras.Input((9, 5))
    y = layers.Dense(8, name="first")(x)
    y = layers.EinsumDense(equation, shape, bias_axes=bias_axes, activation="relu", name="einsum")(y)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    check(model, prunable={"first": 8, "einsum": 6}, configs=not isinstance(shape, int), save=True)


def test_einsum_dense_that_leaves_the_length_open_costs_what_it_costs_with_the_length():
    def model(length):
        x = keras.Input((9, 5))
        y = layers.EinsumDense("abc,cd->abd", (length, 8), name="first")(x)
        y = layers.EinsumDense("abc,cd->abd", (length, 6), name="second")(layers.Activation("relu")(y))
        return keras.Model(x, layers.Dense(2, name="classes")(layers.GlobalAveragePooling1D()(y)))

    check(model(None), prunable={"first": 8, "second": 6}, save=True)
    assert count_cost(model(None)) == count_cost(model(9))


def test_einsum_dense_along_a_middle_axis():
    x = keras.Input((5, 9))
    y = layers.Permute((2, 1))(layers.Dense(8, name="first")(layers.Permute((2, 1))(x)))
    y = layers.EinsumDense("abc,bd->adc", (6, 9), bias_axes="d", name="einsum")(y)
    check(keras.Model(x, layers.Dense(2)(layers.Flatten()(y))), prunable={"first": 8, "einsum": 6}, save=True)


def test_other_einsum_dense_layers_are_pinned():
    x = keras.Input((9, 5))
    y = layers.EinsumDense("abc,cde->abde", (9, 2, 4), name="einsum")(layers.Dense(8, name="first")(x))
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), shrinks=False)
    assert "no Dense layer" in graph.group("first").pinned_because
