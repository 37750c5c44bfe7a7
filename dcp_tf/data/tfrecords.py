"""Random access to the records of TFRecord files."""

import dataclasses
import functools
import os
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError

_GZIP = b"\x1f\x8b"
# A record: its length (uint64, little endian), a checksum of that, the payload, a checksum of the payload.
_HEADER_BYTES, _LENGTH_BYTES, _FOOTER_BYTES = 12, 8, 4


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
    """The position of each record.

    Attributes:
        files: the paths of the files.
        file_numbers: (N,) which file.
        offsets: (N,) where the payload begins, in bytes.
        lengths: (N,) the bytes of the payload.
    """

    files: Sequence[str]
    file_numbers: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the payload of one record inside `tf.data`: a scalar string."""
        return tf.ensure_shape(tf.numpy_function(self._read, [number], tf.string), ())

    def _read(self, number: int) -> bytes:
        start = self.offsets[number]
        return self._maps[self.file_numbers[number]][start : start + self.lengths[number]].tobytes()

    @functools.cached_property
    def _maps(self) -> list[np.memmap]:
        return [np.memmap(path, np.uint8, mode="r") for path in self.files]


def index_records(files: Sequence[str]) -> RecordIndex:
    """Reads the headers of TFRecord files.

    Raises:
        UsageError: a file ends inside a record, or is compressed.
    """
    files = [path for path in files if os.path.getsize(path)]  # an empty shard cannot be mapped
    records = []
    for number, path in enumerate(files):
        with open(path, "rb") as file:
            end = file.seek(0, 2)
            position = 0
            while position < end:
                file.seek(position)
                header = file.read(_LENGTH_BYTES)
                length = struct.unpack("<Q", header)[0] if len(header) == _LENGTH_BYTES else end
                records.append((number, position + _HEADER_BYTES, length))
                position += _HEADER_BYTES + length + _FOOTER_BYTES
        if position != end:
            with open(path, "rb") as file:
                is_compressed = file.read(len(_GZIP)) == _GZIP
            if is_compressed:
                raise UsageError(f"{path} is compressed; unpack it with gzip")
            raise UsageError(f"{path} is cut short; download or prepare the data set again")
    file_numbers, offsets, lengths = np.asarray(records, np.int64).reshape(-1, 3).T
    return RecordIndex(tuple(files), file_numbers, offsets, lengths)
