"""Operations of an integer file whose outputs were always (nearly) zero, so that XNNPACK refuses the whole file."""

from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer

_REFUSED = 256.0  # XNNPACK's kernels take no sum whose unit is that many units of the output


def zero_scale_outputs(content: bytes) -> list[str]:
    """The operations with such outputs, as "NAME (output tensor)".

    Where all images of the calibration give zero, as behind a ReLU that nothing passes, the output gets a tiny scale,
    and the sums of products would have to be multiplied by more than XNNPACK allows.

    Args:
        content: of a .tflite file that can be read.
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
    """Why the interpreter refuses a file, and what to do where outputs that are always zero are the cause."""
    dead = zero_scale_outputs(content) if "XNNPACK" in reason.upper() else []
    if not dead:
        return reason
    return (
        f"XNNPACK refuses integers where all calibration images give zero: {', '.join(dead[:5])}"
        f"{', ...' if len(dead) > 5 else ''}; calibrate with images that reach these layers, prune or retrain them, "
        "or export float16 or dynamic"
    )


def _scale(tensor: schema.Tensor) -> float:
    """The largest scale of a tensor; 0 where it has none."""
    quantization = tensor.Quantization()
    scales = None if quantization is None else quantization.ScaleAsNumpy()
    return float(max(scales)) if getattr(scales, "size", 0) else 0.0
