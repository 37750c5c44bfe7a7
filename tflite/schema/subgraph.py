"""Cuts parts out of a TFLite file: its first operations, what an output needs, or a single operation."""

import copy
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.errors import UsageError
from dcp_tf.tflite.schema import flatbuffer


class Cutter:
    """Cuts parts out of the main graph of a file.

    Args:
        content: of a .tflite file.
        keep_control_flow: whether parts of files with several subgraphs (control flow) are cut too.

    Raises:
        UsageError: the file has several subgraphs and `keep_control_flow` is off.
    """

    def __init__(self, content: bytes, keep_control_flow: bool = False):
        self._packed = schema.Model.GetRootAs(content, 0)
        self.model = flatbuffer.unpack(content)  # changed constants show in what is cut afterwards
        if len(self.model.subgraphs) != 1 and not keep_control_flow:
            raise UsageError("only files with a single subgraph can be taken apart: this one has control flow inside")
        self._graph = self.model.subgraphs[0]
        self._operators = list(self._graph.operators)
        self._computed = flatbuffer.computed_tensors(self._packed.Subgraphs(0))
        self._outputs = self._ordered_outputs()

    def __len__(self) -> int:
        return len(self._operators)

    def names(self) -> list[tuple[str, str]]:
        """Kind and output tensor of each operation, in running order."""
        graph = self._packed.Subgraphs(0)
        operators = flatbuffer.operators(self._packed, graph)
        return [(kind, graph.Tensors(operator.Outputs(0)).Name().decode()) for kind, operator in operators]

    def settings(self, number: int) -> str:
        """What the work of an operation depends on beside its weights' values: shapes, types and options, as a text."""
        operator = self._operators[number]
        tensors = [self._graph.tensors[t] for t in (*operator.inputs, *operator.outputs) if t >= 0]
        shapes = [([] if t.shape is None else list(map(int, t.shape)), t.type) for t in tensors]
        options = operator.builtinOptions
        return f"{shapes} {vars(options) if options is not None else ''}"

    def first(self, count: int) -> bytes:
        """The file of the first `count` operations (at least 1); its outputs are what the others still need."""
        written = [int(t) for operator in self._operators[:count] for t in operator.outputs]
        needed = self.read_from(count)
        return self._part(range(count), [t for t in written if t in needed])

    def between(self, start: int, stop: int) -> tuple[bytes, list[int], list[int]]:
        """The file of the operations from `start` to before `stop`.

        Returns:
            The file, and the numbers that its inputs and its outputs have in the whole file.
        """
        numbers = range(start, stop)
        numbers = sorted({*numbers, *self._upstream(t for number in numbers for t in self._unpacked(number))})
        read, written = (
            {int(t) for n in numbers for t in getattr(self._operators[n], side)} for side in ("inputs", "outputs")
        )
        outputs = sorted(written & self._computed & self.read_from(stop))
        return self._part(numbers, outputs), sorted(read & self._computed - written), outputs

    def read_from(self, start: int) -> set[int]:
        """The tensors that the operations from `start` on read, and the model's outputs."""
        return {int(t) for operator in self._operators[start:] for t in operator.inputs} | set(self._outputs)

    def leading_to(self, output: int) -> bytes:
        """The file of what the model's output number `output` needs, and of nothing else."""
        outputs = [self._outputs[output]]
        return self._part(self._upstream(outputs), outputs)

    def alone(self, number: int) -> bytes:
        """The file of one operation, and of those before it that only unpack its weights."""
        outputs = [int(t) for t in self._operators[number].outputs]
        return self._part([*self._upstream(self._unpacked(number)), number], outputs)

    def _unpacked(self, number: int) -> list[int]:
        return [int(t) for t in self._operators[number].inputs if t not in self._computed]

    def _upstream(self, tensors: Iterable[int]) -> list[int]:
        """The operations that some tensors depend on, in running order."""
        producer = {int(t): number for number, operator in enumerate(self._operators) for t in operator.outputs}
        waiting, needed = list(tensors), set()
        while waiting:
            number = producer.get(waiting.pop())
            if number is not None and number not in needed:
                needed.add(number)
                waiting += [int(t) for t in self._operators[number].inputs]
        return sorted(needed)

    def _ordered_outputs(self) -> list[int]:
        """In the order of the names in the signature, where there is one: the converter shuffles several outputs."""
        signatures = self.model.signatureDefs or []
        if len(signatures) != 1:
            return [int(index) for index in self._graph.outputs]
        return [int(output.tensorIndex) for output in sorted(signatures[0].outputs, key=lambda output: output.name)]

    def _part(self, numbers: Collection[int], outputs: list[int]) -> bytes:
        """The file of some operations; what they read and nobody among them computes becomes an input."""
        operators = [self._operators[number] for number in numbers]
        used = sorted({int(t) for op in operators for t in (*op.inputs, *op.outputs) if t >= 0} | set(outputs))
        position = {tensor: index for index, tensor in enumerate(used)} | {-1: -1}
        written = {int(t) for op in operators for t in op.outputs}
        graph = _changed(
            self._graph,
            tensors=[self._graph.tensors[tensor] for tensor in used],
            operators=[
                _changed(op, inputs=_positions(op.inputs, position), outputs=_positions(op.outputs, position))
                for op in operators
            ],
            inputs=_positions((t for t in used if t in self._computed - written), position),
            outputs=_positions(outputs, position),
        )
        graphs = [graph, *self.model.subgraphs[1:]]
        stored = {tensor.buffer for subgraph in graphs for tensor in subgraph.tensors}
        # Signatures and metadata speak of tensors by their old numbers.
        part = _changed(
            self.model,
            subgraphs=graphs,
            buffers=[b if number in stored else schema.BufferT() for number, b in enumerate(self.model.buffers)],
            signatureDefs=None,
            metadata=None,
            metadataBuffer=None,
        )
        return flatbuffer.pack(part)


def _changed(record: Any, **changes: Any) -> Any:
    """A shallow copy of a table with other values in some fields."""
    new = copy.copy(record)
    vars(new).update(changes)
    return new


def _positions(tensors: Iterable[int], position: dict[int, int]) -> np.ndarray:
    return np.array([position[int(tensor)] for tensor in tensors], np.int32)
