"""Label smoothing, moving averages, weight decay and mixed precision: what each changes, and what stays."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax
from test_training_checkpoint import Stop, stop_in_epoch
from training_nets import IMAGES, LABELS, LOGITS, batches, convolutional, linear, plain, same, values

from dcp_tf.errors import RunError, UsageError
from dcp_tf.training import (
    ArcFace,
    ClassificationLoss,
    Distillation,
    MeanSquaredError,
    TrainConfig,
    TrainState,
    fit,
    soft_targets,
)
from dcp_tf.training.layers import compute_dtype_scope
from dcp_tf.training.losses import smoothed
from dcp_tf.training.step_state import LossScale, MovingAverage

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(6, 4)).astype("float32") * 3
NUMBERS = np.array([0, 3, 2, 2, 1, 0])
ONE_HOT = np.eye(4, dtype="float32")[NUMBERS]


@pytest.mark.parametrize("labels", [NUMBERS, ONE_HOT], ids=["numbers", "rows"])
def test_smoothed_cross_entropy_equals_the_formula(labels):
    targets = 0.9 * ONE_HOT + 0.1 / 4
    expected = -np.mean(np.sum(targets * log_softmax(OUTPUTS.astype("float64"), axis=-1), axis=-1))
    np.testing.assert_allclose(smoothed(LOGITS, 0.1)(labels, OUTPUTS), expected, rtol=1e-5)


def test_smoothed_questions_lean_towards_one_half():
    loss = ClassificationLoss("logits", independent=True)
    targets, p = 0.8 * ONE_HOT + 0.2 * 0.5, expit(OUTPUTS.astype("float64"))
    expected = -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    np.testing.assert_allclose(smoothed(loss, 0.2)(ONE_HOT, OUTPUTS), expected, rtol=1e-5)


def test_smoothing_changes_what_is_learnt_and_not_what_is_right():
    a, b = linear(4), linear(4)
    data = batches(OUTPUTS, NUMBERS % 3, 6)
    told = [fit(m, data, [LOGITS], plain(label_smoothing=s))[0] for m, s in ((a, 0.0), (b, 0.3))]
    assert not np.array_equal(a.get_weights()[0], b.get_weights()[0])
    assert told[0]["top1"] == told[1]["top1"]


def test_the_base_loss_of_a_distillation_is_smoothed():
    loss, taught = Distillation(LOGITS, 0.25), tf.nn.softmax(OUTPUTS[::-1])
    expected = 0.75 * smoothed(LOGITS, 0.1)(NUMBERS, OUTPUTS) + 0.25 * LOGITS.distance(taught, OUTPUTS, 4.0)
    np.testing.assert_allclose(smoothed(loss, 0.1)(NUMBERS, OUTPUTS, taught), expected, rtol=1e-5)
    model = convolutional()
    config = plain(label_smoothing=0.1)
    fit(model, batches(), [loss], config, teacher=soft_targets(convolutional(seed=3), "logits"))


@pytest.mark.parametrize("loss", [MeanSquaredError(), ArcFace()], ids=["mse", "arcface"])
def test_smoothing_of_what_is_no_class_is_refused(loss):
    with pytest.raises(UsageError, match="label smoothing"):
        fit(convolutional(), batches(), [loss], plain(label_smoothing=0.1))


def test_the_average_equals_numpy_and_takes_the_place_of_the_weights():
    averaged, followed = convolutional(), convolutional()
    expected = {path: value.astype("float64") for path, value in values(followed).items()}
    for step, start in enumerate(range(0, 40, 16), start=1):
        part = batches(IMAGES[start : start + 16], LABELS[start : start + 16])
        fit(followed, part, [LOGITS], plain(batch_norm_momentum=None))
        decay = min(0.3, (1 + step) / (10 + step))
        for path, value in values(followed).items():
            expected[path] += (1 - decay) * (value - expected[path])
    fit(averaged, batches(), [LOGITS], plain(ema=0.3, batch_norm_momentum=None))
    for path, value in values(averaged).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-6, err_msg=path)


def test_the_average_is_what_is_measured_while_the_weights_train_on():
    plainly, averaged, seen = convolutional(), convolutional(), []
    told = fit(plainly, batches(), [LOGITS], plain(3, momentum=0.9))
    config = plain(3, momentum=0.9, ema=0.5)
    told_too = fit(averaged, batches(), [LOGITS], config, validation=lambda: seen.append(values(averaged)) or {})
    assert [r["loss"] for r in told] == [r["loss"] for r in told_too]
    assert same(seen[-1], values(averaged))
    assert not same(values(plainly), values(averaged))


def test_masked_weights_are_zero_in_the_average_too():
    model = convolutional()
    mask = np.ones(model.get_layer("conv").kernel.shape)
    mask[..., 0] = 0
    fit(model, batches(), [LOGITS], plain(2, ema=0.9), masks={"conv/kernel": mask})
    assert not model.get_layer("conv").kernel.numpy()[mask == 0].any()


@pytest.mark.parametrize("settings", [{"ema": 0.9}, {"mixed_precision": "float16"}], ids=["ema", "float16"])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, settings):
    config = plain(4, momentum=0.9, **settings)
    whole, resumed, state = convolutional(), convolutional(seed=9), TrainState(tmp_path / "state.npz")
    fit(whole, batches(), [LOGITS], config, validation=lambda: {"right": 0.5})
    with pytest.raises(Stop):
        fit(convolutional(), batches(), [LOGITS], config, validation=stop_in_epoch(3), checkpoint=state)
    fit(resumed, batches(), [LOGITS], config, checkpoint=state)
    assert same(values(whole), values(resumed))
    again = convolutional(seed=9)
    fit(again, batches(), [LOGITS], config, checkpoint=state)  # which is finished
    assert same(values(whole), values(again))


@pytest.mark.parametrize(
    ("decay", "decaying"),
    [
        ("kernels", {"conv/kernel", "depthwise/kernel", "final/kernel"}),
        ("no_depthwise", {"conv/kernel", "final/kernel"}),
        ("all", None),
    ],
)
def test_decay_names_the_weights_that_shrink(decay, decaying):
    model = convolutional()
    for weight in model.trainable_variables:
        weight.assign(weight + 0.5)
    before = values(model)
    no_loss = lambda labels, outputs: 0.0 * tf.reduce_sum(outputs)  # noqa: E731
    fit(model, batches(), [no_loss], plain(weight_decay=0.5, decay=decay))
    after = values(model)
    trained = {weight.path for weight in model.trainable_variables}
    for path in trained:
        shrinks = decaying is None or path in decaying
        np.testing.assert_allclose(after[path], before[path] * (1 - 0.1 * 0.5) ** (3 * shrinks), rtol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_computes_in_16_bits_and_leaves_a_float32_model(precision, tmp_path):
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, inputs):
            seen.append(keras.backend.standardize_dtype(inputs.dtype))
            return inputs

    model = convolutional()
    model = keras.Model(model.inputs[0], keras.layers.Dense(3, name="last")(Seen()(model.layers[-2].output)))
    reference = keras.models.clone_model(model)
    reference.set_weights(model.get_weights())
    seen.clear()
    config = plain(3, momentum=0.9, mixed_precision=precision)
    history = fit(model, batches(), [LOGITS], config)
    assert set(seen) == {precision}
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert model(IMAGES[:2]).dtype == tf.float32
    told = fit(reference, batches(), [LOGITS], plain(3, momentum=0.9))
    assert history[-1]["loss"] == pytest.approx(told[-1]["loss"], rel=0.02)
    assert "mixed" not in str(model.get_config())


def test_outputs_of_nested_models_stay_float32():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(3, name="b")])
    outer = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="first"), inner])
    with compute_dtype_scope(outer, "bfloat16"):
        policies = {layer.name: layer.dtype_policy.name for layer in outer._flatten_layers() if layer.weights}
        assert outer(OUTPUTS).dtype == tf.float32
    assert {name: policies[name] for name in ("first", "a", "b")} == {
        "first": "mixed_bfloat16",
        "a": "mixed_bfloat16",
        "b": "float32",
    }


def test_gradients_that_overflow_change_nothing_and_halve_the_scale():
    scale = LossScale()
    first = float(scale.state[0].numpy())
    _, finite = scale.unscale([tf.constant([np.inf, 1.0])])
    assert not bool(finite)
    assert float(scale.state[0].numpy()) == first / 2
    (gradient,), finite = scale.unscale([scale(tf.constant([3.0]))])
    assert bool(finite)
    assert gradient.numpy() == pytest.approx(3.0)

    model = linear()
    before = values(model)
    huge = lambda labels, outputs: 1e36 * LOGITS(labels, outputs)  # noqa: E731
    config = plain(mixed_precision="float16", weight_decay=0.1)
    fit(model, batches(OUTPUTS[:, [0, 1, 2, 3, 0]], NUMBERS % 3, 6), [huge], config)
    assert same(values(model), before)


def test_losses_that_overflow_still_stop_the_run():
    with pytest.raises(RunError, match="NaN"):
        fit(linear(), batches(np.full((8, 5), 1e30, "float32"), LABELS[:8], 8), [LOGITS], plain(learning_rate=1e30))


def test_an_epoch_can_be_cut_short():
    taken = []
    watched = lambda labels, outputs: taken.append(1) or LOGITS(labels, outputs)  # noqa: E731
    short, told = convolutional(), convolutional()
    history = fit(short, batches(), [watched], plain(2, steps_per_epoch=1))
    fit(told, lambda epoch: batches()(epoch).take(1), [LOGITS], plain(2))
    assert same(values(short), values(told))
    assert len(history) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decay", "some"),
        ("label_smoothing", 1.0),
        ("mixed_precision", "int8"),
        ("ema", 1.0),
        ("steps_per_epoch", 0),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"{name}.*{value}"):
        TrainConfig(5, **{name: value})


def test_an_average_begins_at_the_weights():
    model = linear()
    average = MovingAverage(model, 0.9)
    before = values(model)
    model.layers[0].kernel.assign(model.layers[0].kernel + 1.0)
    with average.within(model):
        assert same(values(model), before)
    assert not same(values(model), before)
