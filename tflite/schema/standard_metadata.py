"""Reads the standard TFLite metadata (identifier M001) of files that any tool wrote."""

import dataclasses
import io
import re
import zipfile
from collections.abc import Sequence

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema import metadata_format as fields


@dataclasses.dataclass(frozen=True)
class StandardMetadata:
    """Standard metadata of a network with one image input.

    Attributes:
        name: of the model; may be empty.
        mean: for pixels of 0 to 255; empty without a normalization.
        std: the standard deviation, as `mean`.
        labels: names of the classes in the order of the outputs.
        outputs: "probabilities" if the stated range of the outputs is 0 to 1, else None.
    """

    name: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    outputs: str | None = None


def read_standard(content: bytes, entry: bytes, graph: schema.SubGraph) -> StandardMetadata:
    """Reads the entry TFLITE_METADATA and the files behind the model.

    Args:
        content: of the whole file, which ends in a zip archive with the labels.
        entry: content of the metadata entry.
        graph: the main graph of the model.

    Raises:
        flatbuffer.DAMAGE: the entry is truncated or overwritten.
    """
    if entry[4:8] != fields.IDENTIFIER:
        raise ValueError("no metadata of the standard")
    root = _Table(entry, int.from_bytes(entry[:4], "little"))
    described = root.tables(fields.MODEL_SUBGRAPHS)
    if not described:
        return StandardMetadata(root.text(fields.MODEL_NAME))
    inputs, outputs = (described[0].tables(field) for field in (fields.GRAPH_INPUTS, fields.GRAPH_OUTPUTS))
    mean, std = _normalization(inputs[0], graph) if inputs else ((), ())
    sizes = [flatbuffer.shape(graph.Tensors(index))[-1:] for index in flatbuffer.graph_outputs(graph)]
    labels = _labels(content, outputs[0], sizes[0]) if outputs and sizes else ()
    bounded = bool(outputs) and _lies_between_0_and_1(outputs[0])
    return StandardMetadata(root.text(fields.MODEL_NAME), mean, std, labels, "probabilities" if bounded else None)


class _Table:
    """A table of a flatbuffer, read by the numbers of its fields."""

    def __init__(self, content: bytes, position: int):
        self._table = flatbuffers.table.Table(bytearray(content), position)

    def text(self, field: int) -> str:
        position = self._position(field)
        return "" if position is None else self._table.String(position).decode()

    def byte(self, field: int) -> int:
        position = self._position(field)
        return 0 if position is None else self._table.Get(number_types.Uint8Flags, position)

    def floats(self, field: int) -> tuple[float, ...]:
        offset = self._table.Offset(4 + 2 * field)
        values = self._table.GetVectorAsNumpy(number_types.Float32Flags, offset) if offset else ()
        return tuple(float(value) for value in values)

    def table(self, field: int) -> "_Table | None":
        position = self._position(field)
        return None if position is None else _Table(self._table.Bytes, self._table.Indirect(position))

    def tables(self, field: int) -> list["_Table"]:
        offset = self._table.Offset(4 + 2 * field)
        if not offset:
            return []
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return [_Table(self._table.Bytes, self._table.Indirect(start + 4 * number)) for number in range(count)]

    def _position(self, field: int) -> int | None:
        offset = self._table.Offset(4 + 2 * field)
        return offset + self._table.Pos if offset else None


def _normalization(described: _Table, graph: schema.SubGraph) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels of 0 to 255."""
    tensor = graph.Tensors(flatbuffer.graph_inputs(graph)[0])
    quantization = tensor.Quantization()
    if flatbuffer.type_name(tensor) == "UINT8":  # by the standard, such an input takes raw pixels
        if quantization is None or not quantization.ScaleLength():
            return (0.0,), (1.0,)
        return (float(quantization.ZeroPoint(0)),), (1.0 / quantization.Scale(0),)
    for unit in described.tables(fields.TENSOR_UNITS):
        options = unit.table(fields.UNIT_OPTIONS)
        if unit.byte(fields.UNIT_KIND) == fields.NORMALIZATION and options is not None:
            mean, std = options.floats(fields.MEAN), options.floats(fields.STD)
            if mean and std and np.isfinite(mean).all() and np.isfinite(std).all() and min(std) > 0:
                return mean, std
    return (), ()


def _labels(content: bytes, described: _Table, classes: Sequence[int]) -> tuple[str, ...]:
    """The class names of an output from its associated file; empty if no file has one line for each class."""
    types = (fields.AXIS_LABELS, fields.UNKNOWN_FILE)
    names = [
        file.text(fields.FILE_NAME)
        for file in described.tables(fields.TENSOR_FILES)
        if file.byte(fields.FILE_TYPE) in types
    ]
    if not names or not zipfile.is_zipfile(io.BytesIO(content)):
        return ()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in (name for name in names if name in archive.namelist()):
            lines = archive.read(name).decode("utf-8-sig", errors="replace").splitlines()
            lines = [line.strip() for line in lines]
            while lines and not lines[-1]:
                lines.pop()
            if [len(lines)] == list(classes):
                return _without_numbers(lines)
    return ()


def _without_numbers(lines: Sequence[str]) -> tuple[str, ...]:
    """The names without line numbers, as in "0 cat", "1 dog"."""
    matches = [re.fullmatch(rf"0*{number}[\s:,;]+(\S.*)", line) for number, line in enumerate(lines)]
    return tuple(match.group(1) for match in matches) if all(matches) else tuple(lines)


def _lies_between_0_and_1(described: _Table) -> bool:
    stats = described.table(fields.TENSOR_STATS)
    return (
        stats is not None
        and set(stats.floats(fields.STATS_MIN)) == {0.0}
        and set(stats.floats(fields.STATS_MAX)) == {1.0}
    )
