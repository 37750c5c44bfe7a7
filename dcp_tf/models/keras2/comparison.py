"""Checks that a Keras 2 model and its conversion to Keras 3 compute the same."""

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.models.full_precision import HALVES, in_full_precision, widen

# Largest difference of the outputs, relative to the largest output.
_TOLERANCE = 1e-5
# Allowed multiple of the model's own sensitivity to rounding, and the largest difference that can be rounding.
_ROUNDINGS, _LARGEST_ROUNDING = 8, 1e-2
# What replaces an open size in the comparison: the first of these that the model accepts.
_TRIAL_SIZES = (32, 64, 128, 224)


def check_outputs(old, new: keras.Model) -> None:
    """Compares the outputs of a Keras 2 model and its conversion on random inputs.

    Layers that compute in 16 bits are compared in 32. If the outputs differ by more than usual, they may differ as much
    as those of the new model alone do when its weights are perturbed by rounding: some models amplify rounding.

    Raises:
        UsageError: the outputs differ, or the Keras 2 model cannot be run.
    """
    name, old, new = old.name, _old_in_full_precision(old), in_full_precision(new)
    inputs, expected = _run_on_random_input(old)
    expected = [np.asarray(tensor, np.float64) for tensor in tf.nest.flatten(expected)]
    outputs = _outputs(new, inputs)
    differences = [_relative_difference(a, b) for a, b in zip(expected, outputs, strict=True)]
    if all(difference <= _TOLERANCE for difference in differences):
        return
    for number, (a, difference, rounding) in enumerate(
        zip(expected, differences, _rounding_sensitivity(new, inputs, outputs), strict=True)
    ):
        if not difference <= max(_TOLERANCE, min(_ROUNDINGS * rounding, _LARGEST_ROUNDING)):
            largest = _largest(a)
            raise UsageError(
                f"the Keras 2 model {name!r} computes something else in Keras 3: its output {number} of up to "
                f"{largest:.2g} differs by up to {difference * max(largest, 1e-12):.2g}; build it in Keras 3 and load "
                "its weights"
            )


def _old_in_full_precision(model):
    """A copy of a Keras 2 model that computes in float32, or the model itself if it already does."""
    if not any(layer.compute_dtype in HALVES for layer in model._flatten_layers()):
        return model
    copy = type(model).from_config(widen(model.get_config()))
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()
    return copy


def _outputs(model: keras.Model, inputs) -> list[np.ndarray]:
    return [np.asarray(tensor, np.float64) for tensor in tf.nest.flatten(model(inputs, training=False))]


def _rounding_sensitivity(model: keras.Model, inputs, outputs: list[np.ndarray]) -> list[float]:
    """How far each output moves when every weight moves by the precision of float32, relative to the output."""
    weights = [weight for weight in model.weights if keras.backend.is_float_dtype(weight.dtype)]
    values = [keras.ops.convert_to_numpy(weight) for weight in weights]
    random = np.random.default_rng(0)
    try:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value * (1 + np.finfo(np.float32).eps * random.choice([-1.0, 1.0], value.shape)))
        moved = _outputs(model, inputs)
    finally:
        for weight, value in zip(weights, values, strict=True):
            weight.assign(value)
    return [_relative_difference(a, b) for a, b in zip(outputs, moved, strict=True)]


def _relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return np.inf
    equal = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities too
    return np.abs(a[~equal] - b[~equal]).max(initial=0.0) / max(_largest(a), 1e-12)


def _largest(values: np.ndarray) -> float:
    return np.abs(values[np.isfinite(values)]).max(initial=0.0)


def _run_on_random_input(model):
    random = np.random.default_rng(0)
    error = None
    for size in _TRIAL_SIZES:
        inputs = tf.nest.map_structure(lambda t, size=size: _random_like(t, size, random), model._nested_inputs)
        try:
            return inputs, model(inputs, training=False)
        except (ValueError, tf.errors.OpError) as raised:
            error = raised
    reason = " ".join(str(error).split())[:300]
    raise UsageError(f"the Keras 2 model {model.name!r} cannot be compared with its conversion: {reason}") from error


def _random_like(tensor, size: int, random: np.random.Generator) -> tf.Tensor:
    batch, *lengths = tensor.shape
    shape = [batch or 2, *(length or size for length in lengths)]
    if not tensor.dtype.is_floating:
        return tf.cast(random.integers(0, 2, shape), tensor.dtype)
    values = random.uniform(-1.0, 1.0, shape)
    values[0] = np.abs(values[0])  # one example that roots and logarithms can take
    return tf.cast(values, tensor.dtype)
