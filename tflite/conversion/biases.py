"""Rescales the biases of integer files to the scale that their kernels assume.

A kernel adds the stored bias to sums of products, so it assumes that the scale of the bias is the scale of its input
times that of its weights, per channel. The converter (TensorFlow 2.21) merges equal biases of int16x8 files into one
constant in the scale of the first operation. A layer that is called several times, or a copy of it, then silently adds
a bias that is off by the ratio of the input scales.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.errors import RunError
from dcp_tf.tflite.schema import flatbuffer

_INTEGERS = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
BIAS_TYPES = {**_INTEGERS, schema.TensorType.FLOAT32: np.float32}
_TOLERANCE = 1e-4  # scales are products of rounded float32 numbers


@dataclasses.dataclass(frozen=True)
class WrongBias:
    """A bias whose scale is not the one that its kernel assumes.

    Attributes:
        operation: number of the operation in the main graph.
        name: of the operation, with the tensor that it writes.
        position: of the bias among the operation's inputs.
        scale: the scale that the kernel assumes, one value per channel (or one for all).
    """

    operation: int
    name: str
    position: int
    scale: np.ndarray


def correct_biases(content: bytes) -> bytes:
    """The same file with all biases in the scale that their kernels assume.

    Raises:
        RunError: the scale of a bias does not fit its operation.
    """
    model = flatbuffer.unpack(content)
    wrong = list(wrong_biases(model))
    if not wrong:
        return content
    for bias in wrong:
        _rescale(model, bias)
    return flatbuffer.pack(model)


def wrong_biases(model: schema.ModelT) -> Iterator[WrongBias]:
    """The biases of an integer file whose scale is not input scale times weight scale."""
    graph = model.subgraphs[0]
    for number, operator in enumerate(graph.operators):
        name = flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex])
        positions = flatbuffer.KERNEL_INPUTS.get(name)
        if positions is None or len(operator.inputs) <= positions[2] or operator.inputs[positions[2]] < 0:
            continue
        data, weights, bias = (graph.tensors[operator.inputs[position]] for position in positions)
        if bias.type not in _INTEGERS:
            continue
        scales = [_scale(tensor) for tensor in (data, weights, bias)]
        assumed = None if scales[0] is None or scales[1] is None else scales[0] * scales[1]
        if assumed is None or (scales[2] is not None and _equal(scales[2], assumed)):
            continue
        written = graph.tensors[operator.outputs[0]].name
        yield WrongBias(number, f"{name} ({_text(written).split(';')[0]})", positions[2], assumed)


def _rescale(model: schema.ModelT, wrong: WrongBias) -> None:
    """Gives an operation the same bias in the assumed scale."""
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[wrong.operation].inputs[wrong.position]]
    scale, dtype = _scale(tensor), _INTEGERS[tensor.type]
    content = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    stored = np.frombuffer(content.tobytes(), dtype)
    if scale is None or len(stored) % len(scale) or len(stored) % len(wrong.scale) or not np.all(wrong.scale > 0):
        raise RunError(
            f"the bias of {wrong.name} has a scale that does not fit its operation, which would add something else; "
            "export float16 or dynamic"
        )
    set_bias(model, wrong.operation, wrong.position, stored.astype(np.float64) * scale, wrong.scale)


def set_bias(model: schema.ModelT, operation: int, position: int, values: np.ndarray, scale: np.ndarray) -> None:
    """Gives an operation, and no other that reads the same tensor, a bias of some values; integers in a scale."""
    graph = model.subgraphs[0]
    operator = graph.operators[operation]
    index = int(operator.inputs[position])
    tensor = graph.tensors[index]
    dtype, quantization = BIAS_TYPES[tensor.type], tensor.quantization
    if tensor.type in _INTEGERS:
        limits = np.iinfo(dtype)
        values = np.clip(np.round(values / scale), limits.min, limits.max)
        quantization = schema.QuantizationParametersT(
            scale=scale.astype(np.float32),
            zeroPoint=np.zeros(len(scale), np.int64),
            quantizedDimension=quantization.quantizedDimension,
        )
    buffer = schema.BufferT(data=np.frombuffer(values.astype(dtype).tobytes(), np.uint8))
    readers = sum(int(read) == index for other in graph.operators for read in other.inputs)
    if readers == 1 and sum(other.buffer == tensor.buffer for other in graph.tensors) == 1:
        model.buffers[tensor.buffer], tensor.quantization = buffer, quantization
        return
    model.buffers.append(buffer)
    graph.tensors.append(
        schema.TensorT(
            shape=tensor.shape,
            type=tensor.type,
            buffer=len(model.buffers) - 1,
            name=f"{_text(tensor.name)}/{operation}",
            quantization=quantization,
            hasRank=tensor.hasRank,
        )
    )
    operator.inputs = np.array(operator.inputs)
    operator.inputs[position] = len(graph.tensors) - 1


def _scale(tensor: schema.TensorT) -> np.ndarray | None:
    scale = getattr(tensor.quantization, "scale", None)
    return None if scale is None or not len(scale) else np.asarray(scale, np.float64)


def _equal(scale: np.ndarray, assumed: np.ndarray) -> bool:
    return len(scale) in (1, len(assumed)) and bool(np.allclose(scale, assumed, rtol=_TOLERANCE, atol=0))


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode(errors="replace")
