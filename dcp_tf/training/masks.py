"""Masks that hold pruned weights at zero in training, in our own loop and in Keras'."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError


def resolve_masks(
    pairs: Sequence[tuple[keras.Variable, Any]], masks: Mapping[str | int, np.ndarray]
) -> dict[int, tf.Tensor]:
    """Masks by the `id()` of their weights, on the device; sets the masked weights to zero.

    Args:
        pairs: every weight of a model with the variable that is trained in its place, which may be the weight itself.
        masks: path or `id()` of a weight -> array of 0 and 1.

    Raises:
        UsageError: a mask fits no weight.
    """
    resolved = {}
    for key, mask in masks.items():
        matches = [(weight, variable) for weight, variable in pairs if key in (weight.path, id(weight))]
        if len(matches) != 1:
            raise UsageError(f"Expected the path or id of one weight as key of a mask. Received: {key!r}")
        (weight, variable), mask = matches[0], np.asarray(mask)
        if mask.shape != tuple(weight.shape) or not np.isin(mask, (0, 1)).all():
            raise UsageError(
                f"Expected a mask of 0 and 1 of shape {tuple(weight.shape)} for {weight.path}. Received: {mask.shape}"
            )
        resolved[id(weight)] = tf.constant(mask, variable.dtype)
        variable.assign(variable * resolved[id(weight)])
    return resolved


class MaskedKernels(keras.callbacks.Callback):
    """Holds masked weights at exactly zero in `fit`, with any optimizer, also within `steps_per_execution`.

    The mask is the weight's constraint during the training, so that the optimizer itself applies it after each step,
    behind a constraint that the weight has. Afterwards the weights are as they were built.

        model.fit(images, labels, callbacks=[dcp_tf.MaskedKernels({"conv/kernel": mask})])

    Args:
        masks: path or `id()` of a weight of the model -> array of 0 and 1 of its shape.
    """

    def __init__(self, masks: Mapping[str | int, np.ndarray]):
        super().__init__()
        self._masks = dict(masks)
        self._held: list[tuple[keras.Variable, tf.Tensor, Callable | None]] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Sets the masked weights to zero, and their constraints."""
        masks = resolve_masks([(weight, weight) for weight in self.model.weights], self._masks)
        weights = [weight for weight in self.model.weights if id(weight) in masks]
        self._held = [(weight, masks[id(weight)], weight.constraint) for weight in weights]
        for weight, mask, constraint in self._held:
            weight.constraint = _masked(mask, constraint)
        self._compile_again()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Masks what came from a moving average of the optimizer."""
        for weight, mask, _ in self._held:
            weight.assign(weight * mask)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Masks the last weights, and takes the constraints back."""
        self.on_epoch_end(0)
        for weight, _, constraint in self._held:
            weight.constraint = constraint
        self._held = []
        self._compile_again()

    def _compile_again(self) -> None:
        """A step that was compiled before knows nothing of the constraints."""
        if self._masks and getattr(self.model, "train_function", None) is not None:
            self.model.make_train_function(force=True)


def _masked(mask: tf.Tensor, constraint: Callable | None) -> Callable:
    return lambda weight: (weight if constraint is None else constraint(weight)) * mask
