"""Reads and writes the tables of a TFLite flatbuffer: names, shapes, constants, computed tensors."""

import contextlib
import dataclasses
import os
import struct
from collections.abc import Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.errors import UsageError
from dcp_tf.tflite.types import TFLiteFile, source_name

_OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT32": np.int32, "INT64": np.int64, "INT8": np.int8}
_ALIGNMENT = 16  # bytes, of weights: kernels read them in place

# Positions of input, weights and bias among the inputs of an operation. (Recurrent operations stay in float.)
KERNEL_INPUTS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), (0, 1, 2)),
    "TRANSPOSE_CONV": (2, 1, 3),
}

# Errors of reading a truncated or overwritten flatbuffer, whose accessors check nothing.
DAMAGE = (struct.error, IndexError, TypeError, ValueError, AttributeError, KeyError)


@contextlib.contextmanager
def refuse_damage(source: TFLiteFile | str | os.PathLike) -> Iterator[None]:
    """Raises UsageError where reading the tables of a file fails in the block."""
    try:
        yield
    except DAMAGE as error:
        raise UsageError(f"{source_name(source)} is damaged: its tables cannot be read; write it again") from error


def code_name(code: schema.OperatorCodeT) -> str:
    """The name of an entry of the table of operations, such as CONV_2D, or that of a custom operation."""
    if code.customCode:
        return code.customCode if isinstance(code.customCode, str) else code.customCode.decode()
    # Files from before 2021 only fill the narrow field.
    return _OPERATIONS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def operators(model: schema.Model, graph: schema.SubGraph) -> Iterator[tuple[str, schema.Operator]]:
    """The operations of a graph with their names, in execution order."""
    codes = [
        schema.OperatorCodeT.InitFromObj(model.OperatorCodes(index)) for index in range(model.OperatorCodesLength())
    ]
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        yield code_name(codes[operator.OpcodeIndex()]), operator


def options(operator: schema.Operator, kind: type) -> Any:
    """The options of an operation, such as its strides.

    Args:
        operator: of the packed model.
        kind: the schema's class for them, such as `schema.Conv2DOptions`.
    """
    table, parsed = operator.BuiltinOptions(), kind()
    parsed.Init(table.Bytes, table.Pos)
    return parsed


def read_tensors(operator: schema.Operator) -> list[int]:
    """The numbers of the tensors that an operation reads; without omitted optional ones."""
    inputs = (operator.Inputs(index) for index in range(operator.InputsLength()))
    return [index for index in inputs if index >= 0]


def written_tensors(operator: schema.Operator) -> list[int]:
    """The numbers of the tensors that an operation writes."""
    return [operator.Outputs(index) for index in range(operator.OutputsLength())]


def graph_inputs(graph: schema.SubGraph) -> list[int]:
    """The numbers of a graph's inputs."""
    return [graph.Inputs(index) for index in range(graph.InputsLength())]


def graph_outputs(graph: schema.SubGraph) -> list[int]:
    """The numbers of a graph's outputs."""
    return [graph.Outputs(index) for index in range(graph.OutputsLength())]


def computed_tensors(graph: schema.SubGraph) -> set[int]:
    """The inputs of a graph and the tensors that depend on them; all others are weights, packed or unpacked."""
    computed = set(graph_inputs(graph))
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        if computed.intersection(read_tensors(operator)):
            computed.update(written_tensors(operator))
    return computed


def type_name(tensor: schema.Tensor) -> str:
    """The schema's name of a tensor's type, such as FLOAT32."""
    return _TYPES[tensor.Type()]


def shape(tensor: schema.Tensor) -> tuple[int, ...]:
    """A tensor's shape."""
    return tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))


def short_name(tensor: schema.Tensor) -> str:
    """The name of a tensor up to the first ";": the last of the model's operations that were merged into it."""
    return tensor.Name().decode().split(";")[0]


def stored(model: schema.Model, buffer: int) -> np.ndarray:
    """The bytes of a buffer, inside the flatbuffer or (files of ai-edge-quantizer) behind it."""
    entry = model.Buffers(buffer)
    if entry.Offset() > 1:  # 0 and 1: the buffer is inside
        return np.frombuffer(model._tab.Bytes, np.uint8, entry.Size(), entry.Offset())
    return entry.DataAsNumpy() if entry.DataLength() else np.empty(0, np.uint8)


def constant(model: schema.Model, tensor: schema.Tensor) -> np.ndarray | None:
    """The stored values of a tensor in its shape; None if it is computed, or stored in a sparse encoding."""
    content, dtype = stored(model, tensor.Buffer()), _DTYPES.get(type_name(tensor))
    if tensor.Sparsity() or not len(content) or dtype is None:
        return None
    return np.frombuffer(content.tobytes(), dtype).reshape(shape(tensor))


def unpack(content: bytes) -> schema.ModelT:
    """A model as mutable objects, with the content of all buffers."""
    packed = schema.Model.GetRootAs(content, 0)
    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    model.buffers = [schema.BufferT(data=stored(packed, index)) for index in range(packed.BuffersLength())]
    return model


def pack(model: schema.ModelT) -> bytes:
    """The bytes of a file of an unpacked model."""
    size = sum(0 if buffer.data is None else len(buffer.data) for buffer in model.buffers)
    buffers, model.buffers = model.buffers, [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(size + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    model.buffers = buffers
    return bytes(builder.Output())


@dataclasses.dataclass(frozen=True)
class _AlignedBuffer:
    """A buffer with the alignment of the schema, which the generated Python code ignores."""

    data: np.ndarray | None

    def Pack(self, builder: flatbuffers.Builder) -> int:
        """Writes the buffer; the generated code of the other tables calls this name."""
        vector = None
        if self.data is not None and len(self.data):
            content = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
