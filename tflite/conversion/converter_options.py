"""The converter's options for each quantization mode."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.tflite.types import Quantization

Samples = Callable[[], Iterator[dict[str, np.ndarray]]]

# TFLite's encoder stores a weight sparsely if at least this fraction of it is zero.
MIN_SPARSITY = 0.3


def configure(
    converter: Any, quantization: Quantization, samples: Samples | None, io: str, allow_float: bool = False
) -> None:
    """Configures a TFLiteConverter for a mode.

    Args:
        converter: of the float model.
        quantization: the mode. The weight-only modes start from the float file and change nothing here.
        samples: makes the calibration samples of the calibrated modes.
        io: "float" or "int8", the inputs and outputs of int8 files.
        allow_float: whether operations without an integer kernel may stay in float.
    """
    import tensorflow as tf

    if quantization in (Quantization.FLOAT16, Quantization.DYNAMIC) or quantization.is_calibrated:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization is Quantization.FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if quantization is Quantization.SPARSE:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if quantization.is_calibrated:
        sets = tf.lite.OpsSet
        kernels = {
            Quantization.INT8: sets.TFLITE_BUILTINS_INT8,
            Quantization.INT16X8: sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }[quantization]
        converter.target_spec.supported_ops = [kernels, *([sets.TFLITE_BUILTINS] if allow_float else [])]
        converter.representative_dataset = samples
    if io == "int8":
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8


def require_zeros(model: Any) -> None:
    """Rejects a model without enough zeros for the sparse encoding.

    Raises:
        UsageError: no kernel of `model` has enough zeros.
    """
    shares = {weight.path: _zeros(weight) for weight in model.weights if len(weight.shape) in (2, 4)}
    most = max(shares, key=shares.get, default=None)
    if most is None or shares[most] < MIN_SPARSITY:
        zeros = "none" if most is None else f"at most {shares[most]:.0%} (in {most})"
        raise UsageError(
            f"{model.name!r} has too few zeros for quantization='sparse': {zeros} of a weight is zero and the encoding "
            f"starts at {MIN_SPARSITY:.0%}; prune kernels first (method dkp), or export float32"
        )


def _zeros(weight: Any) -> float:
    values = np.asarray(weight)
    return float(np.mean(values == 0)) if values.size else 0.0
