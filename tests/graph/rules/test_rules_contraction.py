"""Sums of products: channels on the axes that stay pass through, those that are summed over stay."""

import keras
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.graph import ChannelGraph


def attention(x, product):
    """Attention by hand: query and key are summed over, value passes through."""
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
    graph, _ = check(model, prunable={"value": 6}, save=True)
    assert "sums over channels" in graph.group("query").pinned_because


def test_values_of_an_attention_with_heads():
    x = keras.Input((5, 3))
    query, key, value = (
        ops.transpose(ops.reshape(layers.Dense(6, name=name)(x), (-1, 5, 2, 3)), (0, 2, 1, 3))
        for name in ("query", "key", "value")
    )
    scores = ops.softmax(ops.matmul(query, ops.swapaxes(key, 2, 3)))
    y = ops.reshape(ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3)), (-1, 5, 6))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"value": 3}, save=True)


def test_two_maps_multiplied_channel_by_channel():
    x = keras.Input((5, 3))
    first, second = (layers.Dense(6, name=name)(x) for name in ("first", "second"))
    y = ops.einsum("btc,bsc->btsc", first, second)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 6}, save=True)


SUMMED = {
    "dot of vectors": lambda a, b: layers.Dot(axes=1)([a, b]),
    "cosine": lambda a, b: layers.Dot(axes=1, normalize=True)([a, b]),
    "einsum": lambda a, b: ops.einsum("bc,bc->b", a, b)[:, None],
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
