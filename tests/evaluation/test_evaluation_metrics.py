import keras
import numpy as np
import pytest

from dcp_tf import evaluation
from dcp_tf.errors import RunError, UsageError

RNG = np.random.default_rng(0)


def in_batches(outputs, labels, size=7):
    """Batches whose "images" are the outputs themselves, so that predict is the identity."""
    return [(outputs[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def identity(outputs):
    return outputs


@pytest.fixture
def outputs():
    return RNG.normal(size=(50, 10)).astype(np.float32)


@pytest.fixture
def labels():
    return RNG.integers(0, 10, 50)


def test_top1_and_top5_over_the_whole_set(outputs, labels):
    measured = evaluation.accuracy(identity, in_batches(outputs, labels), top5=True)
    order = np.argsort(-outputs, axis=1)
    assert measured == {
        "top1": np.mean(order[:, 0] == labels),
        "top5": np.mean((order[:, :5] == labels[:, None]).any(1)),
    }
    assert set(evaluation.accuracy(identity, in_batches(outputs, labels))) == {"top1"}


def test_a_smaller_last_batch_counts_by_its_images(outputs, labels):
    whole = evaluation.accuracy(identity, [(outputs, labels)], outputs_kind="logits")
    for size in (1, 7, 49):
        parts = evaluation.accuracy(identity, in_batches(outputs, labels, size), outputs_kind="logits")
        assert parts == pytest.approx(whole, rel=1e-9)


def test_top5_needs_six_outputs(outputs, labels):
    few = evaluation.accuracy(identity, in_batches(outputs[:, :5], labels % 5), top5=True)
    assert set(few) == {"top1"}


def test_equal_outputs_count_for_the_first_classes_only():
    labels = np.arange(10)
    measured = evaluation.accuracy(identity, [(np.zeros((10, 10), np.float32), labels)], top5=True)
    assert measured == {"top1": 0.1, "top5": 0.5}


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_the_loss_is_the_cross_entropy_of_keras(outputs, labels, kind):
    one_hot = np.eye(10)[labels]
    if kind == "logits":
        expected = keras.losses.categorical_crossentropy(one_hot, outputs, from_logits=True)
    elif kind == "softmax":
        outputs = np.asarray(keras.ops.softmax(outputs))
        expected = keras.losses.categorical_crossentropy(one_hot, outputs)
    else:
        outputs = np.asarray(keras.ops.sigmoid(outputs))
        expected = keras.losses.binary_crossentropy(one_hot, outputs) * 10
    measured = evaluation.accuracy(identity, in_batches(outputs, labels), outputs_kind=kind)
    assert measured["loss"] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize(("kind", "outputs"), [("logits", [-1.0, 0.2, 3.0, -4.0]), ("sigmoid", [0.4, 0.51, 0.9, 0.1])])
def test_one_output_tells_two_classes_apart(kind, outputs):
    outputs, labels = np.array(outputs, np.float32)[:, None], np.array([0, 1, 0, 0])
    measured = evaluation.accuracy(identity, [(outputs, labels)], outputs_kind=kind, top5=True)
    expected = keras.losses.binary_crossentropy(labels[:, None], outputs, from_logits=kind == "logits")
    assert measured == {"top1": 0.75, "loss": pytest.approx(np.mean(expected), rel=1e-5)}
    assert evaluation.accuracy(identity, [(outputs[:, 0], labels)], outputs_kind=kind)["top1"] == 0.75
    with pytest.raises(UsageError, match="needs outputs_kind"):
        evaluation.accuracy(identity, [(outputs, labels)])


def test_confident_mistakes_give_a_finite_loss():
    for kind, outputs in (("softmax", np.eye(3)), ("logits", np.eye(3) * 1e4), ("sigmoid", np.eye(3))):
        measured = evaluation.accuracy(identity, [(outputs, np.array([1, 2, 0]))], outputs_kind=kind)
        assert np.isfinite(measured["loss"])


def test_a_keras_model_is_run_in_inference_mode(labels):
    inputs = keras.Input((10,))
    model = keras.Model(inputs, keras.layers.Dropout(0.9)(inputs))
    images = RNG.normal(size=(50, 10)).astype(np.float32)
    assert evaluation.accuracy(model, in_batches(images, labels)) == evaluation.accuracy(
        identity, in_batches(images, labels)
    )


def test_trailing_dimensions_of_size_one_are_dropped(outputs, labels):
    maps = outputs[:, None, None, :]
    assert evaluation.accuracy(identity, [(maps, labels)]) == evaluation.accuracy(identity, [(outputs, labels)])


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], UsageError, "no images"),
        ([np.zeros((3, 4), np.float32)], UsageError, "needs labels"),
        ([(np.zeros((3, 4)), np.array([0, 1, 4]))], UsageError, "from 0 to 4, but the model has 4 outputs"),
        ([(np.zeros((3, 4)), np.array([0, 1, -1]))], UsageError, "from -1"),
        ([(np.zeros((3, 4)), np.array([0.0, 1.0, 2.0]))], UsageError, "integer labels"),
        ([(np.zeros((3, 4)), np.array([0, 1]))], UsageError, "3 integer labels"),
        ([(np.full((3, 4), np.nan), np.array([0, 1, 2]))], RunError, "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(batches, error, message):
    with pytest.raises(error, match=message):
        evaluation.accuracy(identity, batches)


def test_several_outputs_are_refused():
    with pytest.raises(UsageError, match="one output per image"):
        evaluation.accuracy(lambda images: [images, images], [(np.zeros((3, 4)), np.array([0, 1, 2]))])


def test_agreement(outputs):
    assert evaluation.agreement(outputs, outputs * 3 + 1) == 1.0
    other = outputs.copy()
    other[:10] = np.roll(other[:10], 1, axis=1)
    assert evaluation.agreement(outputs, other) == 0.8
    single = np.array([[0.2], [0.7], [0.6]])
    assert evaluation.agreement(single, single[::-1], outputs_kind="sigmoid") == pytest.approx(1 / 3)
    assert evaluation.agreement(single, single[::-1], outputs_kind="logits") == 1.0


def test_agreement_refuses_what_cannot_be_compared(outputs):
    with pytest.raises(UsageError, match=r"\(50, 10\) and \(50, 9\)"):
        evaluation.agreement(outputs, outputs[:, :9])
    with pytest.raises(UsageError, match="not empty"):
        evaluation.agreement(outputs[:0], outputs[:0])
    with pytest.raises(UsageError, match="needs outputs_kind"):
        evaluation.agreement(outputs[:, :1], outputs[:, :1])
    with pytest.raises(UsageError, match="unknown kind"):
        evaluation.agreement(outputs, outputs, outputs_kind="probabilities")
