"""Masks that hold pruned weights at zero in training."""

from collections.abc import Mapping, Sequence
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
