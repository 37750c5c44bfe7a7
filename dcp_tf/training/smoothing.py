"""Label smoothing around any classification loss."""

import dataclasses
from typing import Any

import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training.losses import ClassificationLoss, Distillation


def smoothed(loss: Any, smoothing: float) -> Any:
    """The loss whose targets are `(1 - smoothing) * target + smoothing / classes` (Szegedy et al. 2016, sec. 7).

    Args:
        loss: of classes, or a `Distillation` of such a loss, whose own targets then are smoothed. Yes / no questions
            are smoothed towards 1/2.
        smoothing: 0 leaves the loss as it is.

    Raises:
        UsageError: the loss is of something else than classes.
    """
    if not smoothing:
        return loss
    if isinstance(loss, Distillation):
        return dataclasses.replace(loss, base=smoothed(loss.base, smoothing))
    if not isinstance(loss, ClassificationLoss):
        raise UsageError(f"label smoothing is for classes; the loss is {loss!r}: leave out the label smoothing")
    return _Smoothed(loss, smoothing)


class _Smoothed:
    """Cross-entropy is linear in its targets: that of smoothed targets is a mean of two."""

    def __init__(self, base: ClassificationLoss, smoothing: float):
        self._base, self._smoothing = base, smoothing

    def __call__(self, labels, outputs) -> tf.Tensor:
        shape = tf.shape(outputs)
        binary = self._base.independent or self._base.outputs_kind == "sigmoid" or outputs.shape[-1] == 1
        even = tf.fill(shape, 0.5) if binary else tf.ones(shape) / tf.cast(shape[-1], tf.float32)
        return (1.0 - self._smoothing) * self._base(labels, outputs) + self._smoothing * self._base(even, outputs)

    def __getattr__(self, name: str):
        if name.startswith("__"):  # such as what copying asks for before there is a base
            raise AttributeError(name)
        return getattr(self._base, name)
