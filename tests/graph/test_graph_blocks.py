"""Whole residual blocks: which there are, and that a model without some computes what zeros in their branches give."""

import keras
import numpy as np
import pytest
from equivalence import TOLERANCE, difference, example_inputs, outputs, randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, copy_model, count_cost, rebuild
from dcp_tf.graph.blocks import branch_weights

ENDS = {
    "norm": lambda x, size: layers.BatchNormalization()(layers.Conv2D(size, 1, use_bias=False)(x)),
    "unscaled norm": lambda x, size: layers.BatchNormalization(scale=False)(layers.Conv2D(size, 3, padding="same")(x)),
    "fixed norm": lambda x, size: layers.BatchNormalization(center=False, scale=False)(layers.Conv2D(size, 1)(x)),
    "relu": lambda x, size: layers.ReLU()(layers.Conv2D(size, 3, padding="same")(x)),
    "inside": lambda x, size: layers.Conv2D(size, 1, activation="gelu")(x),
    "dropout": lambda x, size: layers.Dropout(0.2)(layers.Dense(size)(x)),
    "attention": lambda x, size: layers.MultiHeadAttention(2, 1, output_shape=(size,))(x, x),
    "separable": lambda x, size: layers.SeparableConv2D(size, 3, padding="same")(x),
}
SUMS = {"layer": lambda x, y: layers.Add()([x, y]), "other way round": lambda x, y: layers.Add()([y, x]), "op": ops.add}
BETWEEN = {
    "nothing": lambda x: x,
    "relu": lambda x: layers.ReLU()(x),
    "activation": lambda x: layers.Activation("relu")(x),
    "convolution": lambda x: layers.Conv2D(x.shape[-1], 1)(x),
}
# A block that must stay whole, from a stream: its sum joins something else than the stream and a branch of it alone.
NO_BLOCKS = {
    "projection": lambda x: layers.Add()([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 3, padding="same")(x)]),
    "no weights": lambda x: layers.Add()([x, layers.ReLU()(x)]),
    "itself": lambda x: layers.Add()([x, x]),
    "average": lambda x: layers.Average()([x, layers.Conv2D(x.shape[-1], 1)(x)]),
    "broadcast": lambda x: broadcast(layers.Conv2D(1, 1)(x)),
}


def broadcast(x):
    return layers.Add()([x, layers.Conv2D(4, 1)(x)])


def nested(x, inside):
    y = keras.Input(x.shape[1:])
    return keras.Model(y, inside(y))(x)


@st.composite
def residual_graphs(draw):
    """A random residual network, and how many of its blocks can go."""
    x = inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(draw(st.integers(2, 4)), 3, padding="same")(x)
    count = 0
    for _ in range(draw(st.integers(1, 4))):
        x = BETWEEN[draw(st.sampled_from(list(BETWEEN)))](x)
        if draw(st.integers(0, 4)) == 0:
            x = NO_BLOCKS[draw(st.sampled_from(list(NO_BLOCKS)))](x)
            continue
        inner, end, joined = (
            draw(st.integers(1, 4)),
            ENDS[draw(st.sampled_from(list(ENDS)))],
            draw(st.sampled_from(list(SUMS))),
        )

        def block(x, inner=inner, end=end, joined=joined):
            y = layers.Conv2D(inner, 3, padding="same", activation="relu")(x)
            return SUMS[joined](x, end(y, x.shape[-1]))

        x = nested(x, block) if draw(st.booleans()) else block(x)
        count += 1
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))), count


def with_zero_branches(model, names):
    """The same model, where the branches of some blocks put out zeros."""
    graph = ChannelGraph(copy_model(ChannelGraph(model)))
    for block in graph.blocks:
        if block.name in names:
            for weight in branch_weights(graph.trace, block):
                weight.assign(ops.zeros_like(weight))
    return graph.trace.model


@settings(max_examples=25)
@given(residual_graphs(), st.data())
def test_a_model_without_blocks_is_the_one_whose_branches_put_out_zeros(made, data):
    model, count = made
    randomize(model, data.draw(st.integers(0, 99)))
    graph = ChannelGraph(model)
    assert len(graph.blocks) == count
    gone = [block.name for block in graph.blocks if data.draw(st.booleans())]
    halves = {g.name: g.first(g.heads * max(1, g.size // g.heads // 2)) for g in graph.prunable(True)}
    channels = halves if data.draw(st.booleans()) else {}
    kept = graph.kept({**channels, **dict.fromkeys(gone, ())})
    small = rebuild(graph, kept)
    zero = ChannelGraph(with_zero_branches(model, gone))
    inputs = example_inputs(model)
    reference = rebuild(zero, zero.kept(channels)) if channels else zero.trace.model
    assert difference(outputs(reference, inputs), outputs(small, inputs)) < TOLERANCE
    cost, counted = count_cost(ChannelGraph(small)), count_cost(graph, kept)
    assert (cost.params, cost.macs, cost.activations) == (counted.params, counted.macs, counted.activations)
    inside = {graph.trace.calls[i].path for b in graph.blocks if b.name in gone for i in b.calls}
    assert not inside & {call.path for call in ChannelGraph(small).trace.calls}


@pytest.mark.parametrize("kind", NO_BLOCKS)
def test_what_is_no_block_stays(kind):
    x = keras.Input((4, 4, 4))
    assert ChannelGraph(keras.Model(x, NO_BLOCKS[kind](x))).blocks == ()


def test_branches_that_are_read_elsewhere_or_shared_stay():
    x = keras.Input((4, 4, 4))
    y = layers.Conv2D(4, 1)(x)
    assert ChannelGraph(keras.Model(x, layers.Add()([x, y]) * y)).blocks == ()
    assert ChannelGraph(keras.Model(x, [layers.Add()([x, y]), y])).blocks == ()
    shared = layers.Conv2D(4, 1)
    y = layers.Add()([x, shared(x)])
    assert ChannelGraph(keras.Model(x, layers.Add()([y, shared(y)]))).blocks == ()


@pytest.mark.parametrize(("limit", "left"), [(6.0, 1), (None, 2)])
def test_a_relu_that_the_stream_has_passed_goes_too(limit, left):
    x = keras.Input((4, 4, 4))
    stream = layers.ReLU(6.0)(layers.Conv2D(4, 1)(x))
    y = layers.ReLU(limit)(layers.Add()([stream, layers.Conv2D(4, 1)(stream)]))
    graph = ChannelGraph(keras.Model(x, y))
    small = rebuild(graph, graph.kept({graph.blocks[0].name: ()}))
    assert sum(isinstance(layer, layers.ReLU) for layer in small.layers) == left
    images = np.random.default_rng(0).normal(0, 9, (2, 4, 4, 4)).astype("float32")
    zero = with_zero_branches(graph.trace.model, [graph.blocks[0].name])
    np.testing.assert_allclose(zero(images), small(images), atol=1e-5)
