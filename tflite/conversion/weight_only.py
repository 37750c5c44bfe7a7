"""Quantizes weights alone to 4 or 8 bits with ai-edge-quantizer, if it is installed."""

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.output_capture import OutputCapture


def require_quantizer() -> None:
    """Raises UsageError unless ai-edge-quantizer can be imported.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ai_edge_quantizer  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "weight_only_int4 and weight_only_int8 need ai-edge-quantizer, which is not installed: "
            "pip install 'dcp_tf[edge]'"
        ) from error


def quantize_weights(content: bytes, bits: int) -> bytes:
    """Quantizes the weights of a float file, with one scale per output channel.

    Args:
        content: a float32 TFLite file.
        bits: 4 or 8 per weight. Weights of operations without 4-bit support stay in float.

    Returns:
        The smaller file, with a DEQUANTIZE between each quantized weight and the operation that reads it.

    Raises:
        UsageError: ai-edge-quantizer is not installed.
        RunError: it rejected the file.
    """
    require_quantizer()
    from ai_edge_quantizer import quantizer, recipe

    recipes = {4: recipe.weight_only_wi4_afp32, 8: recipe.weight_only_wi8_afp32}
    capture = OutputCapture()
    try:
        with capture:
            smaller = quantizer.Quantizer(content, recipes[bits]()).quantize().quantized_model
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(f"ai-edge-quantizer cannot store the weights in {bits} bits: {first}") from error
    return bytes(smaller)
