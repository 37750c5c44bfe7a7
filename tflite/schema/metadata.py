"""Metadata of a file: class names, normalization of the pixels, and origin.

They are written twice: as the standard TFLite metadata (`TFLITE_METADATA`, with `labels.txt` in a zip archive behind
the model), which Android's MetadataExtractor, the Task Library and MediaPipe read:

    val metadata = MetadataExtractor(buffer)
    val labels = metadata.getAssociatedFile("labels.txt").bufferedReader().readLines()

and as JSON (an entry `DCP_TF_METADATA` of the model's metadata table), for values without a field in the standard.
Metadata do not change what the file computes; a runtime that does not know them ignores them.
"""

import contextlib
import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.schema.metadata_format import standard_metadata
from dcp_tf.tflite.schema.standard_metadata import read_standard
from dcp_tf.tflite.types import TFLiteFile, read_content, source_name

STANDARD, OWN = "TFLITE_METADATA", "DCP_TF_METADATA"
LABELS_FILE = "labels.txt"
_OF_SEVERAL = ("inputs", "parts")
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # equal models give equal files


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Metadata of a file.

    A pixel of 0..255 becomes `(pixel - mean) / std` per channel before it enters the model; an integer input is then
    quantized with the scale and zero point of its tensor.

    Attributes:
        model: name of the Keras model.
        quantization: the mode of the file.
        labels: names of the classes in the order of the outputs; empty if unknown.
        normalization: name of the normalization of the pixels, such as "imagenet"; None if the inputs are no images.
        mean: one value, or one per channel in the order of `channels`.
        std: the standard deviation, as `mean`.
        channels: "RGB", "BGR" or "GRAY"; None for other inputs.
        input_layout: order of the input's axes, such as "NHWC"; None if the inputs are no images.
        outputs: "logits", "probabilities", "embeddings" or "numbers"; None if unknown.
        loss: the loss of the training, such as "softmax"; None if unknown.
        dcp_tf_version: of the library that wrote the file.
        inputs: of a file with several inputs or outputs the `name` and the `normalization` of each input, in the order
            of the signature; empty for others.
        parts: of such a file the `name`, `kind` ("logits", "softmax", "sigmoid"), `loss` and `weight` of each output.
    """

    model: str
    quantization: str
    labels: tuple[str, ...] = ()
    normalization: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: str | None = None
    input_layout: str | None = None
    outputs: str | None = None
    loss: str | None = None
    dcp_tf_version: str = dcp_tf.__version__
    inputs: tuple[Mapping[str, Any], ...] = ()
    parts: tuple[Mapping[str, Any], ...] = ()


def image_metadata(
    model: Any,
    quantization: str,
    normalization: Any,
    labels: tuple[str, ...] = (),
    outputs: str | None = None,
    loss: str | None = None,
) -> Metadata:
    """The metadata of a network for images.

    Args:
        model: the Keras model.
        quantization: the mode of the file.
        normalization: a `dcp_tf.data.Normalization`, or None for inputs that are no images.
        labels: names of the classes.
        outputs: "logits", "probabilities", "embeddings" or "numbers".
        loss: the loss of the training, such as "softmax".
    """
    shape = next((tuple(x.shape) for x in model.inputs if len(x.shape) == 4), ())
    metadata = Metadata(model.name, quantization, tuple(labels), outputs=outputs, loss=loss)
    if normalization is None or len(shape) != 4:
        return metadata
    mean, std = _pixel_values(normalization)
    channels = {1: "GRAY", 3: "BGR" if normalization.bgr else "RGB"}.get(shape[-1])
    return dataclasses.replace(
        metadata, normalization=normalization.name, mean=mean, std=std, channels=channels, input_layout="NHWC"
    )


def with_metadata(file: TFLiteFile, metadata: Metadata) -> TFLiteFile:
    """The same file with `metadata` in place of its earlier metadata.

    Raises:
        UsageError: the file is damaged.
    """
    content = file.content
    with flatbuffer.refuse_damage(file):
        model = flatbuffer.unpack(content)
        graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
        standard = standard_metadata(metadata, graph, LABELS_FILE if _labelled(metadata, graph) else None)
    _set_entry(model, STANDARD, standard)
    written = {key: value for key, value in dataclasses.asdict(metadata).items() if value or key not in _OF_SEVERAL}
    _set_entry(model, OWN, json.dumps(written).encode())
    packed = flatbuffer.pack(model)
    if _labelled(metadata, graph):
        lines = (" ".join(label.split()) for label in metadata.labels)
        packed = _with_archive(packed, LABELS_FILE, "\n".join(lines) + "\n")
    return dataclasses.replace(file, content=packed, path=None)


def read_metadata(source: TFLiteFile | str | os.PathLike) -> Metadata | None:
    """The metadata that `with_metadata` wrote, or else the standard metadata that another tool wrote.

    In files of other tools `quantization`, `dcp_tf_version` and all fields without a counterpart in the standard are
    empty.

    Returns:
        None if the file has no metadata.

    Raises:
        UsageError: there is no such file, it is not a TFLite model, or its metadata are damaged.
    """
    content = read_content(source)
    try:
        model = schema.Model.GetRootAs(content, 0)
        entries = {}
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            entries[entry.Name().decode()] = flatbuffer.stored(model, entry.Buffer()).tobytes()
        if OWN in entries:
            with contextlib.suppress(*flatbuffer.DAMAGE):  # the standard entry may be intact
                return _own(entries[OWN])
        if STANDARD in entries:
            return _foreign(content, entries[STANDARD], model.Subgraphs(0))
    except flatbuffer.DAMAGE as error:
        raise UsageError(f"the metadata of {source_name(source)} are damaged; write the file again") from error
    if OWN in entries:
        raise UsageError(f"the metadata of {source_name(source)} are damaged; write the file again")
    return None


def _own(entry: bytes) -> Metadata:
    """What `with_metadata` wrote; fields of later versions are ignored."""
    written = json.loads(entry)
    known = {field.name: written[field.name] for field in dataclasses.fields(Metadata) if field.name in written}
    for name in ("mean", "std"):
        known[name] = tuple(float(value) for value in known.get(name, ()))
    known["labels"] = tuple(str(label) for label in known.get("labels", ()))
    known |= {name: tuple(map(dict, known.get(name, ()))) for name in _OF_SEVERAL}
    return Metadata(**known)


def _foreign(content: bytes, entry: bytes, graph: schema.SubGraph) -> Metadata:
    """The standard metadata as a `Metadata`."""
    standard = read_standard(content, entry, graph)
    return Metadata(
        standard.name,
        quantization="",
        labels=standard.labels,
        normalization=_name_of(standard.mean, standard.std) if standard.mean else None,
        mean=standard.mean,
        std=standard.std,
        outputs=standard.outputs,
        dcp_tf_version="",
    )


def _name_of(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """The name of a normalization of RGB or gray pixels of 0 to 255; "mean/std" if it has none."""
    from dcp_tf.data import NORMALIZATIONS  # here: it imports TensorFlow

    for name, known in NORMALIZATIONS.items():
        pairs = zip((mean, std), _pixel_values(known), strict=True)
        if not known.bgr and all(len(a) in (1, len(b)) and np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs):
            return name
    return "mean/std"


def _pixel_values(normalization: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of a normalization for pixels of 0 to 255."""
    white = 255.0 / normalization.scale
    return tuple(value * white for value in normalization.mean), tuple(value * white for value in normalization.std)


def _labelled(metadata: Metadata, graph: schema.SubGraph) -> bool:
    """Whether an output has one value for each class."""
    shapes = [flatbuffer.shape(graph.Tensors(index)) for index in flatbuffer.graph_outputs(graph)]
    return bool(metadata.labels) and any(shape and shape[-1] == len(metadata.labels) for shape in shapes)


def _set_entry(model: schema.ModelT, name: str, content: bytes) -> None:
    """Sets the entry of that name in the model's metadata table."""
    model.metadata = list(model.metadata or [])
    entries = {entry.name if isinstance(entry.name, str) else entry.name.decode(): entry for entry in model.metadata}
    if name not in entries:
        model.buffers.append(schema.BufferT())
        entries[name] = schema.MetadataT(name=name, buffer=len(model.buffers) - 1)
        model.metadata.append(entries[name])
    model.buffers[entries[name].buffer] = schema.BufferT(data=np.frombuffer(content, np.uint8))


def _with_archive(content: bytes, name: str, text: str) -> bytes:
    """Appends a zip archive with one file to a model; zip readers search from the end."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name, _NO_TIME), text)
    return stream.getvalue()
