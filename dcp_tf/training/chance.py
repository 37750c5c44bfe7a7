"""Whether auxiliary heads learnt anything: their loss beside that of the best constant answer."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.training.losses import ClassificationLoss, Loss, MeanSquaredError

_CLEARLY = 0.97  # of the constant's loss; what a head keeps of it must be less
_LABELS = 512  # are enough to know how often each class is, and few enough to fit
_VALUES = 2**22


def loss_by_chance(loss: Loss, labels: np.ndarray, output_shape: Sequence[int | None]) -> float | None:
    """The loss of the best answer that is the same for all inputs; None for losses of which it is not known.

    Args:
        loss: of logits, or of numbers.
        labels: of the training inputs, (N, ...).
        output_shape: of what the loss compares, with the batch axis.
    """
    if None in output_shape[1:]:
        return None
    count = max(1, min(_LABELS, _VALUES // math.prod(output_shape[1:])))
    drawn = np.random.default_rng(0).permutation(len(labels))[:count]
    labels = tf.constant(np.asarray(labels)[drawn])
    shape = (len(labels), *output_shape[1:])
    if isinstance(loss, MeanSquaredError):
        numbers = tf.reshape(tf.cast(labels, tf.float32), shape)
        means = tf.reduce_mean(numbers, list(range(len(shape) - 1)))
        return float(loss(numbers, tf.broadcast_to(means, shape)))
    if not isinstance(loss, ClassificationLoss) or loss.outputs_kind != "logits":
        return None
    zeros, classes = tf.zeros(shape[-1]), shape[-1]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        value = loss(labels, tf.broadcast_to(zeros, shape))
    slopes = tape.gradient(value, zeros)  # what answers of equal probability miss of how often each class is
    if loss.independent or classes == 1:
        shares = tf.clip_by_value(0.5 - classes * slopes, 1e-6, 1 - 1e-6)
        logits = tf.math.log(shares) - tf.math.log(1 - shares)
    else:
        logits = tf.math.log(tf.maximum(1 / classes - slopes, 1e-6))
    return float(loss(labels, tf.broadcast_to(logits, shape)))


def heads_at_chance(losses: Sequence[float], by_chance: float) -> list[int]:
    """Which heads (from 0) are hardly better than a constant answer."""
    return [number for number, value in enumerate(losses) if not value < _CLEARLY * by_chance]
