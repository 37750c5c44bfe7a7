"""The arithmetic of a training step: updates, limits, decay, losses of several heads, teachers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_nets import IMAGES, LABELS, LOGITS, batches, convolutional, linear, plain, same, values

from dcp_tf.training import Distillation, TrainConfig, fit, soft_targets


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("clip_norm", [0, 0.05])
def test_steps_equal_sgd_in_numpy(nesterov, clip_norm):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 5)).astype("float32"), rng.integers(0, 3, 32)
    model = linear()
    w, b = (v.astype("float64") for v in model.get_weights())
    config = plain(3, momentum=0.9, nesterov=nesterov, weight_decay=0.05, clip_norm=clip_norm)
    fit(model, batches(x, y, 8), [LOGITS], config)

    velocity = [np.zeros_like(w), np.zeros_like(b)]
    for _ in range(3):
        for start in range(0, 32, 8):
            xs, ys = x[start : start + 8], y[start : start + 8]
            scores = np.exp(xs @ w + b)
            wrong = (scores / scores.sum(-1, keepdims=True) - np.eye(3)[ys]) / 8
            gradients = [xs.T @ wrong, wrong.sum(0)]
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            scale = min(1.0, clip_norm / norm) if clip_norm else 1.0
            gradients = [gradients[0] * scale + 0.05 * w, gradients[1] * scale]
            for i, g in enumerate(gradients):
                velocity[i] = 0.9 * velocity[i] - 0.1 * g
                change = 0.9 * velocity[i] - 0.1 * g if nesterov else velocity[i]
                w, b = (w + change, b) if i == 0 else (w, b + change)
    np.testing.assert_allclose(model.get_weights()[0], w, atol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], b, atol=1e-5)


def test_gradients_are_limited_unless_told_otherwise():
    rng = np.random.default_rng(0)
    x, y = 100 * rng.normal(size=(8, 6, 5)).astype("float32"), rng.integers(0, 3, 8)

    def step(*middle, **settings):
        model = keras.Sequential([keras.Input((6, 5)), *middle, keras.layers.GlobalMaxPooling1D()])
        model.add(keras.layers.Dense(3))
        before = [v.numpy() for v in model.trainable_variables]
        history = fit(model, batches(x, y, 8), [LOGITS], plain(**settings))
        assert history.resolved["clip_norm"] == settings.get("clip_norm", 1)
        changes = [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
        return np.sqrt(sum((change**2).sum() for change in changes)) / 0.1

    layers, steep = keras.layers, keras.initializers.Constant(99)
    for middle in (
        [layers.Conv1D(4, 3), layers.Conv1D(4, 3)],
        [layers.BatchNormalization(), layers.LayerNormalization(gamma_initializer=steep)],
        [layers.Conv1D(4, 3), layers.BatchNormalization(gamma_initializer=steep)],
    ):
        assert step(*middle) == pytest.approx(1, rel=1e-3)
        assert step(*middle, clip_norm=0) > 2


def test_a_loss_may_ask_for_a_limit_of_the_gradient_that_the_training_may_change():
    rng = np.random.default_rng(0)
    x, y = 100 * rng.normal(size=(8, 5)).astype("float32"), rng.integers(0, 3, 8)

    class Limited:
        clip_norm = 0.5
        distance = LOGITS.distance

        def __call__(self, labels, outputs):
            return LOGITS(labels, outputs)

    def step(loss, **settings):
        model = linear()
        before = model.get_weights()
        fit(model, batches(x, y, 8), [loss], plain(**settings), teacher=teacher if loss is taught else None)
        return np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(model.get_weights(), before, strict=True))) / 0.1

    teacher = soft_targets(linear(), "logits")
    taught = Distillation(Limited(), 0.25)
    free = step(LOGITS, clip_norm=0)
    assert free > 10
    assert step(Limited()) == pytest.approx(0.5, rel=1e-3)
    assert step(taught) == pytest.approx(0.5, rel=1e-3)
    assert step(Limited(), clip_norm=0) == pytest.approx(free, rel=1e-3)
    assert step(Limited(), clip_norm=3) == step(LOGITS, clip_norm=3) == pytest.approx(3, rel=1e-3)


def test_weight_decay_shrinks_kernels_only():
    model = convolutional()
    before = values(model)
    no_loss = lambda labels, outputs: 0.0 * tf.reduce_sum(outputs)  # noqa: E731
    history = fit(model, batches(), [no_loss], plain(weight_decay=0.5))
    after = values(model)
    for path, value in before.items():
        if path.endswith("/kernel"):
            np.testing.assert_allclose(after[path], value * (1 - 0.1 * 0.5) ** 3, rtol=1e-5)
        elif "moving" not in path:
            np.testing.assert_array_equal(after[path], value)
    assert "top1" not in history[0]


def test_layers_own_penalties_are_part_of_the_loss():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))])
    before = model.get_weights()[0]
    no_loss = lambda labels, outputs: 0.0 * tf.reduce_sum(outputs)  # noqa: E731
    history = fit(model, batches(np.zeros((8, 5), "float32"), LABELS[:8], 8), [no_loss], plain(clip_norm=0))
    assert history[0]["loss"] == pytest.approx(0.5 * (before**2).sum(), rel=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], before * (1 - 0.1), rtol=1e-5)


def test_masked_weights_do_not_count_when_gradients_are_clipped():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)).astype("float32"), LABELS[:8]
    x[:, 0] *= 1000  # whose gradient would take all of the norm
    mask = np.ones((5, 3))
    mask[0] = 0
    model = linear()
    model.layers[0].kernel.assign(model.layers[0].kernel * mask)
    before = model.get_weights()[0]
    fit(model, batches(x, y, 8), [LOGITS], plain(clip_norm=0.1), masks={model.layers[0].kernel.path: mask})
    assert np.linalg.norm(model.get_weights()[0] - before) > 0.005


def test_soft_labels_train_as_whole_numbers_do():
    hard, soft = convolutional(), convolutional()
    fit(hard, batches(), [LOGITS], plain(2))
    fit(soft, batches(labels=np.eye(3, dtype="float32")[LABELS]), [LOGITS], plain(2))
    assert same(values(hard), values(soft))


def test_head_losses_are_weighted():
    both, weighted, final_only = (convolutional(heads=2) for _ in range(3))
    history = fit(both, batches(), [LOGITS, LOGITS], plain(), loss_weights=[0.25, 1.0])[0]
    assert history["loss"] == pytest.approx(0.25 * history["losses"][0] + history["losses"][1], rel=1e-5)
    weigh = lambda labels, outputs: 0.25 * LOGITS(labels, outputs)  # noqa: E731
    fit(weighted, batches(), [weigh, LOGITS], plain())
    for path, value in values(both).items():
        np.testing.assert_allclose(values(weighted)[path], value, atol=1e-6)
    before = values(final_only)
    fit(final_only, batches(), [LOGITS, LOGITS], plain(), loss_weights=[0.0, 1.0])
    assert np.array_equal(values(final_only)["early/kernel"], before["early/kernel"])


def test_an_output_that_no_loss_reaches_is_left_alone():
    model = convolutional(heads=2)
    before = values(model)
    fit(model, batches(), [lambda labels, outputs: tf.constant(0.0), LOGITS], plain(weight_decay=0.1))
    assert np.array_equal(values(model)["early/kernel"], before["early/kernel"])


def test_images_alone_learn_from_a_teacher():
    teacher, taught, told = convolutional(seed=3), convolutional(), convolutional()
    targets = soft_targets(teacher, "logits")
    before = values(teacher)
    fit(taught, batches(labels=None), [LOGITS], plain(), teacher=targets)
    fit(told, batches(labels=targets(IMAGES).numpy()), [LOGITS], plain())
    assert same(values(teacher), before)
    for path, value in values(told).items():
        np.testing.assert_allclose(values(taught)[path], value, atol=1e-6)


def test_distillation_brings_the_student_to_its_teacher():
    teacher, student = convolutional(seed=3), convolutional()
    teacher.get_layer("final").kernel.assign(4 * teacher.get_layer("final").kernel)
    distil = Distillation(LOGITS, weight=1.0, temperature=2.0)
    config = plain(15, learning_rate=0.2, momentum=0.9)
    history = fit(student, batches(), [distil], config, teacher=soft_targets(teacher, "logits"))
    assert history[-1]["loss"] < 0.2 * history[0]["loss"]


def test_means_count_every_sample_once():
    model = linear()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(21, 5)).astype("float32"), rng.integers(0, 3, 21)
    expected_loss, expected_top1 = float(LOGITS(y, model(x))), float(np.mean(model(x).numpy().argmax(-1) == y))
    record = fit(model, batches(x, y, 8), [LOGITS], plain(learning_rate=1e-12))[0]  # the last batch holds 5
    assert record["loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert record["top1"] == pytest.approx(expected_top1)


def test_the_step_is_compiled_once_for_batches_of_any_length():
    traces = []

    def counting(labels, outputs):
        traces.append(outputs.shape)
        return LOGITS(labels, outputs)

    fit(convolutional(), batches(), [counting], TrainConfig(3))  # batches of 16, 16 and 8
    assert len(traces) == 1
