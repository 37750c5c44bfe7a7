"""Faces in TFRecord files: aligned crops with the identity of each."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import sources
from dcp_tf.data.preprocessing import Shape, to_shape
from dcp_tf.data.tfrecords import RecordIndex, index_records
from dcp_tf.errors import UsageError

_IMAGE = {"image": tf.io.FixedLenFeature((), tf.string)}


@dataclasses.dataclass(frozen=True, eq=False)
class FaceRecords:
    """Faces in TFRecord files.

    Attributes:
        index: where the records lie.
        numbers: (N,) of int64, which of the records are meant.
        identities: (N,) of str, who they show.
    """

    index: RecordIndex
    numbers: np.ndarray
    identities: np.ndarray

    def source(self, input_shape: tuple[int | None, ...] | None) -> sources.Source:
        """The images at `numbers`, in memory if they fit; in the wanted shape, or in that of the first image."""
        shape = self._shape(input_shape)
        streamed = sources.StreamSource(lambda number: self._image(number, shape), self.numbers, shape)
        if len(self.numbers) * int(np.prod(shape)) > sources.MEMORY_LIMIT:
            return streamed
        images, filled = np.empty((len(self.numbers), *shape), np.uint8), 0
        batches = streamed.batches(np.arange(len(self.numbers)), 64, False)
        with progress.bar(what="decoding the images", total=len(self.numbers), unit="image") as bar:
            for _, pixels in batches.as_numpy_iterator():
                images[filled : filled + len(pixels)] = pixels
                filled += len(pixels)
                bar.update(len(pixels))
        return sources.ArraySource(images, white=255.0)

    def _shape(self, input_shape: tuple[int | None, ...] | None) -> Shape:
        height, width, channels = (None, None, None) if input_shape is None or len(input_shape) != 3 else input_shape
        first = tf.io.parse_single_example(self.index.read(tf.constant(self.numbers[0])), _IMAGE)["image"]
        found = tf.io.decode_image(first, expand_animations=False).shape
        channels = channels if channels in (1, 3) else 1 if found[2] == 1 else 3
        return height or found[0], width or found[1], channels

    def _image(self, number: tf.Tensor, shape: Shape) -> tf.Tensor:
        encoded = tf.io.parse_single_example(self.index.read(number), _IMAGE)["image"]
        pixels = tf.io.decode_image(encoded, shape[2], expand_animations=False)
        pixels = to_shape(tf.ensure_shape(pixels, (None, None, shape[2]))[None], shape)[0]
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)


def record_files(root: pathlib.Path) -> list[str]:
    """The TFRecord files at `root`, itself one or a folder of them: those with `.tfrecord` in their name, sorted."""
    candidates = [root] if root.is_file() else root.iterdir()
    return sorted(str(path) for path in candidates if ".tfrecord" in path.name and path.is_file())


def open_face_records(files: Sequence[str]) -> FaceRecords:
    """Reads who is shown in the records of some files.

    Raises:
        UsageError: there are no records, a file is cut short, or a record lacks the features.
    """
    index = index_records(files)
    identities = []
    records = tf.data.TFRecordDataset(list(index.files)).as_numpy_iterator()
    for record in progress.bar(records, what="reading the identities", total=len(index), unit="image"):
        identities.append(_identity(record, files[0]))
    if not identities:
        raise UsageError(f"{files[0]} holds no records")
    return FaceRecords(index, np.arange(len(index), dtype=np.int64), np.array(identities))


def _identity(record: bytes, file: str) -> str:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's own class of errors differs between its versions
        raise UsageError(f"the records of {file} are no tf.train.Example: {error}") from error
    identity = features["identity"] if "identity" in features else tf.train.Feature()
    names = [name.decode(errors="replace") for name in identity.bytes_list.value] or [
        f"{number:08d}" for number in identity.int64_list.value
    ]
    if len(names) != 1 or len(features["image"].bytes_list.value) != 1:
        raise UsageError(
            f"a record of {file} has the features {', '.join(sorted(features)) or 'none'}; expected 'image' (a JPEG or "
            "PNG file as bytes) and 'identity' (a name as bytes or a number as int64)"
        )
    return names[0]
