"""Operations of an integer file whose outputs were always (nearly) zero, so that XNNPACK refuses the whole file."""

from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer

_INPUTS = {"CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1), "TRANSPOSE_CONV": (2, 1)}
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
    found = []
    for name, operator in flatbuffer.operators(model, graph):
        if name in _INPUTS:
            places = [operator.Inputs(i) for i in _INPUTS[name]] + [operator.Outputs(0)]
            read, weights, made = (_scale(graph.Tensors(place)) for place in places)
            if made and read * weights / made >= _REFUSED:
                found.append(f"{name} ({flatbuffer.short_name(graph.Tensors(places[-1]))})")
    return found


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
