"""`rotate_streams`: the rotated model takes the place of the original, and plans are for it."""

import keras
import numpy as np
import pytest
from pruning_nets import BARE

import dcp_tf
from dcp_tf.graph.rotation import is_rotated
from dcp_tf.models.networks.vit import vit_cifar
from dcp_tf.pruning.dcp import dispatch
from dcp_tf.pruning.problem.stages import channel_unit

SETTINGS = {"prune_residual": True, "rotate_streams": True, "round_to": 1}


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(48, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 48)


def network():
    return vit_cifar((8, 8, 3), 4, width=8, blocks=2, heads=2, patch=2)


def test_streams_are_rotated_first_and_the_plan_is_for_the_rotated_model():
    model = network()
    result = dcp_tf.prune(model, data(), dcp_tf.L1(rate=0.5, **SETTINGS), **BARE)
    assert is_rotated(result.rotated)
    assert not is_rotated(model)
    assert {"tokens_rotated", "patches"} <= set(result.plan.channels)
    again = result.plan.apply(result.rotated)
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), result.model.get_weights(), strict=True))
    with pytest.raises(dcp_tf.UsageError, match=r"baseline\.keras"):
        result.plan.apply(model)


def test_the_fast_selection_covers_rotated_streams(monkeypatch):
    monkeypatch.setattr(dispatch, "select_greedily", lambda problem, *_: pytest.fail(f"{problem.name} step by step"))
    result = dcp_tf.prune(network(), data(), dcp_tf.DCP(rate=0.5, recover=0, **SETTINGS), **BARE)
    graph = dcp_tf.ChannelGraph(result.rotated)
    assert channel_unit(graph, graph.group("tokens_rotated")).is_map
    assert not channel_unit(graph, graph.group("patches")).is_map
    assert result.model.get_layer("tokens_rotated").units == 4


def test_rotation_without_pruned_streams_is_refused():
    with pytest.raises(dcp_tf.UsageError, match="prune_residual"):
        dcp_tf.DCP(rotate_streams=True)


def test_rounds_of_a_pruner_rotate_once():
    model = network()
    model.compile("adamw", "sparse_categorical_crossentropy")
    pruner = dcp_tf.Pruner(model, "random", rate=0.5, verbose=0, **SETTINGS)
    lines = []
    pruner.summary(lines.append)
    assert "rotates the streams first" in "\n".join(lines)
    first = pruner.prune(data())
    assert isinstance(first.optimizer, keras.optimizers.AdamW)
    small = pruner.step(data(), rate=0.5)
    assert small.get_layer("tokens_rotated").units == 2
    again = pruner.plan.apply(pruner.original)
    assert [w.shape for w in again.weights] == [w.shape for w in small.weights]
