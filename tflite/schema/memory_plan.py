"""The activation memory of a file: what a microcontroller's arena holds while one inference runs."""

import dataclasses
import os

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.types import TFLiteFile, read_content

ALIGNMENT = 16  # bytes, of each tensor in an arena
_BYTES = {"FLOAT64": 8, "INT64": 8, "UINT64": 8, "FLOAT32": 4, "INT32": 4, "UINT32": 4, "FLOAT16": 2, "INT16": 2}


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Where the activations of an inference lie in one arena.

    Attributes:
        arena: bytes of the arena, of all subgraphs together.
        peak: bytes of the activations that exist at once at the fullest operation of the main graph; no plan of it
            needs less.
        fullest: that operation, as "NAME (output tensor)".
    """

    arena: int
    peak: int
    fullest: str


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """Bytes of a tensor, and the first and the last operation at which it exists."""

    size: int
    first: int
    last: int


def memory_plan(source: TFLiteFile | str | os.PathLike) -> MemoryPlan:
    """Plans the memory of activations as TFLite Micro does: the largest tensor first, each at the lowest free place.

    Weights stay in flash and are not counted, nor are the interpreter's own structures and the kernels' scratch memory,
    which depend on the kernels that an application links.

    Args:
        source: a converted model, or the path of a .tflite file.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
    """
    content = read_content(source)
    with flatbuffer.refuse_damage(source):
        model = schema.Model.GetRootAs(content, 0)
        lifetimes = [_lifetimes(model, model.Subgraphs(number)) for number in range(model.SubgraphsLength())]
        at, peak = _fullest(lifetimes[0])
        operations = list(flatbuffer.operators(model, model.Subgraphs(0)))
        fullest = "none"
        if operations:
            name, operator = operations[min(max(at, 0), len(operations) - 1)]
            fullest = f"{name} ({flatbuffer.short_name(model.Subgraphs(0).Tensors(operator.Outputs(0)))})"
    return MemoryPlan(sum(map(arena_of, lifetimes)), peak, fullest)


def _lifetimes(model: schema.Model, graph: schema.SubGraph) -> list[Lifetime]:
    """Of all activations, by the numbers of operations: inputs exist from the begin, outputs until the end."""
    inputs, outputs = flatbuffer.graph_inputs(graph), flatbuffer.graph_outputs(graph)
    first = dict.fromkeys(inputs, 0)
    last = dict.fromkeys(inputs, 0)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        for index in flatbuffer.written_tensors(operator):
            first.setdefault(index, number)
            last[index] = number
        for index in flatbuffer.read_tensors(operator):
            if index in first:
                last[index] = number
    last |= {index: graph.OperatorsLength() for index in outputs if index in first}
    return [Lifetime(_size(graph.Tensors(index)), first[index], last[index]) for index in sorted(first)]


def _size(tensor: schema.Tensor) -> int:
    elements = int(np.prod([max(size, 1) for size in flatbuffer.shape(tensor)], dtype=np.int64))
    return aligned(elements * _BYTES.get(flatbuffer.type_name(tensor), 1))


def aligned(size: int) -> int:
    """The bytes that a tensor takes in an arena."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _fullest(lifetimes: list[Lifetime]) -> tuple[int, int]:
    """The operation at which most bytes exist at once, and these bytes."""
    sums = {at: sum(t.size for t in lifetimes if t.first <= at <= t.last) for at in {t.first for t in lifetimes}}
    at = max(sums, key=lambda at: (sums[at], -at), default=0)
    return at, sums.get(at, 0)


def arena_of(lifetimes: list[Lifetime]) -> int:
    """Bytes of an arena in which tensors that exist at the same time do not overlap."""
    placed: list[tuple[int, Lifetime]] = []
    # Of equally large ones that which is last in the file comes first, as there.
    for _, tensor in sorted(enumerate(lifetimes), key=lambda entry: (-entry[1].size, -entry[0])):
        offset = 0
        for begin, other in sorted(placed, key=lambda entry: entry[0]):
            if other.first <= tensor.last and tensor.first <= other.last:  # both exist at some operation
                if begin - offset >= tensor.size:
                    break
                offset = max(offset, begin + other.size)
        placed.append((offset, tensor))
    return max((offset + tensor.size for offset, tensor in placed), default=0)
