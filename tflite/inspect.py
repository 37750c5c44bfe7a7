"""Reads a TFLite flatbuffer without running it: operations, types, what is left in float, multiply-accumulates."""

import collections
import os
import struct
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.errors import UsageError
from dcp_tf.tflite.types import Inspection, TensorInfo, TFLiteFile, read_content, source_name

_OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


def inspect(source: TFLiteFile | str | os.PathLike) -> Inspection:
    """Reads what a file holds.

    Args:
        source: a converted model, or the path of a .tflite file.

    Raises:
        UsageError: there is no such file, or it holds no TFLite model.
    """
    content = read_content(source)
    try:
        return _inspect(content)
    except (struct.error, IndexError, TypeError, ValueError, AttributeError) as error:
        # The flatbuffer accessors check nothing: cut or overwritten files make them read outside of the bytes.
        raise UsageError(f"{source_name(source)} is damaged: its tables cannot be read; write it again") from error


def count_macs(source: TFLiteFile | str | os.PathLike) -> int:
    """Multiply-accumulates of one inference at batch size 1: convolutions, transposed ones, and matrix products.

    Raises:
        UsageError: there is no such file, or it holds no TFLite model.
    """
    return inspect(source).macs


def _inspect(content: bytes) -> Inspection:
    model = schema.Model.GetRootAs(content, 0)
    operations, types, floats, macs = collections.Counter(), collections.Counter(), [], 0
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        types.update(_type(graph.Tensors(index)) for index in range(graph.TensorsLength()))
        for name, operator in _operators(model, graph):
            operations[name] += 1
            macs += _macs(name, operator, graph)
            if _computes_in_float(name, operator, graph):
                floats.append(f"{name} ({graph.Tensors(operator.Outputs(0)).Name().decode().split(';')[0]})")
    main = model.Subgraphs(0)
    return Inspection(
        operations=dict(operations.most_common()),
        tensor_types=dict(types.most_common()),
        float_operations=floats,
        inputs=[_info(main.Tensors(main.Inputs(index))) for index in range(main.InputsLength())],
        outputs=[_info(main.Tensors(main.Outputs(index))) for index in range(main.OutputsLength())],
        macs=macs,
        size=len(content),
    )


def _operators(model: schema.Model, graph: schema.SubGraph) -> Iterator[tuple[str, schema.Operator]]:
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if code.CustomCode():
            yield code.CustomCode().decode(), operator
        else:  # files from before 2021 fill the narrow field alone
            yield _OPERATIONS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())], operator


def _type(tensor: schema.Tensor) -> str:
    return _TYPES[tensor.Type()]


def _shape(tensor: schema.Tensor) -> tuple[int, ...]:
    return tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))


def _info(tensor: schema.Tensor) -> TensorInfo:
    return TensorInfo(name=tensor.Name().decode(), shape=_shape(tensor), type=_type(tensor))


def _computes_in_float(name: str, operator: schema.Operator, graph: schema.SubGraph) -> bool:
    """Whether an operation touches floats inside the graph; a QUANTIZE or DEQUANTIZE at its border does not count."""
    read = [operator.Inputs(index) for index in range(operator.InputsLength()) if operator.Inputs(index) >= 0]
    written = [operator.Outputs(index) for index in range(operator.OutputsLength())]
    floats = {index for index in (*read, *written) if _type(graph.Tensors(index)).startswith("FLOAT")}
    if name == "QUANTIZE":
        floats -= {graph.Inputs(index) for index in range(graph.InputsLength())}
    if name == "DEQUANTIZE":
        floats -= {graph.Outputs(index) for index in range(graph.OutputsLength())}
    return bool(floats)


def _macs(name: str, operator: schema.Operator, graph: schema.SubGraph) -> int:
    """Multiply-accumulates of one operation; taps in the padding count, as they do in the papers' figures."""

    def shape(position: int) -> tuple[int, ...]:
        return _shape(graph.Tensors(operator.Inputs(position)))

    outputs = _size(_shape(graph.Tensors(operator.Outputs(0)))) if operator.OutputsLength() else 0
    if name == "CONV_2D":  # filter (out, height, width, in of one group)
        return outputs * _size(shape(1)[1:])
    if name == "DEPTHWISE_CONV_2D":  # filter (1, height, width, out)
        return outputs * _size(shape(1)[1:3])
    if name == "TRANSPOSE_CONV":  # inputs: shape of the output, filter (out, height, width, in), values
        return _size(shape(2)) * _size(shape(1)[:3])
    if name == "FULLY_CONNECTED":  # filter (out, in)
        return outputs * shape(1)[1]
    if name == "BATCH_MATMUL":
        transposed = schema.BatchMatMulOptions()
        transposed.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
        return outputs * shape(0)[-2 if transposed.AdjX() else -1]
    return 0


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
