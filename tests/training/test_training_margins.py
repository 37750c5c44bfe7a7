"""Margin losses against their formulas, at the ends of the angle's range, and in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.training import TrainConfig, fit
from dcp_tf.training.margins import ArcFace, ASoftmax, CosFace, MarginHead

RNG = np.random.default_rng(0)


def arcface(angle, margin=0.5):
    beyond = np.cos(angle) + np.cos(margin) - 1
    return np.where(angle < np.pi - margin, np.cos(angle + margin), beyond)


def asoftmax(angle, margin=4, weight=5.0):
    piece = np.minimum(np.floor(angle * margin / np.pi), margin - 1)
    psi = (-1.0) ** piece * np.cos(margin * angle) - 2 * piece
    return (weight * np.cos(angle) + psi) / (1 + weight)


# The margin functions once more, of the angle and in float64.
CASES = {
    "arcface": (ArcFace(), arcface),
    "arcface, other margin": (ArcFace(scale=30, margin=1.0), lambda angle: arcface(angle, 1.0)),
    "cosface": (CosFace(), lambda angle: np.cos(angle) - 0.35),
    "a-softmax": (ASoftmax(), asoftmax),
    "a-softmax, m = 2": (ASoftmax(margin=2, weight=0), lambda angle: asoftmax(angle, 2, 0.0)),
    "a-softmax, m = 3": (ASoftmax(margin=3, weight=1), lambda angle: asoftmax(angle, 3, 1.0)),
    "no margin": (ArcFace(margin=0), np.cos),
    "m = 1": (ASoftmax(margin=1), np.cos),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def reference_loss(margin, scale, labels, cosines):
    logits = scale * cosines
    rows = np.arange(len(labels))
    logits[rows, labels] = scale * margin(np.arccos(cosines[rows, labels]))
    return np.mean(np.logaddexp.reduce(logits, axis=1) - logits[rows, labels])


def test_the_margin_function_is_its_formula_falls_and_is_at_most_the_cosine(case):
    loss, margin = case
    angle = np.linspace(0.01, np.pi - 0.01, 2001)
    found = loss.apply_margin(tf.constant(np.cos(angle), tf.float32)).numpy()
    np.testing.assert_allclose(found, margin(angle), atol=2e-4)
    assert (np.diff(found) < 1e-4).all()
    assert (found < np.cos(angle) + 1e-4).all()
    assert np.abs(np.diff(found)).max() < 0.02  # no jump


def test_the_loss_is_the_cross_entropy_with_the_own_class_set_back(case):
    loss, margin = case
    cosines, labels = RNG.uniform(-0.95, 0.95, (40, 7)), RNG.integers(0, 7, 40)
    found = loss(labels, cosines.astype(np.float32))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, reference_loss(margin, loss.scale, labels, cosines), rtol=2e-4)


def test_gradients_agree_with_numeric_differences(case):
    loss, margin = case
    cosines, labels = RNG.uniform(-0.9, 0.9, (5, 4)), np.array([0, 1, 2, 3, 1])
    with tf.GradientTape() as tape:
        outputs = tf.constant(cosines, tf.float32)
        tape.watch(outputs)
        value = loss(labels, outputs)
    found, step = tape.gradient(value, outputs).numpy(), 1e-6
    for place in np.ndindex(cosines.shape):
        moved = [cosines.copy(), cosines.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        up, down = (reference_loss(margin, loss.scale, labels, values) for values in moved)
        assert found[place] == pytest.approx((up - down) / (2 * step), rel=5e-3, abs=2e-3 * loss.scale)


@pytest.mark.parametrize("own", [1.0, -1.0, 1.0 + 1e-6, 0.0, 1 - 1e-7])
def test_values_and_gradients_are_finite_at_the_ends(case, own):
    loss, _ = case
    with tf.GradientTape() as tape:
        outputs = tf.constant([[own, -own, 0.5], [1.0, -1.0, own]])
        tape.watch(outputs)
        value = loss([0, 2], outputs)
    gradient = tape.gradient(value, outputs)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 1000 * loss.scale


@pytest.mark.parametrize("bad", ["zero embedding", "embedding on its centre", "embedding against its centre"])
def test_gradients_through_the_head_are_finite(case, bad):
    loss, _ = case
    head = MarginHead(3)
    head.build((None, 4))
    factor = {"zero embedding": 0.0, "embedding on its centre": 1.0, "embedding against its centre": -1.0}[bad]
    embeddings = factor * tf.transpose(head.kernel.value)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss([0, 1, 2], head(embeddings))
    for gradient in tape.gradient(value, [embeddings, head.kernel.value]):
        assert np.isfinite(gradient).all()


def test_one_hot_labels_and_columns_are_taken_too(case):
    loss, _ = case
    cosines, labels = RNG.uniform(-1, 1, (6, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0])
    expected = loss(labels, cosines)
    for form in (labels[:, None], np.eye(3)[labels], labels.astype(np.uint8)):
        np.testing.assert_allclose(loss(form, cosines), expected, rtol=1e-6)
        np.testing.assert_array_equal(loss.accuracy(form, cosines), cosines.argmax(1) == labels)


def test_the_head_gives_cosines_in_float32():
    head, embeddings = MarginHead(5), RNG.normal(size=(8, 3))
    got = head(tf.constant(embeddings, tf.float16))
    kernel = head.kernel.numpy()
    expected = embeddings @ kernel / np.linalg.norm(embeddings, axis=1)[:, None] / np.linalg.norm(kernel, axis=0)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, expected, atol=2e-3)


def network(name="net"):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(32, activation="relu", name=f"{name}_hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(16, name=f"{name}_embedding")(x), name=name)


def test_a_model_with_the_head_is_saved_and_loaded(tmp_path):
    model = network()
    headed = keras.Model(model.input, MarginHead(10)(model.output))
    images = RNG.random((4, 8, 8, 1)).astype(np.float32)
    headed.save(tmp_path / "headed.keras")
    loaded = keras.models.load_model(tmp_path / "headed.keras")
    np.testing.assert_allclose(loaded(images), headed(images), rtol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [ArcFace(scale=16), *(pytest.param(loss(scale=16), marks=pytest.mark.slow) for loss in (CosFace, ASoftmax))],
)
def test_a_network_learns_with_it_as_final_and_as_auxiliary_loss(loss):
    keras.utils.set_random_seed(0)
    digits = data.load("digits", normalization="digits")
    model = network()
    hidden = model.layers[-2].output
    auxiliary = MarginHead(10, name="auxiliary")(hidden)
    both = keras.Model(model.input, [auxiliary, MarginHead(10, name="final")(model.output)])
    config = TrainConfig(epochs=8, batch_size=64, learning_rate=0.05)
    history = fit(both, digits.train, [loss, loss], config, augment=False)
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["losses"][0] < history[0]["losses"][0] / 2
    assert history[-1]["top1"] > 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ArcFace(scale=0), "scale"),
        (lambda: ArcFace(margin=2.0), "angle"),
        (lambda: CosFace(margin=-0.1), "0 or more"),
        (lambda: ASoftmax(margin=2.5), "whole number"),
        (lambda: ASoftmax(weight=-1), "lambda"),
        (lambda: MarginHead(1), "two classes"),
        (lambda: MarginHead(3)(np.zeros((2, 4, 4, 3), np.float32)), r"\(batch, D\)"),
        (lambda: ArcFace()(np.array([0.5]), np.zeros((1, 3), np.float32)), "whole-number"),
        (lambda: ArcFace()(np.zeros((1, 4)), np.zeros((1, 3), np.float32)), "labels of shape"),
        (lambda: ArcFace()([0], np.zeros((1, 3, 3), np.float32)), "cosines of shape"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("labels", "outputs", "message"),
    [
        ([3], [[0.1, 0.2, 0.3]], "labels in 0..2"),
        ([-1], [[0.1, 0.2]], "labels in 0..1"),
        ([0], [[9.0, 1.0]], "cosines"),
    ],
)
def test_labels_and_outputs_are_checked_while_training(labels, outputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(ArcFace())(tf.constant(labels), tf.constant(outputs))
