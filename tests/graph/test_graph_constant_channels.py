"""Constant channels that kernel pruning leaves: they are folded where that is exact, and stay where it is not."""

import keras
import numpy as np
import pytest
from equivalence import difference, example_inputs, outputs, randomize
from hypothesis import given, note, settings
from hypothesis import strategies as st
from keras import layers, ops
from random_graphs import random_model

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, kernel_sparsity, rebuild
from dcp_tf.graph.constant_channels import fold_constants
from dcp_tf.pruning.dcp.dead_channels import remove_unread
from dcp_tf.pruning.problem.consumers import KernelMasks, with_kernels
from dcp_tf.pruning.problem.stages import kernel_units

DEAD = (1, 3)
TOLERANCE = 1e-5


def net(behind, filters=5, shape=(8, 8, 3), bias=True, norm=False, activation=None):
    """Channels that `make` makes, and what lies behind them."""
    image = keras.Input(shape)
    kind = layers.Dense if len(shape) == 1 else layers.Conv2D
    size = () if len(shape) == 1 else (3,)
    x = kind(filters, *size, use_bias=bias, name="make")(image)
    if norm:
        x = layers.BatchNormalization(name="norm")(x)
    if activation:
        x = layers.Activation(activation)(x)
    model = keras.Model(image, behind(x))
    randomize(model, seed=1)
    kernel = model.get_layer("make").kernel
    kernel.assign(kernel * (~np.isin(np.arange(filters), DEAD)).astype("float32"))
    return model


def pool(x):
    return layers.GlobalAveragePooling2D()(x)


FOLDED = {
    "valid padding": (lambda x: pool(layers.Conv2D(4, 3, name="read")(x)), {}),
    "valid padding, strides": (lambda x: pool(layers.Conv2D(4, 3, strides=2, name="read")(x)), {"activation": "tanh"}),
    "1x1": (lambda x: pool(layers.Conv2D(4, 1, padding="same", name="read")(x)), {}),
    "norm before": (lambda x: pool(layers.Conv2D(4, 3, name="read")(x)), {"norm": True, "bias": False}),
    "sigmoid before": (lambda x: pool(layers.Conv2D(4, 1, name="read")(x)), {"activation": "sigmoid"}),
    "no bias, so zero": (lambda x: pool(layers.Conv2D(4, 3, padding="same", name="read")(x)), {"bias": False}),
    "depthwise between": (
        lambda x: pool(layers.Conv2D(4, 1, name="read")(layers.DepthwiseConv2D(3, name="depthwise")(x))),
        {"activation": "relu"},
    ),
    "dense": (lambda x: layers.Dense(4, activation="relu", name="read")(x), {"shape": (6,)}),
    "flatten": (lambda x: layers.Dense(4, name="read")(layers.Flatten()(x)), {"activation": "tanh"}),
    "own activation": (lambda x: pool(layers.Conv2D(4, 3, activation="tanh", name="read")(x)), {}),
    "two consumers": (
        lambda x: layers.Concatenate()([pool(layers.Conv2D(4, 3)(x)), layers.Dense(3, name="other")(pool(x))]),
        {"norm": True},
    ),
    "shared": (lambda x: pool(twice(layers.Conv2D(4, 1, name="read"), x)), {}),
}


def twice(layer, x):
    return layers.Add()([layer(x), layer(layers.AveragePooling2D(1)(x))])


def zeros_through_relu(model):
    """The constants are below zero, so that a ReLU leaves zeros."""
    bias = model.get_layer("make").bias
    bias.assign(-np.abs(bias))


STAYING = {
    "same padding": (lambda x: pool(layers.Conv2D(4, 3, padding="same", name="read")(x)), {}),
    "padding of its own": (lambda x: pool(layers.Conv2D(4, 3, name="read")(layers.ZeroPadding2D(1)(x))), {}),
    "causal padding": (
        lambda x: layers.Conv1D(4, 3, padding="causal", name="read")(layers.Reshape((36, -1))(x)),
        {},
    ),
    "no bias to take it": (lambda x: pool(layers.Conv2D(4, 3, use_bias=False, name="read")(x)), {}),
    "a layer without the rule": (lambda x: pool(layers.Conv2DTranspose(4, 3, name="read")(x)), {}),
    "squeeze and excite": (
        lambda x: pool(layers.Conv2D(4, 1)(x * layers.Dense(5, activation="sigmoid", name="read")(pool(x)))),
        {},
    ),
    "a gate that stands still over small images": (
        lambda x: layers.Conv2D(4, 1, name="read")(x * ops.clip(layers.Conv2D(1, 1, name="gate")(x) + 100, 0, 1)),
        {},
    ),
    "one of two consumers": (
        lambda x: layers.Concatenate()(
            [pool(layers.Conv2D(4, 3, name="read")(x)), pool(layers.Conv2D(4, 3, padding="same")(x))]
        ),
        {},
    ),
}


def folded(model):
    graph = ChannelGraph(model)
    return graph, fold_constants(graph, [g for g in graph.prunable(True) if g.name == "make"])["make"]


@pytest.mark.parametrize("which", FOLDED)
def test_constants_are_folded_where_that_is_exact(which):
    behind, given_ = FOLDED[which]
    model = net(behind, **given_)
    inputs = example_inputs(model, seed=3)
    before = outputs(model, inputs)
    graph, found = folded(model)
    assert np.flatnonzero(found).tolist() == list(DEAD)
    assert difference(before, outputs(model, inputs)) < TOLERANCE
    # Nothing reads them any more: they can go.
    small = rebuild(graph, graph.kept({"make": np.flatnonzero(~found)}))
    assert difference(before, outputs(small, inputs)) < TOLERANCE
    assert small.get_layer("make").kernel.shape[-1] == 3


def test_zeros_behind_a_relu_are_folded_under_same_padding():
    model = net(lambda x: pool(layers.Conv2D(4, 3, padding="same", use_bias=False)(x)), activation="relu")
    zeros_through_relu(model)
    inputs = example_inputs(model, seed=3)
    before = outputs(model, inputs)
    graph, found = folded(model)
    assert found[list(DEAD)].all()
    small = rebuild(graph, graph.kept({"make": np.flatnonzero(~found)}))
    assert difference(before, outputs(small, inputs)) < TOLERANCE


@pytest.mark.parametrize("which", STAYING)
def test_constants_stay_where_folding_would_not_be_exact(which):
    behind, given_ = STAYING[which]
    model = net(behind, **given_)
    before = [w.numpy() for w in model.weights]
    _, found = folded(model)
    assert not found.any()
    assert all(np.array_equal(a, b) for a, b in zip(before, [w.numpy() for w in model.weights], strict=True))


def test_filters_with_any_weight_are_no_constants():
    model = net(FOLDED["valid padding"][0])
    model.get_layer("make").kernel.assign(model.get_layer("make").kernel + 1e-9)
    assert not folded(model)[1].any()


def test_a_channel_that_only_looks_constant_is_not_folded():
    """A ReLU that lets nothing through for the images at hand may let something through for others."""
    model = net(FOLDED["valid padding"][0], activation="relu")
    make = model.get_layer("make")
    make.bias.assign(np.full(5, -1e9))
    assert np.flatnonzero(folded(model)[1]).tolist() == list(DEAD)


# With the removal of what nothing reads


def prune_at_random(graph, rate, seed):
    """Sets random kernels to zero, whole filters and whole inputs among them."""
    rng, masks = np.random.default_rng(seed), KernelMasks()
    for unit in kernel_units(graph):
        consumers, size = with_kernels(masks.consumer_kernels(unit.consumers), np.ones(unit.size, bool))
        selected = rng.random(size) >= rate
        for consumer in consumers:
            for axis in (-2, -1):
                lines = np.take(consumer.atom, np.flatnonzero(rng.random(consumer.atom.shape[axis]) < rate / 2), axis)
                selected[lines[lines >= 0]] = False
        masks.drop(consumers, selected)
    return masks


def run(model, rate, seed):
    randomize(model, seed)
    graph = ChannelGraph(model)
    try:
        masks = prune_at_random(graph, rate, seed)
    except UsageError:
        return None
    inputs = example_inputs(model, seed=seed)
    masked = outputs(model, inputs)
    kept = remove_unread(graph, graph.prunable(residual=True), masks)
    small = rebuild(graph, graph.kept(kept))
    assert difference(masked, outputs(model, inputs)) < 2e-4
    assert difference(masked, outputs(small, inputs)) < 2e-4
    assert all(kept.values())
    return small


@settings(max_examples=12)
@given(st.data())
def test_random_graphs_with_random_zero_kernels_compute_the_same_without_the_channels_that_go(data):
    keras.backend.clear_session()
    model = random_model(data.draw, max_steps=6)
    rate, seed = data.draw(st.sampled_from([0.3, 0.6, 0.9])), data.draw(st.integers(0, 99))
    note(f"seed {seed}, rate {rate}, {[(c.path, type(c.operation).__name__) for c in ChannelGraph(model).trace.calls]}")
    run(model, rate, seed)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.data())
def test_many_random_graphs_with_random_zero_kernels(data):
    keras.backend.clear_session()
    run(
        random_model(data.draw, max_steps=12),
        data.draw(st.sampled_from([0.3, 0.6, 0.9])),
        data.draw(st.integers(0, 99)),
    )


def test_what_only_gone_channels_read_goes_too():
    """No kernel of `third` reads channel 0 of `second`, so the kernels of `second` that make it go, and so on."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.Conv2D(4, 3, name="second")(x)
    x = layers.Conv2D(4, 3, name="third")(x)
    model = keras.Model(image, layers.Dense(2)(pool(x)))
    randomize(model, 0)
    graph, masks = ChannelGraph(model), KernelMasks()
    gone = {"third": [(0, o) for o in range(4)], "second": [(2, o) for o in range(1, 4)]}
    for unit in kernel_units(graph):
        consumers, size = with_kernels(masks.consumer_kernels(unit.consumers), np.ones(unit.size, bool))
        selected = np.ones(size, bool)
        selected[[i * 4 + o for i, o in gone[unit.name]]] = False
        masks.drop(consumers, selected)
    kept = remove_unread(graph, graph.prunable(), masks)
    # Channel 2 of `first` was read by filter 0 of `second` alone, which went with channel 0 of `second`.
    assert kept == {"first": (0, 1, 3), "second": (1, 2, 3), "third": (0, 1, 2, 3)}
    assert kernel_sparsity(rebuild(graph, graph.kept(kept))) == []


def test_filters_without_inputs_go_with_the_constants_they_leave():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(image)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="second")(x))
    model = keras.Model(image, layers.Dense(2)(pool(layers.Conv2D(4, 3, activation="relu", name="third")(x))))
    randomize(model, 0)
    graph, masks = ChannelGraph(model), KernelMasks()
    consumers, size = with_kernels(masks.consumer_kernels(graph.consumers(graph.group("first"))), np.ones(4, bool))
    masks.drop(consumers, np.arange(size) % 4 != 1)  # all kernels of filter 1 of `second`
    inputs = example_inputs(model)
    before = outputs(model, inputs)
    kept = remove_unread(graph, graph.prunable(), masks)
    assert kept == {"first": (0, 1, 2, 3), "second": (0, 2, 3), "third": (0, 1, 2, 3)}
    assert difference(before, outputs(rebuild(graph, graph.kept(kept)), inputs)) < TOLERANCE
