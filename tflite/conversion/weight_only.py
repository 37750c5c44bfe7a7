"""Weights in 4 or 8 bits, everything else in float: through ai-edge-quantizer, where it is installed."""

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.output_capture import OutputCapture


def require_quantizer() -> None:
    """Proves that ai-edge-quantizer can be imported.

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
    """Stores the weights of a float file in few bits, one scale per output channel.

    Args:
        content: a float32 TFLite file.
        bits: 4 or 8 for each weight. Where an operation takes no weights of 4 bits they stay in float.

    Returns:
        The smaller file: a DEQUANTIZE stands between each quantized weight and the operation that reads it.

    Raises:
        UsageError: ai-edge-quantizer is not installed.
        RunError: it refused the file.
    """
    require_quantizer()
    from ai_edge_quantizer import quantizer, recipe

    recipes = {4: recipe.weight_only_wi4_afp32, 8: recipe.weight_only_wi8_afp32}
    silence = OutputCapture()
    try:
        with silence:
            smaller = quantizer.Quantizer(content, recipes[bits]()).quantize().quantized_model
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RunError(f"ai-edge-quantizer cannot store the weights in {bits} bits: {first}") from error
    return bytes(smaller)
