"""Attention in the forms that models have: fused projections, masks, windows, class tokens, without projections."""

import keras
import numpy as np
import pytest
from equivalence import check, difference, outputs, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, masked, rebuild, register_rule

T, HEADS, SIZE = 5, 2, 3


def inside(graph):
    """(size, heads) of the groups inside of attention: of pairs of a query and a key, of all others; and the heads."""
    groups = graph.prunable(residual=True)
    pairs = [(g.size, g.heads) for g in groups if g.silenced]
    values = [(g.size, g.heads) for g in groups if g.head is not None and not g.silenced]
    return pairs, values, [g.size for g in groups if g.are_heads]


def attend(query, key, value, change=lambda logits: logits):
    """Attention of (N, heads, positions, channels); back to (N, positions, heads * channels)."""
    logits = change(ops.matmul(query * 0.6, ops.swapaxes(key, -1, -2)))
    y = ops.transpose(ops.matmul(ops.softmax(logits), value), (0, 2, 1, 3))
    return ops.reshape(y, (-1, y.shape[1], y.shape[2] * y.shape[3]))


def by_heads(x):
    return ops.transpose(ops.reshape(x, (-1, T, HEADS, SIZE)), (0, 2, 1, 3))


def stacked(x, positions=T):
    """(N, positions, 3 * width) to (3, N, heads, positions, channels)."""
    return ops.transpose(ops.reshape(x, (-1, positions, 3, HEADS, SIZE)), (2, 0, 3, 1, 4))


# How query, key and value come out of one layer; where each may have another number of channels.
APART = {
    "split": lambda x: [by_heads(part) for part in ops.split(x, 3, axis=-1)],
    "slices": lambda x: [by_heads(x[..., i * 6 : i * 6 + 6]) for i in range(3)],
    "split of each head": lambda x: ops.split(
        ops.transpose(ops.reshape(x, (-1, T, HEADS, 3 * SIZE)), (0, 2, 1, 3)), 3, axis=-1
    ),
}
TOGETHER = {
    "index": lambda x: [stacked(x)[i] for i in range(3)],
    "unstack": lambda x: ops.unstack(stacked(x), 3, axis=0),
    "heads first": lambda x: ops.unstack(
        ops.transpose(ops.reshape(x, (-1, T, HEADS, 3, SIZE)), (0, 3, 2, 1, 4)), axis=1
    ),
    "layers": lambda x: [layers.Permute((2, 3, 1, 4))(layers.Reshape((T, 3, HEADS, SIZE))(x))[:, i] for i in range(3)],
    "split of an axis": lambda x: [ops.squeeze(y, 0) for y in ops.split(stacked(x), 3, axis=0)],
    "take": lambda x: [ops.take(stacked(x), i, axis=0) for i in range(3)],
}


@settings(max_examples=9)
@given(st.sampled_from([*APART, *TOGETHER]), st.booleans(), st.sampled_from([0.3, 0.5, 0.9]), st.integers(0, 99))
def test_query_key_and_value_of_one_layer(form, use_bias, rate, seed):
    x = keras.Input((T, 4))
    qkv = layers.Dense(3 * HEADS * SIZE, use_bias=use_bias, name="qkv")(x)
    y = attend(*(APART | TOGETHER)[form](qkv))
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4, name="out")(y)))
    graph, _ = check(model, rate=rate, seed=seed, save=True)
    pairs = [(6, 2)] if form in APART else []
    assert inside(graph) == (pairs, [(6, 2)], [2])


def test_a_convolution_makes_queries_keys_and_values():
    x = keras.Input((2, 4, 3))
    y = layers.Conv2D(3 * HEADS * SIZE, 1, use_bias=False, name="qkv")(x)
    y = layers.Reshape((2, 4, 6))(attend(*ops.unstack(stacked(y, 8), 3, axis=0)))
    model = keras.Model(x, layers.Conv2D(2, 1)(layers.Conv2D(4, 1, name="out")(y)))
    graph, small = check(model, save=True)
    assert inside(graph) == ([], [(6, 2)], [2])
    assert small.get_layer("qkv").filters == 6


def test_the_scale_of_logits_by_hand_stays():
    x = keras.Input((T, 4))
    model = keras.Model(x, layers.Dense(2)(attend(*APART["split"](layers.Dense(18, name="qkv")(x)))))
    randomize(model)
    graph = ChannelGraph(model)
    (pairs,) = (group for group in graph.prunable() if group.silenced)
    kept, inputs = graph.kept({pairs.name: [0, 2, 3, 4]}), np.ones((1, T, 4), np.float32)
    small = rebuild(graph, kept)
    assert small.get_layer("qkv").units == 4 + 4 + 6
    assert difference(outputs(masked(graph, kept), inputs), outputs(small, inputs)) < 1e-5


def with_mask(kind):
    x, own = keras.Input((T, 4)), keras.Input((T, T), dtype="bool")
    of_positions = keras.Input((T,), dtype="bool")
    read = layers.Masking()(x) if kind == "passed on" else x
    y, z = (layers.Dense(n, name=name)(read) for n, name in ((6, "first"), (6 if kind == "grouped" else 7, "second")))
    masks = {
        "of one's own": {"attention_mask": own},
        "and causal": {"attention_mask": own, "use_causal_mask": True},
        "constant": {"attention_mask": np.tri(T, dtype=bool)[None]},
        "computed": {"attention_mask": ops.expand_dims(x[..., 0] > -0.5, 1)},
        "of the value": {"value_mask": of_positions},
        "grouped": {"attention_mask": own},
        "passed on": {},
    }[kind]
    if kind == "grouped":
        attention = layers.GroupQueryAttention(SIZE, 4, HEADS, name="attention")
    else:
        attention = layers.MultiHeadAttention(HEADS, SIZE, name="attention")
    inputs = [x, *(tensor for tensor in (own, of_positions) if any(tensor is mask for mask in masks.values()))]
    return keras.Model(inputs if len(inputs) > 1 else x, layers.Dense(2)(attention(y, z, **masks)))


@pytest.mark.parametrize(
    "kind", ["of one's own", "and causal", "constant", "computed", "of the value", "grouped", "passed on"]
)
def test_attention_with_masks_is_pruned_inside(kind):
    model, rng = with_mask(kind), np.random.default_rng(0)
    shapes = [(2, *x.shape[1:]) for x in model.inputs]
    inputs = [rng.normal(size=shapes[0]).astype("float32"), *(rng.random(shape) < 0.7 for shape in shapes[1:])]
    inputs[0][:, -1] = 0  # what Masking leaves out
    for mask in inputs[1:]:
        mask[..., 0] = True
    graph, small = check(model, inputs if len(inputs) > 1 else inputs[0], save=True, configs=kind == "passed on")
    assert inside(graph) == ([(6, 2)], [(6, 2)], [2])
    if len(inputs) > 1:  # the mask matters
        others = [inputs[0], ~inputs[1] | np.eye(T, dtype=bool)[0]]
        assert difference(outputs(small, inputs), outputs(small, others)) > 1e-3


def test_a_mask_with_values_for_each_head_leaves_the_layer_closed():
    x = keras.Input((T, 4))
    y = layers.Dense(6, name="first")(x)
    mask = np.random.default_rng(0).random((1, HEADS, T, T)) < 0.7
    y = layers.MultiHeadAttention(HEADS, SIZE, name="attention")(y, y, attention_mask=mask)
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(y)))
    assert "with masks" in graph.group("first").pinned_because


@pytest.mark.parametrize("kind", ["where", "added", "softmax"])
def test_masks_by_hand(kind):
    x, mask = keras.Input((T, 4)), keras.Input((T,), dtype="bool")
    of_keys = mask[:, None, None, :]
    changes = {
        "where": lambda logits: ops.where(of_keys, logits, -1e9),
        "added": lambda logits: logits + (1 - ops.cast(of_keys, "float32")) * -1e9,
        "softmax": lambda logits: layers.Softmax()(logits, mask=of_keys),
    }
    parts = (by_heads(layers.Dense(HEADS * SIZE, name=name)(x)) for name in ("query", "key", "value"))
    model = keras.Model([x, mask], layers.Dense(2)(attend(*parts, changes[kind])))
    inputs = [np.random.default_rng(0).normal(size=(2, T, 4)).astype("float32"), np.array([[1, 0, 1, 1, 0]] * 2, bool)]
    graph, _ = check(model, inputs, save=True)
    assert inside(graph) == ([(6, 2)], [(6, 2)], [2])


@pytest.mark.parametrize("options", [{}, {"scale": 0.3}, {"mask": np.tri(T, dtype=bool)[None, None]}])
def test_dot_product_attention(options):
    x = keras.Input((T, 4))
    parts = (ops.reshape(layers.Dense(6, name=name)(x), (-1, T, HEADS, SIZE)) for name in ("query", "key", "value"))
    y = layers.Reshape((T, 6))(ops.dot_product_attention(*parts, **options))
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), save=True, configs=False)
    assert inside(graph) == ([], [(6, 2)], [2])


@pytest.mark.parametrize(
    ("attention", "inputs", "prunable"),
    [
        (layers.Attention(use_scale=True), "qvk", {"q": 6, "v": 7}),
        (layers.Attention(dropout=0.1), "qk", {"q": 6}),
        (layers.AdditiveAttention(), "qvk", {"q": 6, "v": 7}),
    ],
)
def test_attention_without_projections(attention, inputs, prunable):
    x = keras.Input((T, 4))
    made = {name: layers.Dense(size, name=name)(x) for name, size in (("q", 6), ("k", 6), ("v", 7))}
    layer = type(attention).from_config(attention.get_config())
    y = layer([made[name] for name in inputs])
    check(keras.Model(x, layers.Dense(2)(y)), prunable=prunable, save=True)


def test_additive_attention_without_a_scale_stays():
    x = keras.Input((T, 4))
    query, key = (layers.Dense(6, name=name)(x) for name in ("query", "key"))
    y = layers.AdditiveAttention(use_scale=False)([query, key])
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(y)))
    assert "sums over channels" in graph.group("query").pinned_because


def in_windows(y, size, window, width):
    """(N, size, size, C) to (N * windows, positions, C), as the windows of a shifted-window transformer."""
    y = ops.reshape(y, (-1, size // window, window, size // window, window, width))
    return ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, window**2, width))


def windowed(shift):
    size, window, width, positions = 4, 2, 5, 4
    x = keras.Input((size, size, 3))
    stem = layers.Dense(width, name="stem")(x)
    y = in_windows(ops.roll(stem, (-shift, -shift), axis=(1, 2)), size, window, width)
    numbers = ops.cast(ops.zeros_like(y[:, 0]), "int32")[:, :1] + np.arange(positions**2, dtype="int32") % 9
    bias = ops.reshape(layers.Embedding(9, HEADS, name="bias")(numbers), (-1, positions, positions, HEADS))
    mask = np.random.default_rng(0).normal(size=(1, 4, 1, positions, positions)).astype("float32")

    def change(logits):
        logits = logits + ops.transpose(bias, (0, 3, 1, 2))
        if not shift:
            return logits
        masked_logits = ops.reshape(logits, (-1, 4, HEADS, positions, positions)) + mask
        return ops.reshape(masked_logits, (-1, HEADS, positions, positions))

    y = attend(*ops.unstack(stacked(layers.Dense(3 * HEADS * SIZE, name="qkv")(y), positions), 3, axis=0), change)
    y = layers.Dense(width, name="out")(y)
    y = ops.transpose(ops.reshape(y, (-1, 2, 2, window, window, width)), (0, 1, 3, 2, 4, 5))
    y = stem + ops.roll(ops.reshape(y, (-1, size, size, width)), (shift, shift), axis=(1, 2))
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize("shift", [0, 1])
def test_windows_with_relative_positions(shift):
    graph, small = check(windowed(shift), save=True, configs=not shift)
    assert inside(graph) == ([], [(6, 2)], [2])
    assert small.get_layer("bias").output_dim == 1  # the axis of heads follows the heads


@pytest.mark.parametrize("kind", ["embedding", "constant"])
def test_class_tokens_and_positions_follow_the_stream(kind):
    x = keras.Input((8, 8, 3))
    y = layers.Reshape((4, 6))(layers.Conv2D(6, 4, 4, name="patches")(x))
    zeros = ops.zeros_like(y[:, :1])
    if kind == "embedding":
        token = layers.Embedding(1, 6, name="token")(ops.cast(zeros[..., 0], "int32"))
    else:
        token = zeros + np.arange(6, dtype="float32")
    y = ops.concatenate([token, y], axis=1)
    numbers = ops.cast(ops.zeros_like(y[..., 0]), "int32") + np.arange(5, dtype="int32")
    y = y + layers.Embedding(5, 6, name="positions")(numbers)
    y = y + layers.MultiHeadAttention(HEADS, SIZE, name="attention")(y, y)
    model = keras.Model(x, layers.Dense(2)(y[:, 0]))
    _, small = check(model, save=True, permutation=kind == "embedding", configs=kind == "embedding")
    assert small.get_layer("positions").output_dim == small.get_layer("patches").filters < 6


@keras.saving.register_keras_serializable("attention forms")
class TokenAndBias(layers.Layer):
    """A weight beside the positions of its first tensor; another one that is added to the heads of its second."""

    def build(self, stream_shape, logits_shape):
        self.token = self.add_weight(shape=(1, 1, stream_shape[-1]), name="token")
        self.table = self.add_weight(shape=(9, logits_shape[1]), name="table")

    def call(self, stream, logits):
        token = ops.broadcast_to(self.token, (ops.shape(stream)[0], 1, stream.shape[-1]))
        positions = np.arange(logits.shape[-1])
        bias = ops.take(self.table, positions[:, None] - positions[None] + logits.shape[-1] - 1, axis=0)
        return ops.concatenate([token, stream], axis=1), logits + ops.transpose(bias, (2, 0, 1))

    def compute_output_shape(self, stream_shape, logits_shape):
        return (stream_shape[0], stream_shape[1] + 1, stream_shape[2]), logits_shape


@register_rule(TokenAndBias)
def token_and_bias(call):
    call.weight("token", {2: call.channels(0, -1)})
    call.weight("table", {1: call.channels(1, 1)})
    return call.inputs


def test_weights_of_a_custom_layer_follow_the_stream_and_the_heads():
    x = keras.Input((T, 4))
    stream = layers.Dense(7, name="stem")(x)
    query, key, value = APART["split"](layers.Dense(18, name="qkv")(x))
    stream, logits = TokenAndBias(name="own")(stream, ops.matmul(query, ops.swapaxes(key, 2, 3)))
    y = ops.reshape(ops.transpose(ops.matmul(ops.softmax(logits), value), (0, 2, 1, 3)), (-1, T, 6))
    y = ops.concatenate([layers.Dense(3)(stream), layers.Dense(3)(y)], axis=1)
    _, small = check(keras.Model(x, y), save=True)
    assert (small.get_layer("own").token.shape[-1], small.get_layer("own").table.shape[-1]) == (4, 1)
