"""Accuracy over a whole data set, and how often two models say the same."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError

# Keeps the logarithm of a probability finite, as Keras' losses do.
_EPSILON = 1e-7
_KINDS = ("logits", "softmax", "sigmoid")


def accuracy(
    model_or_predict: keras.Model | Callable,
    batches: Iterable,
    *,
    top5: bool = False,
    outputs_kind: str | None = None,
) -> dict[str, float]:
    """Measures a classifier on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images (B, H, W, C) to outputs (B, K) or (B, 1).
        batches: pairs of images and integer labels (B,), such as `ImageSplit.batches` gives.
        top5: whether to count how often the label is among the five largest outputs (left out below six outputs).
        outputs_kind: "logits", "softmax" or "sigmoid", as `dcp_tf.models.outputs_kind` says. Given, the mean
            cross-entropy is measured too (of several sigmoid outputs, summed over them). A model with one output needs
            it: the second class is what lies above .5, or above 0 for logits.

    Returns:
        `top1`, and perhaps `top5` and `loss`; accuracies as fractions of 1.

    Raises:
        UsageError: there are no batches or no labels, or the labels do not fit the outputs.
        RunError: an output is NaN.
    """
    predict = predict_function(model_or_predict)
    count, hits, hits5, loss, width = 0, 0, 0, 0.0, 0
    for batch in progress.bar(batches, what="evaluating", unit="batch"):
        images, labels = _labelled(batch)
        outputs = _as_matrix(predict(images))
        _check_batch(outputs, labels)
        width = outputs.shape[1]
        count += len(labels)
        hits += int((top1_classes(outputs, outputs_kind) == labels).sum())
        if top5 and width >= 6:
            hits5 += int(_in_top5(outputs, labels).sum())
        if outputs_kind is not None:
            loss += float(_cross_entropy(outputs, labels, outputs_kind).sum())
    if not count:
        raise UsageError("there are no images to measure on")
    measured = {"top1": hits / count}
    if top5 and width >= 6:
        measured["top5"] = hits5 / count
    if outputs_kind is not None:
        measured["loss"] = loss / count
    return measured


def agreement(outputs_a: np.ndarray, outputs_b: np.ndarray, *, outputs_kind: str | None = None) -> float:
    """Returns for which fraction of the images two models give the same class.

    Args:
        outputs_a: (N, K) or (N, 1).
        outputs_b: the other model's, of the same shape.
        outputs_kind: as in `accuracy`; needed for one output.

    Raises:
        UsageError: the shapes differ, or there are no images.
        RunError: an output is NaN.
    """
    a, b = _as_matrix(outputs_a), _as_matrix(outputs_b)
    if a.shape != b.shape or not len(a):
        raise UsageError(
            f"outputs of shape {a.shape} and {b.shape} cannot be compared; they must be equal and not empty"
        )
    return float((top1_classes(a, outputs_kind) == top1_classes(b, outputs_kind)).mean())


def top1_classes(outputs: np.ndarray, outputs_kind: str | None = None) -> np.ndarray:
    """Returns the class (N,) that outputs (N, K) or (N, 1) stand for; of equal outputs the first counts.

    Raises:
        UsageError: there is one output, and it is unknown whether it is a logit or a probability.
        RunError: an output is NaN.
    """
    if outputs_kind not in (None, *_KINDS):
        raise UsageError(f"unknown kind of outputs {outputs_kind!r}; choose one of {', '.join(_KINDS)}")
    outputs = _as_matrix(outputs)
    if np.isnan(outputs).any():
        raise RunError("the model gives NaN as an output; check its weights and the normalization of the images")
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    if outputs_kind not in ("logits", "sigmoid"):
        raise UsageError(
            f"a model with one output needs outputs_kind 'logits' or 'sigmoid' to tell two classes apart, "
            f"received {outputs_kind!r}"
        )
    return (outputs[:, 0] > (0.5 if outputs_kind == "sigmoid" else 0.0)).astype(np.int64)


def predict_function(model_or_predict: keras.Model | Callable) -> Callable:
    """A function from images to outputs: a Keras model compiled in inference mode, anything else as it is."""
    """What maps images to outputs: a model in inference mode, compiled, or the function that was given."""
    if not isinstance(model_or_predict, keras.Model):
        return model_or_predict
    return tf.function(lambda images: model_or_predict(images, training=False), reduce_retracing=True)


def _labelled(batch) -> tuple:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise UsageError("accuracy needs labels: each batch must be a pair of images and labels")
    return batch[0], np.asarray(batch[1])


def _as_matrix(outputs) -> np.ndarray:
    if isinstance(outputs, (dict, list, tuple)):
        raise UsageError(f"expected one output per image, received {len(outputs)}; measure each output on its own")
    outputs = np.asarray(outputs, np.float32)
    return outputs.reshape(len(outputs), -1) if outputs.size else outputs.reshape(len(outputs), 0)


def _check_batch(outputs: np.ndarray, labels: np.ndarray) -> None:
    if labels.shape != (len(outputs),) or not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(
            f"expected {len(outputs)} integer labels for as many outputs, received {labels.dtype} of {labels.shape}"
        )
    classes = max(2, outputs.shape[1])
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise UsageError(
            f"the labels reach from {labels.min()} to {labels.max()}, but the model has {outputs.shape[1]} outputs"
        )


def _in_top5(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    own = np.take_along_axis(outputs, labels[:, None], axis=1)
    # Equal outputs rank in the order of their classes, as in argmax.
    before = (outputs > own) | ((outputs == own) & (np.arange(outputs.shape[1]) < labels[:, None]))
    return before.sum(axis=1) < 5


def _cross_entropy(outputs: np.ndarray, labels: np.ndarray, outputs_kind: str) -> np.ndarray:
    """The cross-entropy (N,) of the labels, in nats."""
    outputs = outputs.astype(np.float64)
    if outputs.shape[1] == 1:
        if outputs_kind == "logits":
            return np.logaddexp(0.0, np.where(labels == 1, -outputs[:, 0], outputs[:, 0]))
        own = np.where(labels == 1, outputs[:, 0], 1.0 - outputs[:, 0])
        return -np.log(np.clip(own, _EPSILON, 1.0))
    own = np.take_along_axis(outputs, labels[:, None], axis=1)[:, 0]
    if outputs_kind == "logits":
        return np.logaddexp.reduce(outputs, axis=1) - own
    if outputs_kind == "softmax":
        return -np.log(np.clip(own, _EPSILON, 1.0))
    others = np.log(np.clip(1.0 - outputs, _EPSILON, 1.0)).sum(axis=1) - np.log(np.clip(1.0 - own, _EPSILON, 1.0))
    return -np.log(np.clip(own, _EPSILON, 1.0)) - others
