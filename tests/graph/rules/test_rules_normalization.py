"""Sums of squares over channels: rebuilt = masked, as removed channels are zero where they are made."""

import keras
import pytest
from equivalence import check, difference, example_inputs, outputs, random_plan, randomize
from keras import layers

from dcp_tf.graph import ChannelGraph, masked, rebuild


def stream(norm, writer=None):
    """A residual stream of 8 channels that a Dense layer begins, `writer` adds to, and `norm` reads."""
    x = keras.Input((5, 6))
    y = layers.Dense(8, name="words")(x)
    z = layers.MultiHeadAttention(2, 3, name="attention")(*[norm(name="first")(y)] * 2)
    y = layers.Dropout(0.1)(layers.Add()([y, z]))
    z = layers.Dense(7, activation="gelu", name="hidden")(norm(name="second")(y))
    z = layers.Dense(8, name="out")(z)
    y = layers.Add()([y, z if writer is None else writer(z)])
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(norm(name="last")(y))))


@pytest.mark.parametrize("norm", [layers.RMSNormalization, layers.UnitNormalization])
def test_a_stream_under_sums_of_squares_shrinks_exactly(norm):
    heads = {"attention/heads": 2, "attention/value": 6, "attention/query": 6}
    graph, small = check(stream(norm), prunable={"words": 8, "hidden": 7, **heads}, save=True)
    assert graph.group("words").residual
    if norm is layers.RMSNormalization:
        kept = small.get_layer("words").units
        assert small.get_layer("first").epsilon == pytest.approx(1e-6 * 8 / kept)


WRITERS = {
    "normalized": lambda z: layers.BatchNormalization(name="odd")(z),
    "activated": lambda z: layers.Activation("gelu", name="odd")(z),
    "gated": lambda z: layers.Multiply(name="odd")([z, layers.Dense(8, activation="sigmoid")(z)]),
    "convolved": lambda z: layers.DepthwiseConv1D(3, padding="same", name="odd")(z),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_can_make_zeros_may_write_such_a_stream(writer):
    graph, _ = check(stream(layers.RMSNormalization, WRITERS[writer]))
    assert graph.group("words").pinned_because is None


def test_what_makes_no_zeros_pins_the_stream_and_is_named():
    model = stream(layers.RMSNormalization, layers.Activation("sigmoid", name="odd"))
    assert "odd cannot make channels of zeros" in ChannelGraph(model).group("words").pinned_because
    graph = ChannelGraph(model, ignore_statistics=True)
    assert graph.group("words").pinned_because is None


def test_masks_of_such_streams_are_on_what_makes_them():
    model = stream(layers.RMSNormalization)
    randomize(model)
    graph = ChannelGraph(model)
    plan = random_plan(graph)
    small, full, inputs = rebuild(graph, graph.kept(plan)), masked(graph, graph.kept(plan)), example_inputs(model)
    assert difference(outputs(full, inputs), outputs(small, inputs)) < 1e-5
    assert (full.get_layer("out").bias.numpy() == 0).sum() == 8 - small.get_layer("words").units
