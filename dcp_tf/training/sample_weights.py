"""Sample weights in losses, as Keras counts them: the mean over the batch of weight times loss."""

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from dcp_tf.errors import UsageError


def weighted_mean(values: tf.Tensor, weights: Any = None) -> tf.Tensor:
    """The mean of losses, each times the weight of its sample or position.

    Args:
        values: (batch, ...).
        weights: (batch,), or of more of the leading axes of `values`; None: all 1.
    """
    if weights is None:
        return tf.reduce_mean(values)
    weights = tf.cast(tf.convert_to_tensor(weights), values.dtype)
    while weights.shape.rank > max(1, values.shape.rank) and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if not weights.shape.is_compatible_with(values.shape[: weights.shape.rank]):
        raise UsageError(f"Expected one sample weight per loss, {values.shape}. Received: {weights.shape}")
    return tf.reduce_mean(values * tf.reshape(weights, _open_shape(weights, values.shape.rank)))


def _open_shape(weights: tf.Tensor, rank: int) -> tf.Tensor:
    return tf.concat([tf.shape(weights), tf.ones(rank - weights.shape.rank, tf.int32)], 0)


def takes_weights(function: Callable) -> bool:
    """Whether a loss has the keyword argument `weights`."""
    try:
        return "weights" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def mean_of(function: Callable, *arguments: Any, weights: Any = None) -> tf.Tensor:
    """The mean that a loss gives, float32, weighted if there are sample weights.

    Args:
        function: gives the mean, and then takes `weights`; or one loss per sample or position.
        *arguments: of the function.
        weights: see `weighted_mean`.

    Raises:
        UsageError: there are weights, and the function gives one number that they cannot count in.
    """
    if weights is not None and takes_weights(function):
        return tf.cast(function(*arguments, weights=weights), tf.float32)
    value = tf.cast(function(*arguments), tf.float32)
    if value.shape.rank == 0 and weights is not None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise UsageError(
            f"the data has sample weights, but the loss {name} gives one number for a whole batch: let it return one "
            "loss per sample, or take an argument `weights`; or leave the weights out"
        )
    return value if value.shape.rank == 0 else weighted_mean(value, weights)
