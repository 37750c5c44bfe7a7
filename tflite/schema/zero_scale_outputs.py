"""Finds operations of an integer file whose outputs were (nearly) always zero, for which XNNPACK rejects the file."""

from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer

_REFUSED = 256.0  # XNNPACK's kernels reject a larger ratio of the scale of sums to that of the output


def zero_scale_outputs(content: bytes) -> list[str]:
    """The operations with such outputs, as "NAME (output tensor)".

    If all calibration images give zero, as after a dead ReLU, the output gets a tiny scale, and the factor that
    rescales the sums of products exceeds XNNPACK's limit.

    Args:
        content: of a readable .tflite file.
    """
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    refused = []
    for name, operator in flatbuffer.operators(model, graph):
        if name in flatbuffer.KERNEL_INPUTS:
            data, weights, _ = flatbuffer.KERNEL_INPUTS[name]
            tensors = [graph.Tensors(i) for i in (operator.Inputs(data), operator.Inputs(weights), operator.Outputs(0))]
            input_scale, weight_scale, output_scale = map(_scale, tensors)
            if output_scale and input_scale * weight_scale / output_scale >= _REFUSED:
                refused.append(f"{name} ({flatbuffer.short_name(tensors[-1])})")
    return refused


def explain(content: bytes, reason: str) -> str:
    """The reason why the interpreter rejects a file, and what to do if zero outputs are the cause."""
    dead = zero_scale_outputs(content) if "XNNPACK" in reason.upper() else []
    if not dead:
        return reason
    return (
        f"XNNPACK refuses integers where all calibration images give zero: {', '.join(dead[:5])}"
        f"{', ...' if len(dead) > 5 else ''}; calibrate with images that reach these layers, prune or retrain them, "
        "or export float16 or dynamic"
    )


def _scale(tensor: schema.Tensor) -> float:
    """The largest scale of a tensor; 0 without one."""
    quantization = tensor.Quantization()
    scales = None if quantization is None else quantization.ScaleAsNumpy()
    return float(max(scales)) if getattr(scales, "size", 0) else 0.0
