"""Cuts parts out of a TFLite file: its first operations, or the operations that some outputs need."""

import collections
from collections.abc import Iterable

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.errors import UsageError

_ALIGNMENT = 16  # the schema asks for it; the generated Python code aligns buffers to 4 bytes only


class Cutter:
    """A file that parts are cut out of.

    Args:
        content: of a file with one subgraph.

    Raises:
        UsageError: the file has several subgraphs (control flow), which do not come apart.
    """

    def __init__(self, content: bytes):
        self._model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        if len(self._model.subgraphs) != 1:
            raise UsageError("only files with a single subgraph can be taken apart: this one has control flow inside")
        self._graph = self._model.subgraphs[0]
        self._operators = list(self._graph.operators)
        self._inputs = [int(index) for index in self._graph.inputs]
        self._outputs = self._ordered_outputs()

    def __len__(self) -> int:
        return len(self._operators)

    def names(self) -> list[tuple[str, str]]:
        """Kind and output tensor of each operation, in running order."""
        kinds = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        found = []
        for operator in self._operators:
            code = self._model.operatorCodes[operator.opcodeIndex]
            custom = code.customCode.decode() if code.customCode else None
            kind = custom or kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            found.append((kind, self._graph.tensors[operator.outputs[0]].name.decode()))
        return found

    def first(self, count: int) -> bytes:
        """The file of the first `count` operations (at least 1); its outputs are what the others still need."""
        made = [int(t) for operator in self._operators[:count] for t in operator.outputs]
        needed = {int(t) for operator in self._operators[count:] for t in operator.inputs} | set(self._outputs)
        return self._part(range(count), [t for t in made if t in needed])

    def leading_to(self, output: int) -> bytes:
        """The file of what the model's output number `output` needs, and of nothing else."""
        maker = {int(t): number for number, op in enumerate(self._operators) for t in op.outputs}
        waiting, needed = collections.deque([self._outputs[output]]), set()
        while waiting:
            number = maker.get(waiting.popleft())
            if number is not None and number not in needed:
                needed.add(number)
                waiting.extend(int(t) for t in self._operators[number].inputs if t >= 0)
        return self._part(sorted(needed), [self._outputs[output]])

    def _ordered_outputs(self) -> list[int]:
        """In the order of the names in the signature, where there is one: the converter shuffles several outputs."""
        signatures = self._model.signatureDefs or []
        if len(signatures) != 1:
            return [int(index) for index in self._graph.outputs]
        return [int(output.tensorIndex) for output in sorted(signatures[0].outputs, key=lambda output: output.name)]

    def _part(self, numbers: Iterable[int], outputs: list[int]) -> bytes:
        operators = [self._operators[number] for number in numbers]
        used = sorted({int(t) for op in operators for t in (*op.inputs, *op.outputs) if t >= 0} | set(outputs))
        place = {tensor: position for position, tensor in enumerate(used)}
        tensors = [self._graph.tensors[tensor] for tensor in used]
        buffers = [schema.BufferT(), *(self._model.buffers[tensor.buffer] for tensor in tensors)]
        renumbered = [
            _copy(op, inputs=_places(op.inputs, place), outputs=_places(op.outputs, place)) for op in operators
        ]
        graph = _copy(
            self._graph,
            tensors=[_copy(tensor, buffer=number + 1) for number, tensor in enumerate(tensors)],
            operators=renumbered,
            inputs=[place[t] for t in self._inputs if t in place],
            outputs=[place[t] for t in outputs],
        )
        # Signatures and metadata speak of tensors by their old numbers.
        model = _copy(
            self._model, subgraphs=[graph], buffers=buffers, signatureDefs=None, metadata=None, metadataBuffer=None
        )
        builder = _AlignedBuilder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


class _AlignedBuilder(flatbuffers.Builder):
    """Writes byte vectors (the weights) at multiples of 16, as TFLite's own writer does."""

    def CreateNumpyVector(self, values: np.ndarray) -> int:
        if values.dtype.itemsize > 1:
            return super().CreateNumpyVector(values)
        self.StartVector(1, values.size, _ALIGNMENT)
        self.head -= values.size
        self.Bytes[self.head : self.head + values.size] = values.tobytes()
        self.vectorNumElems = values.size
        return self.EndVector()


def _copy(record, **changes):
    new = object.__new__(type(record))
    vars(new).update(vars(record), **changes)
    return new


def _places(tensors: Iterable[int], place: dict[int, int]) -> list[int]:
    return [place[int(t)] if t >= 0 else -1 for t in tensors]
