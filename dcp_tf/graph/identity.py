"""What operations do, found by a trial: custom layers that do nothing, activations that leave zeros zero."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from dcp_tf.models.custom_objects import is_custom

OPEN_SIZE = 4  # of an axis that is left open, in the trial


def does_nothing(operation: keras.Operation, shapes: list[tuple], output_shapes: list[tuple]) -> bool:
    """Whether an operation is a custom layer that returns its only input in inference: channels pass through it.

    Args:
        operation: a layer or operation without a rule.
        shapes: of its inputs, with the batch axis.
        output_shapes: of its outputs.
    """
    if not isinstance(operation, keras.Layer) or not is_custom(operation) or operation._layers:
        return False
    if len(shapes) != 1 or shapes != output_shapes or any("float" in weight.dtype for weight in operation.weights):
        return False
    values = np.random.default_rng(0).normal(size=(2, *(size or OPEN_SIZE for size in shapes[0][1:])))
    values = keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(values, operation.compute_dtype))
    try:
        return bool(np.array_equal(run_in_inference(operation, values), values))
    except Exception:  # of a user's own code, which may take other inputs than these
        return False


def run_in_inference(layer: keras.Layer, values: np.ndarray) -> np.ndarray:
    """What a layer makes of its only input outside of training."""
    training = {"training": False} if layer._call_has_training_arg else {}
    return keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(values, layer.compute_dtype), **training))


@functools.cache
def is_zero_at_zero(activation: Callable | None) -> bool:
    """Whether an activation leaves zeros zero; without one they stay."""
    if activation is None or activation is keras.activations.linear:
        return True
    return bool(np.all(keras.ops.convert_to_numpy(activation(keras.ops.zeros((1, 2)))) == 0))
