"""Whole residual blocks as candidates: the useless one goes, the plan says so, and what reads the stream is fitted."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers
from pruning_nets import BARE

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.pruning.allocation.stream_readers import fitted_readers
from dcp_tf.pruning.context import prepare

SETTINGS = {"prune_blocks": True, "recover": 0, "discrimination": 0, "selection_samples": 48}


def residual_net(useless=1):
    """Three blocks of equal cost; one adds next to nothing to the stream, the others as much as there is."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    for number in range(3):
        y = layers.Conv2D(12, 3, padding="same", activation="relu", name=f"in{number}")(x)
        y = layers.Conv2D(6, 3, padding="same", name=f"out{number}")(y)
        x = layers.Add(name=f"sum{number}")([x, y])
        x = layers.ReLU(name=f"relu{number}")(x)
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))
    kernel = model.get_layer(f"out{useless}").kernel
    kernel.assign(kernel * 1e-4)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def method():
    return dcp_tf.DCP(target=dcp_tf.Target("macs", "66%"), round_to=1, **SETTINGS)


def test_the_block_goes_that_adds_nothing_and_the_plan_brings_it_back(method, images, tmp_path):
    model = residual_net()
    state = {"state_dir": tmp_path / "state"}
    result = dcp_tf.prune(model, images, method, **BARE, **state)
    names = [layer.name for layer in result.model.layers]
    assert not {"in1", "out1", "sum1"} & set(names)
    assert {"in0", "out0", "in2", "out2"} <= set(names)
    assert {g.name: g.kept for g in result.plan.groups if g.name.startswith("sum")} == {"sum1": ()}
    assert count_cost(result.model).macs <= 0.66 * count_cost(model).macs
    difference = np.abs(result.model(images) - model(images)).mean() / np.abs(model(images)).std()
    assert difference < 0.1  # hardly anything else had to go
    path = result.plan.save(tmp_path / "plan.json")
    plan = dcp_tf.PruningPlan.load(path)
    assert plan == dcp_tf.PruningPlan.from_json(json.loads(path.read_text()))
    for small in (plan.apply(model), dcp_tf.prune(model, images, plan, **BARE).model):
        assert [w.shape for w in small.weights] == [w.shape for w in result.model.weights]
    again = dcp_tf.prune(model, images, method, **BARE, **state, resume=True)
    assert again.plan.channels == result.plan.channels
    np.testing.assert_array_equal(again.model(images), result.model(images))
    result.model.save(tmp_path / "small.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "small.keras")(images), result.model(images))


def test_an_attention_block_that_adds_nothing_goes():
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((6, 5))
    x = layers.Dense(8, name="stem")(x)
    for number in range(2):
        y = layers.LayerNormalization(name=f"norm{number}")(x)
        y = layers.MultiHeadAttention(2, 4, name=f"attention{number}")(y, y)
        x = layers.Add(name=f"sum{number}")([x, y])
    model = keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling1D()(x)))
    kernel = model.get_layer("attention0").output_dense.kernel
    kernel.assign(kernel * 1e-4)
    sequences = np.random.default_rng(0).normal(size=(64, 6, 5)).astype("float32")
    pairs = ("attention0/query", "attention1/query")
    method = dcp_tf.DCP(target=dcp_tf.Target("macs", "53%"), round_to=1, exclude=pairs, **SETTINGS)
    result = dcp_tf.prune(model, sequences, method, **BARE)
    names = {layer.name for layer in result.model.layers}
    assert not {"norm0", "attention0", "sum0"} & names
    assert {"norm1", "attention1", "sum1"} <= names
    assert result.plan.channels["sum0"] == ()
    assert result.plan.apply(model).count_params() == result.model.count_params()


def test_blocks_that_matter_stay(images):
    method = dcp_tf.DCP(target=dcp_tf.Target("macs", "95%"), round_to=1, **SETTINGS)
    plan = dcp_tf.prune(residual_net(useless=0), images, method, **BARE).plan
    assert plan.channels.get("sum1", (0,)) == plan.channels.get("sum2", (0,)) == (0,)


def test_a_target_can_be_met_that_needs_blocks(images):
    """Without blocks each keeps at least one of its channels."""
    narrow = {"target": dcp_tf.Target("macs", "9%"), "round_to": 12}
    with pytest.raises(UsageError, match="cannot be reached"):
        prepare(residual_net(), images, dcp_tf.DCP(**narrow, **{**SETTINGS, "prune_blocks": False}), finetuning=None)
    result = dcp_tf.prune(residual_net(), images, dcp_tf.DCP(**narrow, **SETTINGS), **BARE)
    gone = [g.name for g in result.plan.groups if not g.kept]
    assert len(gone) == 2
    assert "sum1" in gone


def test_readers_take_over_what_the_stream_before_a_block_tells_of_it(images):
    """A block that doubles the stream: what reads it behind needs kernels of twice the size, and nothing else."""
    x = keras.Input((6, 6, 3))
    joined = layers.Add(name="sum")([x, layers.Conv2D(3, 1, use_bias=False, name="branch")(x)])
    y = layers.Conv2D(4, 3, name="read", activation="relu")(layers.Dropout(0.1)(joined))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    model.get_layer("branch").kernel.assign(np.eye(3)[None, None])
    context = prepare(model, images, dcp_tf.DCP(rate=0.5, round_to=1, discrimination=0), finetuning=None)
    (fitted,) = fitted_readers(context, 64, [context.graph.blocks])
    assert list(fitted) == ["read"]
    np.testing.assert_allclose(fitted["read"], 2 * model.get_layer("read").kernel.numpy(), rtol=0.05, atol=0.02)


def test_the_scope_is_searched_that_loses_least(images):
    """It is what the flags of that scope alone give."""
    search = {**SETTINGS, "prune_blocks": False, "search_scope": True}
    target = dcp_tf.Target("macs", "50%")
    result = dcp_tf.prune(residual_net(), images, dcp_tf.DCP(target=target, round_to=1, **search), **BARE)
    entry = next(phase for phase in result.history if phase["name"] == "allocation")
    tried = entry["tried"]
    assert list(tried) == [f"channels{more}" for more in ("", " and streams", " and blocks", " and streams and blocks")]
    assert entry["scope"] == min(tried, key=tried.get) != "channels"
    named = {"prune_residual": "streams" in entry["scope"], "prune_blocks": "blocks" in entry["scope"]}
    method = dcp_tf.DCP(target=target, round_to=1, **{**SETTINGS, **named})
    assert result.plan.channels == dcp_tf.prune(residual_net(), images, method, **BARE).plan.channels


def test_a_scope_that_cannot_meet_the_target_is_not_chosen(images):
    search = {**SETTINGS, "prune_blocks": False, "search_scope": True}
    method = dcp_tf.DCP(target=dcp_tf.Target("macs", "9%"), round_to=12, **search)
    result = dcp_tf.prune(residual_net(), images, method, **BARE)
    entry = next(phase for phase in result.history if phase["name"] == "allocation")
    assert entry["tried"]["channels"] is None
    assert "and" in entry["scope"]
    assert count_cost(result.model).macs <= 0.09 * count_cost(residual_net()).macs


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (dcp_tf.L1(rate=0.5, search_scope=True), "measures no losses: search_scope"),
        (dcp_tf.DCP(rate=0.5, search_scope=True), "search_scope needs a target"),
        (dcp_tf.L1(rate=0.5, prune_blocks=True), "measures no losses"),
        (dcp_tf.DCP(rate=0.5, prune_blocks=True), "prune_blocks needs a target"),
    ],
)
def test_where_no_block_can_go_an_error_says_so(method, message, images):
    with pytest.raises(UsageError, match=message):
        dcp_tf.prune(residual_net(), images, method, **BARE)


def test_a_model_without_blocks_is_refused(images, method):
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(4, 3, activation="relu")(layers.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    for settings in ({}, {"prune_blocks": False, "search_scope": True}):
        with pytest.raises(UsageError, match="no residual block"):
            prepare(model, images, dataclasses.replace(method, **settings), finetuning=None)


def test_costs_count_a_block_that_goes():
    graph = ChannelGraph(residual_net())
    full, without = count_cost(graph), count_cost(graph, graph.kept({"sum1": ()}))
    assert full.macs - without.macs == 2 * 36 * 9 * 6 * 12
