"""What the losses of a selection compare outputs with: labels, and sample weights where there are some."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from keras import tree

from dcp_tf.data import split_batch
from dcp_tf.models.signature import pack
from dcp_tf.training.losses import Loss, loss_of

__all__ = [
    "Weighted",
    "complete_labels",
    "distance_targets",
    "loss_on",
    "samples_in",
    "split_batch",
    "targets_of",
    "with_scaled_gradients",
]


class Weighted(NamedTuple):
    """Labels with sample weights.

    Attributes:
        labels: of a batch; for several outputs by their names.
        weights: nested like the labels; an output whose samples all count 1 may be missing.
    """

    labels: Any
    weights: Any


def complete_labels(labels: Any, answers: Any) -> Any:
    """The labels, with a model's own answers where they are missing: all, or those of single outputs."""
    if labels is None or answers is None:
        return answers if labels is None else labels
    return {**answers, **labels} if isinstance(labels, dict) else labels


def targets_of(inputs: Any, labels: Any, weights: Any, teacher: Callable | None) -> Any:
    """The labels of a batch, or `Weighted` ones; a teacher answers where labels are missing.

    Args:
        inputs: of the batch.
        labels: of the batch, or None.
        weights: of its samples, or None.
        teacher: from inputs to labels; None: nothing is missing, or not needed.
    """
    labels = complete_labels(labels, None if teacher is None else teacher(inputs))
    return labels if weights is None else Weighted(labels, weights)


def loss_on(loss: Loss, targets: Any, outputs: Any) -> tf.Tensor:
    """A loss of labels that may be `Weighted`, float32."""
    labels, weights = targets if isinstance(targets, Weighted) else (targets, None)
    return loss_of(loss, labels, outputs, weights=weights)


def distance_targets(loss: Loss, targets: Any, answers: Any) -> Any:
    """What the `distance` of a loss compares outputs with: a model's answers, `Weighted` as the labels are."""
    labels, weights = targets if isinstance(targets, Weighted) else (targets, None)
    answers = loss.distance_targets(labels, answers) if hasattr(loss, "distance_targets") else answers
    return answers if weights is None else Weighted(answers, weights)


def samples_in(tensors: Any) -> int:
    """How many samples a batch has, from any structure of its tensors."""
    return int(tree.flatten(tensors)[0].shape[0])


def with_scaled_gradients(loss: Loss, targets: Any, outputs: Any) -> Any:
    """The outputs, whose gradients are multiplied by the roots of the sample weights.

    The squares of gradients, which make up a Fisher matrix, then count by the weights themselves.
    """
    if not isinstance(targets, Weighted):
        return outputs
    names = getattr(loss, "names", None)
    if names is None:
        return _scaled(outputs, targets.weights)
    parts = outputs if isinstance(outputs, list | tuple) else [outputs]
    weights = [targets.weights.get(name) for name in names]
    return pack([part if w is None else _scaled(part, w) for part, w in zip(parts, weights, strict=True)])


def _scaled(outputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    shape = tf.concat([tf.shape(weights), tf.ones(outputs.shape.rank - weights.shape.rank, tf.int32)], 0)
    roots = tf.cast(tf.reshape(tf.sqrt(weights), shape), outputs.dtype)
    return tf.stop_gradient(outputs) * (1 - roots) + outputs * roots
