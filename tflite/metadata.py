"""What a file says about itself: class names, what to do to the pixels, and where it comes from.

It is written twice. Once as the standard TFLite metadata (`TFLITE_METADATA`, with `labels.txt` in a zip archive behind
the model), which Android's MetadataExtractor, the Task Library and MediaPipe read:

    val metadata = MetadataExtractor(buffer)
    val labels = metadata.getAssociatedFile("labels.txt").bufferedReader().readLines()

And once as JSON (an entry `DCP_TF_METADATA` of the model's own table), for all that the standard has no field for.
Neither changes what the file computes; a runtime that knows nothing of them skips them.
"""

import dataclasses
import io
import json
import os
import zipfile
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.tflite import flatbuffer
from dcp_tf.tflite.metadata_format import standard_metadata
from dcp_tf.tflite.types import TFLiteFile, read_content, source_name

STANDARD, OWN = "TFLITE_METADATA", "DCP_TF_METADATA"
LABELS_FILE = "labels.txt"
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # equal models give equal files


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a file says about itself.

    A pixel of 0..255 becomes `(pixel - mean) / std` per channel before it enters the model; an integer input is then
    quantized with the scale and zero point of its tensor.

    Attributes:
        model: name of the Keras model.
        quantization: the mode of the file.
        labels: names of the classes in the order of the outputs; empty where they are unknown.
        normalization: name of what was done to the pixels, such as "imagenet"; None where the inputs are no images.
        mean: one value, or one per channel in the order of `channels`.
        std: goes with it.
        channels: "RGB", "BGR" or "GRAY"; None where the inputs are no such images.
        input_layout: order of an input's axes, such as "NHWC"; None where the inputs are no images.
        outputs: "logits", "probabilities" or "embeddings"; None where it is unknown.
        dcp_tf_version: of the library that wrote the file.
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
    dcp_tf_version: str = dcp_tf.__version__


def image_metadata(
    model: Any, quantization: str, normalization: Any, labels: tuple[str, ...] = (), outputs: str | None = None
) -> Metadata:
    """The metadata of a network for images.

    Args:
        model: the Keras model.
        quantization: the mode of the file.
        normalization: a `dcp_tf.data.Normalization`, or None for inputs that are no images.
        labels: names of the classes.
        outputs: "logits", "probabilities" or "embeddings".
    """
    shape = tuple(model.inputs[0].shape)
    if normalization is None or len(shape) != 4:
        return Metadata(model.name, quantization, tuple(labels), outputs=outputs)
    white = 255.0 / normalization.scale
    return Metadata(
        model.name,
        quantization,
        tuple(labels),
        normalization=normalization.name,
        mean=tuple(value * white for value in normalization.mean),
        std=tuple(value * white for value in normalization.std),
        channels={1: "GRAY", 3: "BGR" if normalization.bgr else "RGB"}.get(shape[-1]),
        input_layout="NHWC",
        outputs=outputs,
    )


def with_metadata(file: TFLiteFile, metadata: Metadata) -> TFLiteFile:
    """The same model with `metadata` in place of what it said about itself before.

    Raises:
        UsageError: the file is damaged.
    """
    content = file.content
    try:
        model = flatbuffer.unpack(content)
        graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
        standard = standard_metadata(metadata, graph, LABELS_FILE if _labelled(metadata, graph) else None)
    except flatbuffer.DAMAGE as error:
        raise UsageError(f"{source_name(file)} is damaged: its tables cannot be read; write it again") from error
    _set_entry(model, STANDARD, standard)
    _set_entry(model, OWN, json.dumps(dataclasses.asdict(metadata)).encode())
    packed = flatbuffer.pack(model)
    if _labelled(metadata, graph):
        packed = _with_archive(packed, LABELS_FILE, "\n".join(metadata.labels) + "\n")
    return dataclasses.replace(file, content=packed, path=None)


def read_metadata(source: TFLiteFile | str | os.PathLike) -> Metadata | None:
    """What `with_metadata` wrote into a file; None where it was not called.

    Raises:
        UsageError: there is no such file, or it holds no TFLite model.
    """
    content = read_content(source)
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name().decode() == OWN:
                found = json.loads(flatbuffer.stored(model, entry.Buffer()).tobytes())
                lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
                return Metadata(**found | lists)
    except flatbuffer.DAMAGE as error:
        raise UsageError(f"{source_name(source)} is damaged: its tables cannot be read; write it again") from error
    return None


def _labelled(metadata: Metadata, graph: schema.SubGraph) -> bool:
    """Whether there is an output with one value for each class."""
    shapes = [flatbuffer.shape(graph.Tensors(index)) for index in flatbuffer.graph_outputs(graph)]
    return bool(metadata.labels) and any(shape and shape[-1] == len(metadata.labels) for shape in shapes)


def _set_entry(model: schema.ModelT, name: str, content: bytes) -> None:
    """Fills the entry of that name in the model's metadata table, which is made if it is not there."""
    model.metadata = list(model.metadata or [])
    entries = {entry.name if isinstance(entry.name, str) else entry.name.decode(): entry for entry in model.metadata}
    if name not in entries:
        model.buffers.append(schema.BufferT())
        entries[name] = schema.MetadataT(name=name, buffer=len(model.buffers) - 1)
        model.metadata.append(entries[name])
    model.buffers[entries[name].buffer] = schema.BufferT(data=np.frombuffer(content, np.uint8))


def _with_archive(content: bytes, name: str, text: str) -> bytes:
    """Puts a zip archive with one file behind a model; readers of zip look for it from the end."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name, _NO_TIME), text)
    return stream.getvalue()
