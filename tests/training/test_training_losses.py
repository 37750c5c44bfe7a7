"""Losses against NumPy and scipy, at ordinary and at extreme values."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax, softmax, xlogy

from dcp_tf.errors import UsageError
from dcp_tf.training import ClassificationLoss, Distillation, distillation_weight, soft_targets

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype("float32") * 3
LABELS = np.array([0, 3, 2, 2, 1, 0])
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
SOFT = softmax(RNG.normal(size=(6, 4)), axis=-1).astype("float32")


def outputs_of(kind, logits):
    return {"logits": logits, "softmax": softmax(logits, axis=-1), "sigmoid": expit(logits)}[kind].astype("float32")


def binary_cross_entropy(targets, probabilities):
    probabilities = probabilities.astype("float64")
    return -np.mean(xlogy(targets, probabilities) + xlogy(1 - targets, 1 - probabilities))


@pytest.mark.parametrize("targets", [ONE_HOT, SOFT], ids=["one-hot", "soft"])
@pytest.mark.parametrize("kind", ["logits", "softmax"])
def test_cross_entropy_equals_the_formula(kind, targets):
    value = ClassificationLoss(kind)(targets, outputs_of(kind, LOGITS))
    expected = -np.mean(np.sum(targets * log_softmax(LOGITS.astype("float64"), axis=-1), axis=-1))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("targets", [ONE_HOT, SOFT, (SOFT > 0.2).astype("int32")], ids=["one-hot", "soft", "multi"])
def test_sigmoid_outputs_are_yes_no_questions(targets):
    value = ClassificationLoss("sigmoid")(targets, outputs_of("sigmoid", LOGITS))
    np.testing.assert_allclose(value, binary_cross_entropy(targets, expit(LOGITS)), rtol=1e-5)


@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
def test_a_single_output_is_one_yes_no_question(kind):
    labels, logits = np.array([0, 1, 1, 0, 1, 0]), LOGITS[:, :1]
    loss = ClassificationLoss(kind)
    value = loss(labels, outputs_of(kind, logits))
    np.testing.assert_allclose(value, binary_cross_entropy(labels[:, None], expit(logits)), rtol=1e-5)
    np.testing.assert_array_equal(loss.accuracy(labels, outputs_of(kind, logits)), (logits[:, 0] > 0) == (labels == 1))


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
@pytest.mark.parametrize("form", [LABELS.astype("int32"), LABELS.astype("uint8"), LABELS[:, None]], ids=str)
def test_whole_number_labels_equal_one_hot_labels(kind, form):
    loss, outputs = ClassificationLoss(kind), outputs_of(kind, LOGITS)
    assert float(loss(form, outputs)) == float(loss(ONE_HOT, outputs))
    np.testing.assert_array_equal(loss.accuracy(form, outputs), LOGITS.argmax(-1) == LABELS)


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e30])
def test_value_and_gradient_stay_finite(kind, scale):
    logits = tf.constant(np.sign(LOGITS) * scale, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        outputs = {"logits": tf.identity, "softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[kind](logits)
        loss = ClassificationLoss(kind)
        value = loss(LABELS, outputs) + Distillation(loss)(LABELS, outputs, np.roll(ONE_HOT, 1, axis=0))
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, logits)).all()


def test_a_confident_wrong_softmax_still_learns():
    logits = tf.constant([[0.0, 40.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = ClassificationLoss("softmax")([0], tf.nn.softmax(logits))
    np.testing.assert_allclose(tape.gradient(value, logits), [[-1.0, 1.0]], rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["logits", "softmax"])
def test_distillation_equals_the_formula(kind, weight):
    temperature, teacher = 3.0, RNG.normal(size=(6, 4)) * 2
    value = Distillation(ClassificationLoss(kind), weight, temperature)(
        LABELS, outputs_of(kind, LOGITS), softmax(teacher, axis=-1)
    )
    log_teacher, log_student = log_softmax(teacher / temperature, axis=-1), log_softmax(LOGITS / temperature, axis=-1)
    divergence = np.mean(np.sum(np.exp(log_teacher) * (log_teacher - log_student), axis=-1))
    cross_entropy = -np.mean(log_softmax(LOGITS, axis=-1)[np.arange(6), LABELS])
    expected = (1 - weight) * cross_entropy + weight * temperature**2 * divergence
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_distillation_of_yes_no_outputs_equals_the_formula():
    teacher, temperature = RNG.normal(size=(6, 4)), 2.0
    value = Distillation(ClassificationLoss("sigmoid"), 1.0, temperature)(ONE_HOT, expit(LOGITS), expit(teacher))
    t, s = expit(teacher / temperature), expit(LOGITS.astype("float64") / temperature)
    divergence = np.mean(t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s)))
    np.testing.assert_allclose(value, temperature**2 * divergence, rtol=1e-4)


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_a_student_equal_to_its_teacher_has_no_distillation_loss(kind):
    outputs = outputs_of(kind, LOGITS)
    teacher = soft_targets(lambda images, training: images, kind)(outputs)
    np.testing.assert_allclose(Distillation(ClassificationLoss(kind), 1.0)(LABELS, outputs, teacher), 0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "labels", "outputs"),
    [
        ("logits", np.zeros((6, 3)), LOGITS),
        ("logits", np.full(6, 0.5, "float32"), LOGITS),
        ("logits", LABELS, np.zeros((6, 2, 2, 4), "float32")),
        ("softmax", LABELS, np.ones((6, 1), "float32")),
    ],
    ids=["wrong width", "real-valued classes", "a map", "softmax of one"],
)
def test_labels_and_outputs_that_do_not_fit_are_refused(kind, labels, outputs):
    with pytest.raises(UsageError):
        ClassificationLoss(kind)(labels, outputs)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 0], [-1, 0, 0, 0, 0, 0]])
def test_a_label_that_names_no_class_is_refused(labels):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0\.\.3"):
        ClassificationLoss("logits")(labels, LOGITS)


def test_unknown_kinds_and_impossible_distillation_are_refused():
    with pytest.raises(UsageError, match="probs"):
        ClassificationLoss("probs")
    with pytest.raises(UsageError, match="weight"):
        Distillation(ClassificationLoss("logits"), weight=1.5)
    with pytest.raises(UsageError, match="temperature"):
        Distillation(ClassificationLoss("logits"), temperature=0.0)


def test_a_half_is_learnt_from_the_baseline_unless_told_otherwise():
    assert distillation_weight(ClassificationLoss("logits")) == 0.5
    assert distillation_weight(ClassificationLoss("logits"), 0.0) == 0.0
    assert distillation_weight(ClassificationLoss("logits"), 0.9) == 0.9
    assert distillation_weight(lambda labels, outputs: 0.0) == 0.0
