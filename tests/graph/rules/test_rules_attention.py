"""Attention, transformer blocks, Einstein sums, and statistics over channels that the user lets go."""

import math

import keras
import numpy as np
import pytest
from equivalence import check, difference, example_inputs, outputs, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost, group_fractions, masked, rebuild


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


def of_heads(name, heads, pairs, values):
    """The groups inside of an attention layer: heads, pairs of query and key, and value channels."""
    sizes = {"heads": heads, "query": heads * pairs, "value": heads * values}
    return {f"{name}/{part}": size for part, size in sizes.items()}


def test_widths_and_heads_of_a_transformer_shrink():
    heads = of_heads("first_attention", 2, 4, 4) | of_heads("second_attention", 2, 4, 4)
    graph, small = check(transformer(), prunable=heads | {"first_hidden": 12, "second_hidden": 10}, save=True)
    assert small.get_layer("first_attention").num_heads == 1
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
    ends = {"query": 6, "value": 7, "key": 8, "attention": 10, "after": 6}
    check(model, prunable=ends | of_heads("attention", 2, 4, 3), save=True)
    costs = {cost.path: cost.macs for cost in count_cost(model).layers}
    projections = {"/query": 6 * 8, "/value": 7 * 6, "/key": 8 * 8, "": 6 * 10}
    assert {name: costs[f"attention{name}"] for name in projections} == {n: 9 * c for n, c in projections.items()}
    assert costs["attention/heads"] == 9 * 9 * 2 * (4 + 3)


def test_attention_with_an_open_output_shape():
    x = keras.Input((9, 5))
    y = layers.Dense(6, name="query")(x)
    y = layers.MultiHeadAttention(2, 4, name="attention")(y, layers.Dense(7, name="value")(x))
    ends = {"query": 6, "value": 7, "attention": 6}
    check(keras.Model(x, layers.Dense(2)(y)), prunable=ends | of_heads("attention", 2, 4, 4), save=True)


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


def test_einsum_dense_with_two_new_axes():
    x = keras.Input((9, 5))
    y = layers.EinsumDense("abc,cde->abde", (9, 2, 4), bias_axes="de", name="einsum")(layers.Dense(8, name="first")(x))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 8, "einsum": 4}, save=True)


def attention_model(kind, heads, pairs, values, **options):
    x = keras.Input((5, 6))
    y, z = (layers.Dense(n, name=name)(x) for n, name in ((7, "query"), (7 if kind == "grouped" else 8, "value")))
    if kind == "grouped":
        y = layers.GroupQueryAttention(pairs, 2 * heads, heads, name="attention", **options)(y, z)
    else:
        causal = options.pop("use_causal_mask", False)
        attention = layers.MultiHeadAttention(heads, pairs, value_dim=values, name="attention", **options)
        y = attention(y, z, use_causal_mask=causal)
    return keras.Model(x, layers.Dense(2)(y))


@settings(max_examples=5)
@given(st.data())
def test_rebuilt_attention_equals_masked_attention(data):
    draw = data.draw
    kind = draw(st.sampled_from(["full", "full", "grouped"]))
    options = {"use_bias": draw(st.booleans()), "use_gate": draw(st.booleans())} if draw(st.booleans()) else {}
    if kind == "full" and draw(st.booleans()):
        options["use_causal_mask"] = True
    model = attention_model(kind, draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4)), **options)
    check(model, seed=draw(st.integers(0, 99)), rate=draw(st.sampled_from([0.2, 0.5, 0.9])), save=True)


def test_the_heads_of_a_layer_keep_other_channels_but_as_many():
    model = attention_model("full", 2, 4, 3)
    randomize(model)
    graph = ChannelGraph(model)
    kept = graph.kept({"attention/value": [0, 2, 3, 4], "attention/query": [1, 3, 4, 5]})
    small, inputs = rebuild(graph, kept), example_inputs(model)
    attention = small.get_layer("attention")
    assert (attention.num_heads, attention.key_dim, attention.value_dim) == (2, 2, 2)
    assert difference(outputs(masked(graph, kept), inputs), outputs(small, inputs)) < 1e-5
    with pytest.raises(UsageError, match=r"as many channels, at least one; received \[2, 1\]"):
        graph.kept({"attention/value": [0, 2, 3]})
    # Channels of a head that goes do not count.
    kept = graph.kept({"attention/value": [0, 2, 3], "attention/heads": [0]})
    assert rebuild(graph, kept).get_layer("attention").value_dim == 2


def test_the_scale_of_the_logits_stays():
    model = attention_model("full", 2, 4, 3)
    graph = ChannelGraph(model)
    small = rebuild(graph, graph.kept({"attention/query": [0, 4]}))
    old, new = (np.asarray(m.get_layer("attention").query_dense.kernel) for m in (model, small))
    np.testing.assert_allclose(new[:, :, 0], old[:, :, 0] / math.sqrt(4), rtol=1e-6)


def test_a_closed_graph_has_the_fingerprint_of_earlier_versions():
    model = attention_model("full", 2, 4, 3)
    closed = ChannelGraph(model, opens_attention=False)
    assert {g.name for g in closed.prunable()} == {"query", "value", "attention"}
    assert closed.fingerprint() in ChannelGraph(model).fingerprints()


def test_fractions_count_heads_and_their_products():
    fractions = group_fractions(ChannelGraph(attention_model("full", 2, 4, 3)))
    assert fractions["attention/heads"][1] == pytest.approx(
        fractions["attention/query"][1] + fractions["attention/value"][1]
    )
