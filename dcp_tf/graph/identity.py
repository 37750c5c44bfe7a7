"""Custom layers that do nothing in inference, such as stochastic depth and noise: channels pass through them."""

import keras
import numpy as np

from dcp_tf.models.custom_objects import is_custom

_OPEN_SIZE = 4  # of an axis that is left open, in the trial


def does_nothing(operation: keras.Operation, shapes: list[tuple], output_shapes: list[tuple]) -> bool:
    """Whether an operation is a custom layer that returns its only input in inference, determined by a trial.

    Args:
        operation: a layer or operation without a rule.
        shapes: of its inputs, with the batch axis.
        output_shapes: of its outputs.
    """
    if not isinstance(operation, keras.Layer) or not is_custom(operation) or operation._layers:
        return False
    if len(shapes) != 1 or shapes != output_shapes or any("float" in weight.dtype for weight in operation.weights):
        return False
    values = np.random.default_rng(0).normal(size=(2, *(size or _OPEN_SIZE for size in shapes[0][1:])))
    values = keras.ops.convert_to_tensor(values, operation.compute_dtype)
    training = {"training": False} if operation._call_has_training_arg else {}
    try:
        outputs = operation(values, **training)
        return bool(np.array_equal(keras.ops.convert_to_numpy(outputs), keras.ops.convert_to_numpy(values)))
    except Exception:  # of a user's own code, which may take other inputs than these
        return False
