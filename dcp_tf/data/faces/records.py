"""Faces in TFRecord files: aligned crops with the identity of each."""

import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from dcp_tf import progress
from dcp_tf.data import pixel_sources
from dcp_tf.data.folder import require_face_size
from dcp_tf.data.preprocessing import Shape, decoded_shape, to_shape
from dcp_tf.data.tfrecords import RecordIndex, index_records
from dcp_tf.errors import UsageError

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")  # which TensorFlow decodes
_IMAGE = {"image": tf.io.FixedLenFeature((), tf.string)}


@dataclasses.dataclass(frozen=True, eq=False)
class FaceRecords:
    """Faces in TFRecord files.

    Attributes:
        index: positions of the records in the files.
        numbers: (N,) of int64, the chosen records.
        identities: (N,) of str, who they show.
        sizes: (N, 2) of int, their width and height.
    """

    index: RecordIndex
    numbers: np.ndarray
    identities: np.ndarray
    sizes: np.ndarray

    def take(self, positions: np.ndarray) -> "FaceRecords":
        """Only the records at some positions."""
        return FaceRecords(self.index, self.numbers[positions], self.identities[positions], self.sizes[positions])

    def source(self, input_shape: tuple[int | None, ...] | None, *, resize: bool = True) -> pixel_sources.Source:
        """The images at `numbers`, in memory if they fit; in the given shape, or in that of the first image.

        Raises:
            UsageError: an image cannot be decoded, or without `resize` has another size.
        """
        shape = self._shape(input_shape)
        if not resize:
            for number, size in zip(self.numbers, self.sizes, strict=True):
                require_face_size(self._name(number), tuple(size.tolist()), shape[:2])
        streamed = pixel_sources.StreamSource(lambda number: self._image(number, shape), self.numbers, shape)
        if len(self.numbers) * int(np.prod(shape)) > pixel_sources.MEMORY_LIMIT:
            return streamed
        return pixel_sources.ArraySource(self._decoded(streamed), white=255.0)

    def _decoded(self, streamed: pixel_sources.StreamSource) -> np.ndarray:
        images, filled = np.empty((len(self.numbers), *streamed.shape), np.uint8), 0
        batches = streamed.batches(np.arange(len(self.numbers)), 64, False)
        with progress.bar(what="decoding the images", total=len(self.numbers), unit="image") as bar:
            try:
                for _, pixels in batches.as_numpy_iterator():
                    images[filled : filled + len(pixels)] = pixels
                    filled += len(pixels)
                    bar.update(len(pixels))
            except tf.errors.InvalidArgumentError as error:
                damaged = next(number for number in self.numbers[filled:] if not self._is_whole(number, streamed.shape))
                raise UsageError(f"{self._name(damaged)} holds a damaged image; replace or remove it") from error
        return images

    def _is_whole(self, number: int, shape: Shape) -> bool:
        try:
            self._image(tf.constant(number), shape)
        except tf.errors.InvalidArgumentError:
            return False
        return True

    def _name(self, number: int) -> str:
        file = self.index.file_numbers[number]
        return _record_name(number - np.searchsorted(self.index.file_numbers, file), self.index.files[file])

    def _shape(self, input_shape: tuple[int | None, ...] | None) -> Shape:
        first = tf.io.parse_single_example(self.index.read(tf.constant(self.numbers[0])), _IMAGE)["image"]
        first_shape = tf.io.decode_image(first, expand_animations=False).shape
        return decoded_shape(input_shape, first_shape[:2], gray=first_shape[2] == 1)

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
    identities, sizes = [], []
    with progress.bar(what="reading the identities", total=len(index), unit="image") as bar:
        for file in index.files:
            for position, record in enumerate(tf.data.TFRecordDataset(file).as_numpy_iterator()):
                identity, image = _features(record, file)
                identities.append(identity)
                sizes.append(_image_size(image, _record_name(position, file)))
                bar.update(1)
    if not identities:
        raise UsageError(f"{files[0]} holds no records")
    return FaceRecords(index, np.arange(len(index), dtype=np.int64), np.array(identities), np.array(sizes))


def _record_name(position: int, file: str) -> str:
    return f"record {position + 1} of {file}"


def _features(record: bytes, file: str) -> tuple[str, bytes]:
    """The identity and the image of a record."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's own class of errors differs between its versions
        raise UsageError(f"the records of {file} are no tf.train.Example: {error}") from error
    identity = features["identity"] if "identity" in features else tf.train.Feature()
    names = [name.decode(errors="replace") for name in identity.bytes_list.value] or [
        f"{number:08d}" for number in identity.int64_list.value
    ]
    images = features["image"].bytes_list.value if "image" in features else ()
    if len(names) != 1 or len(images) != 1:
        raise UsageError(
            f"a record of {file} has the features {', '.join(sorted(features)) or 'none'}; expected 'image' (a JPEG or "
            "PNG file as bytes) and 'identity' (a name as bytes or a number as int64)"
        )
    return names[0], images[0]


def _image_size(encoded: bytes, name: str) -> tuple[int, int]:
    """Width and height, read from the header."""
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(
            f"{name} holds {len(encoded)} bytes as 'image' that are no JPEG or PNG file; write encoded images, not "
            "pixels"
        ) from error
