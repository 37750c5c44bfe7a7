"""The width multiplier: exactly the cost of the same rate, new weights, trained from scratch."""

import keras
import numpy as np
import pruning_nets as nets
import pytest

import dcp_tf
from dcp_tf import data, progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import L1, Target, WidthMultiplier
from dcp_tf.pruning.from_scratch import reinitialize_weights
from dcp_tf.training import TrainConfig

NONE = TrainConfig(epochs=0)
ONCE = TrainConfig(epochs=1, batch_size=7, learning_rate=0.01)


def split():
    return data.make_array_split(*nets.images())


def run(model, method, finetuning=NONE, **settings):
    return dcp_tf.prune(model, split(), method, auxiliary=NONE, finetuning=finetuning, **settings)


def weights(model):
    return [w.numpy() for w in model.weights]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize("settings", [{"rate": 0.4}, {"target": Target("macs", "60%")}, {"rate": 0.5, "round_to": 2}])
def test_it_has_the_cost_of_any_method_at_the_same_rate(settings):
    model = nets.build(nets.depthwise)
    ours, other = (run(model, kind(**settings)) for kind in (WidthMultiplier, L1))
    assert dcp_tf.count_cost(ours.model) == dcp_tf.count_cost(other.model)
    assert all(kept == tuple(range(len(kept))) for kept in ours.plan.channels.values())


def test_weights_are_drawn_from_the_seed_and_none_is_the_baselines(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    model = nets.build(nets.several_channels)
    first, again, other = (run(model, WidthMultiplier(rate=0.4), seed=seed).model for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)
    assert any("reinitialized" in line for line in said)
    sliced = run(model, WidthMultiplier(rate=0.4)).plan.apply(model)
    for new, old in zip(first.weights, sliced.weights, strict=True):
        assert not np.array_equal(new.numpy(), old.numpy()), new.path
    norm = first.get_layer("norm")
    values = [w.numpy() for w in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)]
    np.testing.assert_array_equal(values, [np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)])


def test_the_layers_own_initializers_draw_the_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2000, kernel_initializer="he_normal", name="d")])
    model.layers[0].kernel.assign(np.zeros((4, 2000)))
    reinitialize_weights(ChannelGraph(model), 0)
    assert np.std(model.layers[0].kernel) == pytest.approx(np.sqrt(2 / 4), rel=0.05)


def test_frozen_layers_and_known_statistics_stay(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="inside")], name="inner")
    image = keras.Input((4,))
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 9.0, 16.0], name="known")(image)
    x = keras.layers.Dense(4, name="frozen", trainable=False)(x)
    model = keras.Model(image, keras.layers.Dense(2, name="out")(inner(x)))
    before = {layer.name: layer.get_weights() for layer in (*model.layers, *inner.layers)}
    reinitialize_weights(ChannelGraph(model), 1)
    for name, changes in {"known": False, "frozen": False, "inside": True, "out": True}.items():
        layer = (inner if name == "inside" else model).get_layer(name)
        pairs = zip(before[name], layer.get_weights(), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) != changes, name
    assert "frozen layers frozen stay" in said[0]


@pytest.mark.parametrize("heads", [0, 1])
def test_it_is_trained_with_the_schedule_of_the_fine_tuning(heads):
    model = nets.build(nets.residual)
    method = WidthMultiplier(rate=0.5, auxiliary_losses=heads)
    untrained, trained = (run(model, method, config) for config in (NONE, ONCE))
    assert not same(untrained.model, trained.model)
    (phase,) = [phase for phase in trained.history if phase["name"] == "fine-tuning"]
    assert len(phase["history"]) == 1
    assert len(phase["history"][0]["losses"]) == heads + 1
    assert len(trained.model.outputs) == 1
    assert trained.model.count_params() == untrained.model.count_params()


def test_a_place_for_heads_that_does_not_exist_is_found_at_once():
    with pytest.raises(UsageError, match="no layer 'nowhere'"):
        run(nets.build(nets.residual), WidthMultiplier(rate=0.5, auxiliary_layers=("nowhere",)))


def test_what_was_adapted_inside_of_a_layer_stays():
    values = np.random.default_rng(0).normal(5, 3, (64, 4)).astype("float32")
    norm = keras.layers.Normalization()
    norm.adapt(values)
    inside = keras.layers.Pipeline([norm, keras.layers.Dense(4), keras.layers.BatchNormalization()])
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2)(inside(image)))
    dense, batch_norm = inside.layers[1:]
    batch_norm.moving_mean.assign(np.ones(4))
    kernel, normalized = dense.kernel.numpy(), np.asarray(norm(values))
    reinitialize_weights(ChannelGraph(model), 1)
    norm.finalize_state()  # as loading does
    np.testing.assert_array_equal(np.asarray(norm(values)), normalized)
    assert not np.array_equal(dense.kernel.numpy(), kernel)
    np.testing.assert_array_equal(batch_norm.moving_mean, np.zeros(4))
