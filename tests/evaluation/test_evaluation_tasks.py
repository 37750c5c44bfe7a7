"""Figures of models that are no classifiers, against their definitions."""

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, r2_score

from dcp_tf import evaluation
from dcp_tf.errors import RunError, UsageError

RNG = np.random.default_rng(0)


def in_batches(outputs, labels, size=7):
    """Batches whose "images" are the outputs themselves, so that predict is the identity."""
    return [(outputs[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]


def identity(outputs):
    return outputs


def test_several_labels_by_mean_average_precision_and_f1():
    scores, labels = RNG.uniform(size=(50, 4)), RNG.integers(0, 2, (50, 4))
    labels[:, 3] = 0  # nothing to find in this class
    measured = evaluation.measure_multilabel(identity, in_batches(scores, labels))
    expected = average_precision_score(labels[:, :3], scores[:, :3], average="macro")
    assert measured["map"] == pytest.approx(expected, rel=1e-6)
    assert measured["f1"] == pytest.approx(f1_score(labels.ravel(), scores.ravel() > 0.5))


@pytest.mark.parametrize("shape", [(50, 3), (50, 1), (50, 4, 5, 2)])
def test_numbers_by_squared_and_absolute_errors(shape):
    labels = RNG.normal(size=shape) * 10 + 1e4
    outputs = (labels + RNG.normal(size=shape)).astype(np.float32)
    measured = evaluation.measure_regression(identity, in_batches(outputs, labels))
    assert measured["mse"] == pytest.approx(np.mean((outputs - labels) ** 2), rel=1e-6)
    assert measured["mae"] == pytest.approx(np.mean(np.abs(outputs - labels)), rel=1e-6)
    flat = labels.reshape(-1, shape[-1]), outputs.reshape(-1, shape[-1])
    assert measured["r2"] == pytest.approx(r2_score(*flat, multioutput="variance_weighted"), rel=1e-6)


def test_labels_of_one_output_may_leave_out_its_axis():
    outputs = RNG.normal(size=(20, 1)).astype(np.float32)
    measured = evaluation.measure_regression(identity, in_batches(outputs, outputs[:, 0]))
    assert measured == {"mse": 0.0, "mae": 0.0, "r2": 1.0}
    assert "r2" not in evaluation.measure_regression(identity, in_batches(outputs, np.ones(20)))


@pytest.mark.parametrize("form", ["numbers", "a last axis", "rows"])
def test_maps_of_classes_by_mean_iou(form):
    outputs, labels = RNG.normal(size=(20, 4, 5, 3)).astype(np.float32), RNG.integers(0, 3, (20, 4, 5))
    metric = keras.metrics.MeanIoU(num_classes=3)
    metric.update_state(labels, outputs.argmax(-1))
    given = {"numbers": labels, "a last axis": labels[..., None], "rows": np.eye(3)[labels]}[form]
    measured = evaluation.measure_dense(identity, in_batches(outputs, given))
    assert measured["mean_iou"] == pytest.approx(float(metric.result()), rel=1e-6)
    assert measured["pixel_accuracy"] == pytest.approx((outputs.argmax(-1) == labels).mean())


def test_maps_of_yes_and_no_count_both_answers():
    outputs, labels = RNG.uniform(size=(20, 4, 5, 1)), RNG.integers(0, 2, (20, 4, 5))
    found = outputs[..., 0] > 0.5
    metric = keras.metrics.MeanIoU(num_classes=2)
    metric.update_state(labels, found.astype(int))
    measured = evaluation.measure_dense(identity, in_batches(outputs, labels), independent=True)
    assert measured["mean_iou"] == pytest.approx(float(metric.result()), rel=1e-6)
    assert measured["pixel_accuracy"] == pytest.approx((found == labels).mean())


def test_classes_that_do_not_occur_do_not_count():
    outputs = np.zeros((2, 3, 3, 5), np.float32)
    outputs[..., 1] = 1
    measured = evaluation.measure_dense(identity, [(outputs, np.ones((2, 3, 3), int))])
    assert measured == {"mean_iou": 1.0, "pixel_accuracy": 1.0}


def test_embeddings_by_their_nearest_neighbor():
    embeddings = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3], [-1, 0], [1, 0.2]], np.float32)
    labels = np.array([0, 0, 1, 1, 2, 1])  # the fifth is alone in its class, the last is nearest to the first class
    measured = evaluation.recall_at_1(identity, in_batches(embeddings, labels, 2))
    assert measured == {"recall_at_1": 4 / 5}


@pytest.mark.parametrize(
    ("measure", "outputs", "labels", "line"),
    [
        (evaluation.measure_regression, np.zeros((4, 2)), np.zeros((4, 3)), "shape"),
        (evaluation.measure_multilabel, np.zeros((4, 2)), np.zeros(4), "shape"),
        (evaluation.measure_multilabel, np.zeros((4, 2)), np.zeros((4, 2)), "positive"),
        (evaluation.measure_dense, np.zeros((4, 3, 3, 2)), np.zeros((4, 2, 2)), "shape"),
        (evaluation.recall_at_1, np.zeros((4, 2)), np.arange(4), "a single image"),
        (evaluation.recall_at_1, np.zeros((4, 2)), np.zeros((4, 2)), "class number"),
    ],
)
def test_what_cannot_be_measured_is_one_clear_line(measure, outputs, labels, line):
    with pytest.raises(UsageError, match=line):
        measure(identity, [(outputs, labels)])


@pytest.mark.parametrize(
    "measure", [evaluation.measure_regression, evaluation.measure_multilabel, evaluation.measure_dense]
)
def test_no_batches_and_nan_outputs(measure):
    with pytest.raises(UsageError, match="no images"):
        measure(identity, [])
    with pytest.raises(UsageError, match="labels"):
        measure(identity, [np.zeros((4, 2))])
    with pytest.raises(RunError, match="NaN"):
        measure(identity, [(np.full((4, 2), np.nan), np.ones((4, 2)))])
