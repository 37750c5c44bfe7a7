"""The fast selection: its quadratic model is the loss, and its elimination is exact."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import BARE

from dcp_tf import data
from dcp_tf.errors import RunError
from dcp_tf.pruning import DCP, AdaptDCP, prune
from dcp_tf.pruning.dcp import dispatch
from dcp_tf.pruning.elimination.quadratic import Quadratic, eliminate, is_supported, patches
from dcp_tf.pruning.elimination.select import _half


def random_quadratic(rng, size, rows_each, outputs=3, others=0):
    rows = size * rows_each + others
    matrix = rng.normal(size=(4 * rows, rows))
    channel = np.concatenate([np.tile(np.arange(size), rows_each), np.full(others, -1)])
    return Quadratic(matrix.T @ matrix, rng.normal(size=(rows, outputs)), channel[:, None], np.ones((rows, 1), bool))


def best_value(parts, selected):
    return sum(part.value(part.fit(selected)) for part in parts)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dense(4),
        keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
        keras.layers.Conv1D(4, 3, strides=2, padding="same"),
        keras.layers.Conv2D(4, 1),
        keras.layers.Conv2D(4, 3, padding="same", strides=2),
        keras.layers.Conv2D(4, (3, 2), padding="valid", dilation_rate=2, use_bias=False),
    ],
    ids=lambda layer: layer.name,
)
def test_patches_times_kernel_is_the_layer(layer):
    shape = {"Dense": (5,), "Conv1D": (9, 5), "Conv2D": (9, 8, 5)}[type(layer).__name__]
    inputs = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    outputs = np.asarray(layer(inputs))
    bias = 0 if layer.bias is None else np.asarray(layer.bias)
    found = np.asarray(patches(layer, inputs)) @ np.asarray(layer.kernel).reshape(-1, 4) + bias
    np.testing.assert_allclose(found.reshape(outputs.shape), outputs, atol=1e-4)
    assert is_supported(layer)


@pytest.mark.parametrize("others", [0, 2])
def test_each_removal_is_the_cheapest_and_costs_what_refitting_says(others):
    rng = np.random.default_rng(1)
    parts = [random_quadratic(rng, 5, 2, others=others), random_quadratic(rng, 5, 1)]
    order, rises = eliminate(parts, 5)
    selected = np.ones(5, bool)
    for channel, rise in zip(order, rises, strict=True):
        values = {}
        for k in np.flatnonzero(selected):
            without = selected.copy()
            without[k] = False
            values[k] = best_value(parts, without) - best_value(parts, selected)
        assert channel == min(values, key=values.get)
        assert rise == pytest.approx(values[channel], rel=2e-2)
        selected[channel] = False


def test_rows_that_are_not_held_stay_zero():
    part = random_quadratic(np.random.default_rng(2), 3, 2, others=2)
    part.mask[-1] = False
    weights = part.fit(np.array([True, False, True]))
    zero = np.flatnonzero((weights == 0).all(1))
    assert set(zero) == {1, 4, 7}


def test_elimination_is_near_the_best_choice_of_all():
    parts = [random_quadratic(np.random.default_rng(3), 6, 1)]
    order, _ = eliminate(parts, 6)
    found = np.ones(6, bool)
    found[order[:3]] = False
    every = [np.isin(np.arange(6), chosen) for chosen in itertools.combinations(range(6), 3)]
    values = sorted(best_value(parts, selected) for selected in every)
    assert best_value(parts, found) <= values[1] + 1e-9


@pytest.fixture(scope="module")
def net_and_data():
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="a")(x)
    x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name="b")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.SeparableConv2D(8, 3, name="c")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(12, activation="relu", name="d")(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    images = rng.normal(size=(96, 8, 8, 2)).astype(np.float32)
    return model, data.make_array_split(images, rng.integers(0, 3, 96))


def run(net_and_data, method_class=DCP, **settings):
    model, split = net_and_data
    given = {"selection": "fast", "selection_samples": 96, "selection_batch": 32, "recover": 0, **settings}
    return prune(model, split, method_class(**given), **BARE)


@pytest.mark.parametrize("losses", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_widths_hold_and_equal_seeds_give_equal_plans(net_and_data, losses):
    settings = {"rate": 0.5, "reconstruction": losses[0], "discrimination": losses[1]}
    settings["recover"] = None if all(losses) else 0
    first, second = (run(net_and_data, **settings) for _ in range(2))
    assert {g.name: len(g.kept) for g in first.plan.groups} == {"a": 4, "b": 3, "c": 4, "d": 6}
    assert first.plan.channels == second.plan.channels
    for a, b in zip(first.model.weights, second.model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_kernels_are_fitted_anew_to_what_is_left(net_and_data):
    model, split = net_and_data
    expected = np.asarray(model(split.inputs))

    def error(smaller):
        return float(np.square(np.asarray(smaller(split.inputs)) - expected).mean())

    fast = run(net_and_data, rate=0.5, discrimination=0.0)
    assert error(fast.model) < error(fast.plan.apply(model))


def test_readers_of_a_skip_are_modelled_apart_and_fitted_together(monkeypatch):
    """Of a decoder the one reads what the other makes, as in a U-Net: of each channel that is there twice one goes."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 2))
    skip = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="skip")(image)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="deep")(keras.layers.MaxPooling2D()(skip))
    x = keras.layers.Concatenate()([skip, keras.layers.UpSampling2D()(x)])
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="decoder")(x)
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(x))
    layer = model.get_layer("skip")
    layer.kernel.assign(np.repeat(layer.kernel.numpy()[..., ::2], 2, -1))
    rng = np.random.default_rng(0)
    split = data.make_array_split(rng.normal(size=(64, 8, 8, 2)).astype("float32"), rng.integers(0, 3, (64, 8, 8)))
    monkeypatch.setattr(dispatch, "select_greedily", None)  # step by step all images pass the decoder in each step
    result = run((model, split), rate=0.5, exclude=("deep", "decoder"), auxiliary_losses=0, recover=0)
    assert [number // 2 for number in result.plan.groups[0].kept] == [0, 1, 2, 3]
    np.testing.assert_allclose(result.model(split.inputs), model(split.inputs), atol=2e-3)


def test_groups_that_keep_all_are_left_alone_until_one_loses_channels(net_and_data, capsys):
    result = run(net_and_data, rate=0.5, rates=(("[ac]", 0.01),))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("kept whole", "selected"))]
    assert [line.split(":")[0].split()[-1] for line in lines] == ["a", "b", "c", "d"]
    assert [line.startswith("kept whole") for line in lines] == [True, False, False, False]
    assert {g.name: len(g.kept) for g in result.plan.groups} == {"a": 8, "b": 3, "c": 8, "d": 6}
    model, _ = net_and_data
    np.testing.assert_array_equal(result.model.get_layer("a").kernel, model.get_layer("a").kernel)


def test_adaptive_widths_grow_as_epsilon_falls(net_and_data):
    kept = [
        sum(len(g.kept) for g in run(net_and_data, AdaptDCP, rate=0.1, epsilon=e, per_step=1).plan.groups)
        for e in (0.2, 1e-6)
    ]
    assert kept[0] < kept[1]


def test_a_learning_rate_that_diverges_is_lowered_until_the_loss_is_finite(net_and_data, monkeypatch):
    model, split = net_and_data
    settings = {"selection": "exact", "selection_samples": 96, "selection_batch": 32, "per_step": 4}
    method = DCP(selection_lr=100.0, auxiliary_losses=0, exclude=("[bcd]",), **settings)
    result = prune(model, split, method, **BARE)
    assert all(np.isfinite(np.asarray(w)).all() for w in result.model.weights)
    monkeypatch.setattr("dcp_tf.pruning.problem.problem._ATTEMPTS", 1)
    with pytest.raises(RunError, match="lower selection_lr"):
        prune(model, split, method, **BARE)


def few_rows(rng, rows=40, images=30, outputs=4, noise=0.5):
    """A layer with more inputs than images: its quadratic model with halves, the images, and the kernel behind them."""
    weights = rng.normal(size=(rows, outputs))
    inputs = rng.normal(size=(4 * images, rows))
    expected = inputs @ weights + noise * rng.normal(size=(4 * images, outputs))
    halves = [
        (x.T @ x, x.T @ y) for x, y in zip(np.split(inputs[:images], 2), np.split(expected[:images], 2), strict=True)
    ]
    hessian, linear = (sum(both) for both in zip(*halves, strict=True))
    part = Quadratic(hessian, linear, np.arange(rows)[:, None], np.ones((rows, 1), bool), None, halves)
    return part, (inputs[images:], expected[images:]), weights


def test_fit_toward_the_trained_kernel_holds_on_other_images():
    rng = np.random.default_rng(5)
    part, (inputs, expected), weights = few_rows(rng)
    trained = weights + 0.1 * rng.normal(size=weights.shape)
    everything = np.ones(40, bool)
    model, strength = part.toward(trained, everything)
    error = lambda w: np.square(inputs @ w - expected).mean()  # noqa: E731
    assert strength > 1e-2
    assert error(model.fit(everything)) < 0.2 * error(part.fit(everything))
    assert error(model.fit(everything)) < 1.1 * error(trained)


def test_fit_toward_the_trained_kernel_changes_little_where_there_are_many_rows():
    rng = np.random.default_rng(6)
    part, _, weights = few_rows(rng, rows=8, images=4000, noise=0.1)
    far, everything = weights + 1.0, np.ones(8, bool)
    model, strength = part.toward(far, everything)
    assert strength <= 1e-3
    np.testing.assert_allclose(model.fit(everything), part.fit(everything), atol=0.02)


def test_a_strength_that_rounding_makes_singular_is_not_chosen():
    hessian = np.diag([1.0, 1.0, -0.02])  # a Gram matrix of float32 may have such a value
    halves = [(hessian, np.ones((3, 2)))] * 2
    part = Quadratic(2 * hessian, 2 * np.ones((3, 2)), np.arange(3)[:, None], np.ones((3, 1), bool), None, halves)
    _, strength = part.toward(np.zeros((3, 2)), np.ones(3, bool))
    assert strength * np.trace(2 * hessian) / 6 > 0.02


def test_a_half_of_the_images_is_half_of_their_windows():
    windows = tf.constant(np.repeat(np.arange(5), 4))  # four rows of each of five images
    first, second = (_half(windows, number, 5).numpy() for number in range(2))
    assert set(first) == {0, 1}
    assert set(second) == {2, 3, 4}


def test_without_halves_there_is_no_ridge():
    part = random_quadratic(np.random.default_rng(7), 4, 1)
    model, strength = part.toward(np.ones_like(part.linear), np.ones(4, bool))
    assert strength == 0
    np.testing.assert_array_equal(model.hessian, part.hessian)
