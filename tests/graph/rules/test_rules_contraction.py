"""Sums of products: channels pass through on the axes that stay; pairs of a query and a key go together."""

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, count_cost


def attention(x, product):
    """Attention by hand: query and key are summed over in pairs, value passes through."""
    query, key, value = (layers.Dense(6, name=name)(x) for name in ("query", "key", "value"))
    return product(ops.softmax(ops.matmul(query, ops.swapaxes(key, 1, 2))), value)


PRODUCTS = {
    "matmul": lambda scores, value: ops.matmul(scores, value),
    "einsum": lambda scores, value: ops.einsum("bqk,bkc->bqc", scores, value),
    "einsum, other order": lambda scores, value: ops.einsum("bkc,bqk->bqc", value, scores),
    "dot": lambda scores, value: layers.Dot(axes=(2, 1))([scores, value]),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_values_of_an_attention_pass_through(kind):
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.Dense(2)(attention(x, PRODUCTS[kind])))
    graph, small = check(model, save=True)
    assert {frozenset(g.producers): g.size for g in graph.prunable()} == {
        frozenset({"query", "key"}): 6,
        frozenset({"value"}): 6,
    }
    assert small.get_layer("query").units == small.get_layer("key").units == 4
    products = sum(cost.macs for cost in count_cost(model).layers if cost.kind in ("Matmul", "Einsum", "Dot"))
    assert products == 2 * 5 * 5 * 6


def with_heads(x, heads, size, bias=None):
    query, key, value = (
        ops.transpose(ops.reshape(layers.Dense(heads * size, name=name)(x), (-1, 5, heads, size)), (0, 2, 1, 3))
        for name in ("query", "key", "value")
    )
    logits = ops.matmul(query, ops.swapaxes(key, 2, 3)) / 1.7
    scores = ops.softmax(logits if bias is None else logits + bias)
    return ops.reshape(ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3)), (-1, 5, heads * size))


@pytest.mark.parametrize("bias", [None, np.linspace(-1, 1, 50, dtype="float32").reshape(2, 5, 5)])
def test_heads_by_hand(bias):
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.Dense(2)(with_heads(x, 2, 3, bias)))
    graph, small = check(model, save=True, configs=bias is None)
    groups = {frozenset(g.producers): (g.size, g.heads) for g in graph.prunable()}
    assert groups[frozenset({"query", "key"})] == groups[frozenset({"value"})] == (6, 2)
    assert sum(g.are_heads and g.size == 2 for g in graph.prunable()) == 1
    assert small.get_layer("value").units == 2


def test_heads_of_einsum_layers():
    x = keras.Input((5, 3))
    query, key, value = (
        layers.EinsumDense("btc,chd->bthd", (5, 3, 4), bias_axes="hd", name=name)(x)
        for name in ("query", "key", "value")
    )
    scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", query, key))
    y = ops.einsum("bhqk,bkhd->bqhd", scores, value)
    y = layers.EinsumDense("bthd,hdc->btc", (5, 6), bias_axes="c", name="out")(y)
    graph, small = check(keras.Model(x, layers.Dense(2)(y)), save=True)
    assert {g.name: (g.size, g.heads) for g in graph.prunable() if g.head is not None} == {
        "query": (12, 3),
        "value": (12, 3),
    }
    assert small.get_layer("out").kernel.shape == (2, 2, 4)


def test_a_query_without_a_kernel_stays():
    x = keras.Input((5, 3))
    first, value = layers.Dense(6, activation="relu", name="first")(x), layers.Dense(6, name="value")(x)
    scores = ops.softmax(ops.matmul(first, ops.swapaxes(first, 1, 2)))
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(ops.matmul(scores, value))))
    assert "sums over channels" in graph.group("first").pinned_because


def test_pairs_of_two_vectors_go_together():
    x = keras.Input((5,))
    first, second = (layers.Dense(6, name=name)(x) for name in ("first", "second"))
    check(keras.Model(x, ops.einsum("bc,bc->b", first, second)[:, None]), prunable={"first": 6})


def test_two_maps_multiplied_channel_by_channel():
    x = keras.Input((5, 3))
    first, second = (layers.Dense(6, name=name)(x) for name in ("first", "second"))
    y = ops.einsum("btc,bsc->btsc", first, second)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 6}, save=True)


SUMMED = {
    "dot of vectors": lambda a, b: layers.Dot(axes=1)([a, b]),
    "cosine": lambda a, b: layers.Dot(axes=1, normalize=True)([a, b]),
    "squared distance": lambda a, b: ops.sum(ops.square(a - b), axis=-1, keepdims=True),
    "images of a batch": lambda a, b: ops.matmul(a, ops.transpose(b)),
}


@pytest.mark.parametrize("kind", SUMMED)
def test_channels_that_are_summed_over_stay(kind):
    x = keras.Input((5,))
    first, second = (layers.Dense(6, name=name)(x) for name in ("first", "second"))
    graph = ChannelGraph(keras.Model(x, SUMMED[kind](first, second)))
    assert not graph.prunable(residual=True)
    assert graph.group("first").pinned_because
