"""Quantizes weights to 4 or 8 bits with ai-edge-quantizer, if it is installed."""

from typing import Any

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.types import Quantization

_IN_INT4 = ("CONV_2D", "FULLY_CONNECTED")  # operations that compute with weights in 4 bits


def require_quantizer() -> None:
    """Raises UsageError unless ai-edge-quantizer can be imported.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ai_edge_quantizer  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "dynamic_int4, weight_only_int4 and weight_only_int8 need ai-edge-quantizer, which is not installed: "
            "pip install 'dcp_tf[edge]'"
        ) from error


def quantize_weights(content: bytes, mode: Quantization) -> bytes:
    """Quantizes the weights of a float file, with one scale per output channel.

    Args:
        content: a float32 TFLite file.
        mode: with `weight_bits`.

    Returns:
        The smaller file. In weight-only modes a DEQUANTIZE lies between each quantized weight and the operation that
        reads it, and weights of operations without 4-bit support stay in float; in dynamic_int4 these have 8 bits.

    Raises:
        UsageError: ai-edge-quantizer is not installed.
        RunError: it rejected the file.
    """
    require_quantizer()
    from ai_edge_quantizer import quantizer

    capture = OutputCapture()
    try:
        with capture:
            quantizes = quantizer.Quantizer(content)
            _add_recipe(quantizes, mode)
            smaller = quantizes.quantize().quantized_model
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(f"ai-edge-quantizer cannot make the {mode.value} file: {first}") from error
    return bytes(smaller)


def _add_recipe(quantizes: Any, mode: Quantization) -> None:
    """Tells a `Quantizer` what to do with which operations."""
    from ai_edge_quantizer.qtyping import TFLOperationName as Operation

    every = {"regex": ".*", "operation_name": Operation.ALL_SUPPORTED}
    if mode is not Quantization.DYNAMIC_INT4:
        quantizes.add_weight_only_config(**every, num_bits=mode.weight_bits)
        return
    quantizes.add_dynamic_config(**every, num_bits=8)
    for name in _IN_INT4:
        quantizes.add_dynamic_config(regex=".*", operation_name=Operation(name), num_bits=mode.weight_bits)
