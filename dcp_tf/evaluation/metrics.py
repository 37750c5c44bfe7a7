"""Accuracy over a whole data set, and how often two models agree."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.graph_function import graph_function

# Keeps the logarithm of a probability finite, as Keras' losses do.
_EPSILON = 1e-7
_KINDS = ("logits", "softmax", "sigmoid")
_NAN = "the model outputs NaN; check its weights and the normalization of the images"


def accuracy(
    model_or_predict: keras.Model | Callable,
    batches: Iterable,
    *,
    top5: bool = False,
    outputs_kind: str | None = None,
) -> dict[str, float]:
    """Evaluates a classifier on all batches.

    Args:
        model_or_predict: a Keras model, or anything that maps images (B, H, W, C) to outputs (B, K) or (B, 1).
        batches: of images and integer labels (B,), such as `ImageSplit.batches` gives, perhaps with sample weights.
        top5: whether to measure how often the label is among the five largest outputs (skipped below six outputs).
        outputs_kind: "logits", "softmax" or "sigmoid", as `dcp_tf.models.outputs_kind` says. Given, the mean
            cross-entropy is measured too (summed over several sigmoid outputs). A model with one output needs it: the
            second class is any output above .5, or above 0 for logits.

    Returns:
        `top1`, and `top5` and `loss` if they were measured; accuracies as fractions of 1. Sample weights count in the
        loss.

    Raises:
        UsageError: there are no batches or no labels, or the labels do not fit the outputs.
        RunError: an output is NaN.
    """
    sums: collections.Counter[str] = collections.Counter()
    count = 0
    for outputs, labels, weights in outputs_and_labels(model_or_predict, batches, with_weights=True):
        outputs = _as_matrix(outputs)
        _check_batch(outputs, labels)
        count += len(labels)
        sums["top1"] += int((top1_classes(outputs, outputs_kind) == labels).sum())
        if top5 and outputs.shape[1] >= 6:
            sums["top5"] += int(_in_top5(outputs, labels).sum())
        if outputs_kind is not None:
            sums["loss"] += float((weights * _cross_entropy(outputs, labels, outputs_kind)).sum())
    return {name: value / count for name, value in sums.items()}


def agreement(outputs_a: np.ndarray, outputs_b: np.ndarray, *, outputs_kind: str | None = None) -> float:
    """Returns the fraction of images for which two models predict the same class.

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
    """Returns the classes (N,) that outputs (N, K) or (N, 1) predict; the first one if outputs are equal.

    Raises:
        UsageError: there is one output, and `outputs_kind` does not say whether it is a logit or a probability.
        RunError: an output is NaN.
    """
    if outputs_kind not in (None, *_KINDS):
        raise UsageError(f"unknown kind of outputs {outputs_kind!r}; choose one of {', '.join(_KINDS)}")
    outputs = _as_matrix(outputs)
    if np.isnan(outputs).any():
        raise RunError(_NAN)
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    if outputs_kind not in ("logits", "sigmoid"):
        raise UsageError(
            f"a model with one output needs outputs_kind 'logits' or 'sigmoid' to distinguish two classes, "
            f"received {outputs_kind!r}"
        )
    return (outputs[:, 0] > (0.5 if outputs_kind == "sigmoid" else 0.0)).astype(np.int64)


def predict_function(model_or_predict: keras.Model | Callable) -> Callable:
    """A function from images to outputs: a Keras model compiled in inference mode, anything else as it is."""
    if not isinstance(model_or_predict, keras.Model):
        return model_or_predict
    return graph_function(functools.partial(model_or_predict, training=False), reduce_retracing=True)


def outputs_and_labels(
    model_or_predict: keras.Model | Callable, batches: Iterable, with_weights: bool = False
) -> Iterator[tuple]:
    """The outputs of a model and the labels, batch by batch, with a progress bar.

    Args:
        model_or_predict: a Keras model, or anything that maps images to outputs.
        batches: of (images, labels), perhaps with sample weights.
        with_weights: whether to give the sample weights too, 1 where there are none.

    Raises:
        UsageError: there are no batches or no labels, or the model has several outputs.
        RunError: an output is NaN.
    """
    predict = predict_function(model_or_predict)
    empty = True
    for batch in progress.bar(batches, what="evaluating", unit="batch"):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise UsageError("evaluation needs labels: each batch must be a pair of images and labels")
        outputs = single_output(predict(batch[0]))
        if np.isnan(outputs).any():
            raise RunError(_NAN)
        empty = False
        weights = np.asarray(batch[2]) if len(batch) == 3 else 1.0
        yield (outputs, np.asarray(batch[1]), weights)[: 2 + with_weights]
    if empty:
        raise UsageError("there are no images to evaluate on")


def single_output(outputs: Any) -> np.ndarray:
    """Outputs as float32; raises UsageError if a model gives several."""
    if isinstance(outputs, (dict, list, tuple)):
        raise UsageError(f"expected one output per image, received {len(outputs)} outputs; evaluate each alone")
    return np.asarray(outputs, np.float32)


def _as_matrix(outputs: Any) -> np.ndarray:
    outputs = single_output(outputs)
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
