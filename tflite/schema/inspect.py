"""Reads a TFLite file without running it: operations, types, float operations, multiply-accumulates."""

import collections
import os

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.types import Inspection, TensorInfo, TFLiteFile, read_content


def inspect(source: TFLiteFile | str | os.PathLike) -> Inspection:
    """Reads the content of a file.

    Args:
        source: a converted model, or the path of a .tflite file.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
    """
    content = read_content(source)
    with flatbuffer.refuse_damage(source):
        return _inspect(content)


def count_macs(source: TFLiteFile | str | os.PathLike) -> int:
    """Multiply-accumulates of one inference at batch size 1: convolutions, transposed ones, and matrix products.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
    """
    return inspect(source).macs


def _inspect(content: bytes) -> Inspection:
    model = schema.Model.GetRootAs(content, 0)
    operations, types, floats, conversions, macs = collections.Counter(), collections.Counter(), [], [], 0
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
        types.update(flatbuffer.type_name(tensor) for tensor in tensors)
        computed = flatbuffer.computed_tensors(graph)
        for name, operator in flatbuffer.operators(model, graph):
            operations[name] += 1
            macs += _macs(name, operator, graph)
            written = tensors[operator.Outputs(0)] if operator.OutputsLength() else None
            if _computes_in_float(name, operator, graph):
                floats.append(f"{name} ({flatbuffer.short_name(written)})")
            if _converts_inside(name, operator, graph, computed):
                read = flatbuffer.type_name(tensors[operator.Inputs(0)])
                conversions.append(
                    f"{name} {read} to {flatbuffer.type_name(written)} ({flatbuffer.short_name(written)})"
                )
    main = model.Subgraphs(0)
    return Inspection(
        operations=dict(operations.most_common()),
        tensor_types=dict(types.most_common()),
        float_operations=floats,
        conversions=conversions,
        inputs=[_info(main.Tensors(index)) for index in flatbuffer.graph_inputs(main)],
        outputs=[_info(main.Tensors(index)) for index in flatbuffer.graph_outputs(main)],
        macs=macs,
        size=len(content),
    )


def _info(tensor: schema.Tensor) -> TensorInfo:
    return TensorInfo(tensor.Name().decode(), flatbuffer.shape(tensor), flatbuffer.type_name(tensor))


def _computes_in_float(name: str, operator: schema.Operator, graph: schema.SubGraph) -> bool:
    """Whether an operation uses floats inside the graph, apart from a QUANTIZE or DEQUANTIZE at its border."""
    touched = (*flatbuffer.read_tensors(operator), *flatbuffer.written_tensors(operator))
    floats = {index for index in touched if flatbuffer.type_name(graph.Tensors(index)).startswith("FLOAT")}
    if name == "QUANTIZE":
        floats -= set(flatbuffer.graph_inputs(graph))
    if name == "DEQUANTIZE":
        floats -= set(flatbuffer.graph_outputs(graph))
    return bool(floats)


def _converts_inside(name: str, operator: schema.Operator, graph: schema.SubGraph, computed: set[int]) -> bool:
    """Whether an operation only changes the type or scale of activations, away from the border of the graph."""
    if name not in ("QUANTIZE", "DEQUANTIZE") or operator.Inputs(0) not in computed:
        return False
    border = flatbuffer.graph_inputs(graph) if name == "QUANTIZE" else flatbuffer.graph_outputs(graph)
    return not {operator.Inputs(0), operator.Outputs(0)} & set(border)


def _macs(name: str, operator: schema.Operator, graph: schema.SubGraph) -> int:
    """Multiply-accumulates of one operation, including those on padding, as in the papers."""

    def shape(position: int) -> tuple[int, ...]:
        return flatbuffer.shape(graph.Tensors(operator.Inputs(position)))

    outputs = _size(flatbuffer.shape(graph.Tensors(operator.Outputs(0)))) if operator.OutputsLength() else 0
    if name == "CONV_2D":  # filter (out, height, width, in of one group)
        return outputs * _size(shape(1)[1:])
    if name == "DEPTHWISE_CONV_2D":  # filter (1, height, width, out)
        return outputs * _size(shape(1)[1:3])
    if name == "TRANSPOSE_CONV":  # inputs: shape of the output, filter (out, height, width, in), values
        return _size(shape(2)) * _size(shape(1)[:3])
    if name == "FULLY_CONNECTED":  # filter (out, in)
        return outputs * shape(1)[1]
    if name == "BATCH_MATMUL":
        return outputs * shape(0)[-2 if flatbuffer.options(operator, schema.BatchMatMulOptions).AdjX() else -1]
    return 0


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
