"""Writes the standard TFLite metadata, a separate flatbuffer (identifier M001, schema version 1).

Only the tables and fields for image networks are here, by their numbers in the schema.
"""

from collections.abc import Mapping
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from dcp_tf.tflite.schema import flatbuffer

IDENTIFIER = b"M001"
# Field numbers of each table.
MODEL_NAME, MODEL_DESCRIPTION, MODEL_VERSION, MODEL_SUBGRAPHS, MODEL_PARSER = 0, 1, 2, 3, 7
GRAPH_INPUTS, GRAPH_OUTPUTS = 2, 3
TENSOR_NAME, TENSOR_DESCRIPTION, TENSOR_CONTENT, TENSOR_UNITS, TENSOR_STATS, TENSOR_FILES = 0, 1, 3, 4, 5, 6
FILE_NAME, FILE_DESCRIPTION, FILE_TYPE = 0, 1, 2
CONTENT_KIND, CONTENT = 0, 1
IMAGE_COLORS, UNIT_KIND, UNIT_OPTIONS, MEAN, STD = 0, 0, 1, 0, 1
STATS_MAX, STATS_MIN = 0, 1
# Values of enumerations.
UNKNOWN_FILE, AXIS_LABELS = 0, 2  # AssociatedFileType; TENSOR_AXIS_LABELS
_FEATURES, _IMAGE = 1, 2  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions.NormalizationOptions
_COLORS = {"RGB": 1, "GRAY": 2}  # ColorSpaceType; the schema has none for BGR
_PARSER_VERSION = "1.0.0"  # the oldest with all these fields


def standard_metadata(metadata: Any, graph: schema.SubGraph, labels_file: str | None) -> bytes:
    """The content of the entry TFLITE_METADATA.

    Args:
        metadata: a `Metadata`.
        graph: the main graph of the model; all its inputs and outputs are described.
        labels_file: name of the associated file with the class names, or None.
    """
    inputs = [_input(metadata, graph.Tensors(index)) for index in flatbuffer.graph_inputs(graph)]
    outputs = [_output(metadata, graph.Tensors(index), labels_file) for index in flatbuffer.graph_outputs(graph)]
    about = f"{metadata.model}, {metadata.quantization}, converted by dcp_tf {metadata.dcp_tf_version}"
    builder = flatbuffers.Builder(1024)
    root = _table(
        builder,
        {
            MODEL_NAME: metadata.model,
            MODEL_DESCRIPTION: about,
            MODEL_VERSION: metadata.dcp_tf_version,
            MODEL_SUBGRAPHS: [{GRAPH_INPUTS: inputs, GRAPH_OUTPUTS: outputs}],
            MODEL_PARSER: _PARSER_VERSION,
        },
    )
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _input(metadata: Any, tensor: schema.Tensor) -> dict[int, Any]:
    fields: dict[int, Any] = {TENSOR_NAME: flatbuffer.short_name(tensor)}
    if metadata.normalization is None or len(flatbuffer.shape(tensor)) != 4:
        return fields | {TENSOR_CONTENT: {CONTENT_KIND: _FEATURES, CONTENT: {}}}
    order = f", channels in the order {metadata.channels}" if metadata.channels == "BGR" else ""
    colors = {IMAGE_COLORS: _COLORS[metadata.channels]} if metadata.channels in _COLORS else {}
    options = {MEAN: list(metadata.mean), STD: list(metadata.std)}
    return fields | {
        TENSOR_DESCRIPTION: f"Image ({metadata.input_layout}), normalization {metadata.normalization}{order}",
        TENSOR_CONTENT: {CONTENT_KIND: _IMAGE, CONTENT: colors},
        TENSOR_UNITS: [{UNIT_KIND: NORMALIZATION, UNIT_OPTIONS: options}],
    }


def _output(metadata: Any, tensor: schema.Tensor, labels_file: str | None) -> dict[int, Any]:
    fields: dict[int, Any] = {
        TENSOR_NAME: flatbuffer.short_name(tensor),
        TENSOR_CONTENT: {CONTENT_KIND: _FEATURES, CONTENT: {}},
    }
    if metadata.outputs:
        fields[TENSOR_DESCRIPTION] = metadata.outputs
    shape = flatbuffer.shape(tensor)
    if labels_file and shape and shape[-1] == len(metadata.labels):
        entry = {FILE_NAME: labels_file, FILE_DESCRIPTION: "Names of the classes.", FILE_TYPE: AXIS_LABELS}
        fields[TENSOR_FILES] = [entry]
    return fields


def _table(builder: flatbuffers.Builder, fields: Mapping[int, Any]) -> int:
    """Writes a table: texts, tables and lists of them (a dictionary is a table), and one-byte numbers."""
    # Children first: a flatbuffer is written from its end.
    offsets = {number: _child(builder, value) for number, value in fields.items() if not isinstance(value, int)}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, value in fields.items():
        if isinstance(value, int):
            builder.PrependUint8Slot(number, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, offsets[number], 0)
    return builder.EndObject()


def _child(builder: flatbuffers.Builder, value: Any) -> int:
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Mapping):
        return _table(builder, value)
    if value and isinstance(value[0], float):
        builder.StartVector(4, len(value), 4)
        for number in reversed(value):
            builder.PrependFloat32(number)
        return builder.EndVector()
    items = [_child(builder, item) for item in value]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()
