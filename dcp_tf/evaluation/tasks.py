"""Metrics of models that do not predict one class per image: several labels, numbers, maps, embeddings."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.evaluation.metrics import outputs_and_labels

_BLOCK = 512  # rows of a similarity matrix in memory at one time


def measure_multilabel(
    model_or_predict: keras.Model | Callable, batches: Iterable, threshold: float = 0.5
) -> dict[str, float]:
    """Evaluates yes / no answers on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images to scores (B, K).
        batches: pairs of images and 0 / 1 labels (B, K).
        threshold: above it a score says yes: .5 for probabilities, 0 for logits.

    Returns:
        `map`, the mean over the classes of the average precision (classes without a positive label are left out), and
        `f1`, of all answers taken together.

    Raises:
        UsageError: there are no batches or labels, or they do not fit the outputs, or no label is positive.
        RunError: an output is NaN.
    """
    from sklearn.metrics import average_precision_score, f1_score

    pairs = list(outputs_and_labels(model_or_predict, batches))
    scores, labels = (np.concatenate(side) for side in zip(*pairs, strict=True))
    _require_equal_shapes(scores, labels)
    scores, labels = (values.reshape(-1, values.shape[-1]) for values in (scores, labels > 0.5))
    present = labels.any(axis=0)
    if not present.any():
        raise UsageError("no label is positive; give data with positive labels")
    precision = [average_precision_score(labels[:, k], scores[:, k]) for k in np.flatnonzero(present)]
    return {
        "map": float(np.mean(precision)),
        "f1": float(f1_score(labels.ravel(), scores.ravel() > threshold, zero_division=0.0)),
    }


def measure_regression(model_or_predict: keras.Model | Callable, batches: Iterable) -> dict[str, float]:
    """Evaluates predicted numbers on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images to numbers (B, ...).
        batches: pairs of images and labels of the same shape, of which a last axis of 1 may be left out.

    Returns:
        `mse` and `mae`, over all values, and `r2`, the explained fraction of the labels' variance (about the mean of
        each entry of the last axis); it is left out if they do not vary.

    Raises:
        UsageError: there are no batches or labels, or they do not fit the outputs.
        RunError: an output is NaN.
    """
    count, squares, absolutes = 0, 0.0, 0.0
    first = total = total_squares = np.zeros(())
    for outputs, labels in outputs_and_labels(model_or_predict, batches):
        labels = labels.reshape(outputs.shape) if (*labels.shape, 1) == outputs.shape else labels
        _require_equal_shapes(outputs, labels)
        outputs, labels = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (outputs, labels))
        if not count:
            first = labels[0]  # sums of differences from it keep precision for large labels
        count += len(labels)
        squares += float(np.square(outputs - labels).sum())
        absolutes += float(np.abs(outputs - labels).sum())
        total = total + (labels - first).sum(0)
        total_squares = total_squares + np.square(labels - first).sum(0)
    values = count * total.size
    spread = float((total_squares - np.square(total) / count).sum())
    measured = {"mse": squares / values, "mae": absolutes / values}
    return measured | ({"r2": 1.0 - squares / spread} if spread > 0 else {})


def measure_dense(
    model_or_predict: keras.Model | Callable,
    batches: Iterable,
    *,
    independent: bool = False,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Evaluates one answer for each position of an image on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images to scores (B, ..., K).
        batches: pairs of images and labels: class numbers (B, ...), or rows (B, ..., K).
        independent: whether each score is a separate yes / no answer; else the largest one is the answer. A single
            output is always a yes / no answer, which counts as two classes.
        threshold: above it a score says yes: .5 for probabilities, 0 for logits.

    Returns:
        `mean_iou`, the mean over the classes of intersection / union over the whole set (classes in neither labels
        nor answers are left out), and `pixel_accuracy`, the fraction of right answers.

    Raises:
        UsageError: there are no batches or labels, or they do not fit the outputs.
        RunError: an output is NaN.
    """
    both = labelled = answered = right = total = 0
    for outputs, labels in outputs_and_labels(model_or_predict, batches):
        answers, truth = _answers(outputs, labels, independent, threshold)
        both = both + _per_class(answers & truth)
        labelled, answered = labelled + _per_class(truth), answered + _per_class(answers)
        # Exclusive answers of one position count once, right or wrong.
        right += int((answers == truth).all(-1).sum()) if not independent else int((answers == truth).sum())
        total += answers[..., 0].size if not independent else answers.size
    union = labelled + answered - both
    present = union > 0
    return {"mean_iou": float(np.mean(both[present] / union[present])), "pixel_accuracy": right / total}


def measure_sequences(
    model_or_predict: keras.Model | Callable,
    batches: Iterable,
    *,
    independent: bool = False,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Evaluates one answer for each step of a sequence, such as a character or a frame, on all batches.

    The arguments are those of `measure_dense`, outputs being (B, T, K).

    Returns:
        `step_accuracy`, the fraction of right answers, and `sequence_accuracy`, the fraction of sequences whose answers
        are all right.

    Raises:
        UsageError: there are no batches or labels, or they do not fit the outputs.
        RunError: an output is NaN.
    """
    right: list[np.ndarray] = []
    for outputs, labels in outputs_and_labels(model_or_predict, batches):
        answers, truth = _answers(outputs, labels, independent, threshold)
        right += list((answers == truth) if independent else (answers == truth).all(-1))
    return {
        "step_accuracy": sum(int(steps.sum()) for steps in right) / sum(steps.size for steps in right),
        "sequence_accuracy": float(np.mean([steps.all() for steps in right])),
    }


def recall_at_1(model_or_predict: keras.Model | Callable, batches: Iterable) -> dict[str, float]:
    """Evaluates embeddings on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images to embeddings (B, E).
        batches: pairs of images and class numbers (B,).

    Returns:
        `recall_at_1`, the fraction of images whose nearest other image, by cosine, is of the same class. Images that
        are alone in their class are left out.

    Raises:
        UsageError: there are no batches or labels, or no two images of one class.
        RunError: an output is NaN.
    """
    pairs = list(outputs_and_labels(model_or_predict, batches))
    embeddings, labels = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),):
        raise UsageError(f"expected one class number for each embedding, received {labels.shape}, {embeddings.shape}")
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    asked = np.flatnonzero(counts[inverse] > 1)
    if not len(asked):
        raise UsageError("every class has a single image; give at least two images of a class")
    embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    hits = 0
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        cosines = embeddings[block] @ embeddings.T
        cosines[np.arange(len(block)), block] = -np.inf
        hits += int((labels[cosines.argmax(1)] == labels[block]).sum())
    return {"recall_at_1": hits / len(asked)}


def _answers(
    outputs: np.ndarray, labels: np.ndarray, independent: bool, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The answers and the truth, (B, ..., K) of bool."""
    classes = outputs.shape[-1]
    if labels.shape == outputs.shape[:-1]:
        labels = labels[..., None]
    if classes == 1:
        _require_equal_shapes(outputs, labels)
        answers, truth = outputs > threshold, labels > 0.5
        return np.concatenate([~answers, answers], -1), np.concatenate([~truth, truth], -1)
    numbers = np.arange(classes)
    if labels.shape == (*outputs.shape[:-1], 1):
        truth = labels == numbers
    else:
        _require_equal_shapes(outputs, labels)
        truth = labels > 0.5 if independent else labels.argmax(-1)[..., None] == numbers
    return outputs > threshold if independent else outputs.argmax(-1)[..., None] == numbers, truth


def _per_class(answers: np.ndarray) -> np.ndarray:
    return answers.reshape(-1, answers.shape[-1]).sum(0, dtype=np.int64)


def _require_equal_shapes(outputs: np.ndarray, labels: np.ndarray) -> None:
    if outputs.shape != labels.shape:
        raise UsageError(f"expected labels of the outputs' shape {outputs.shape}, received {labels.shape}")
