"""Sources of images: random access to pixels, in memory or decoded on demand."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from dcp_tf.data.gather import all_finite, gathered
from dcp_tf.data.preprocessing import Shape
from dcp_tf.errors import UsageError

# A data set is decoded into memory if its pixels need at most this many bytes.
MEMORY_LIMIT = 2**29


class Source(Protocol):
    """Images of one shape that can be read in any order.

    Attributes:
        size: how many images there are.
        shape: (H, W, C) of each.
        white: the value of white, or None for floats, which stay unchanged.
    """

    size: int
    shape: Shape
    white: float | None

    def batches(self, order: np.ndarray, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
        """Yields (positions (B,) int64, pixels (B, H, W, C)) in the given order of positions."""

    def take(self, positions: np.ndarray) -> "Source":
        """Returns the source that holds only the images at `positions`."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Decoded images in memory.

    Attributes:
        pixels: (N, H, W, C), shared by all sources that were taken from one.
        white: as in `Source`.
        chosen: positions of this source's images in `pixels`; None means all.
    """

    pixels: np.ndarray = dataclasses.field(repr=False)
    white: float | None = None
    chosen: np.ndarray | None = dataclasses.field(default=None, repr=False)

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.pixels if self.chosen is None else self.chosen)

    @property
    def shape(self) -> Shape:
        """(H, W, C) of each image."""
        return tuple(self.pixels.shape[1:])

    @property
    def images(self) -> np.ndarray:
        """The images as one array, a copy if they are a subset."""
        return self.pixels if self.chosen is None else self.pixels[self.chosen]

    def batches(self, order: np.ndarray, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
        """See `Source`."""
        return gathered(order, batch_size, drop_remainder, [self.pixels], self.chosen)

    def take(self, positions: np.ndarray) -> "ArraySource":
        """See `Source`."""
        chosen = positions if self.chosen is None else self.chosen[positions]
        return dataclasses.replace(self, chosen=np.asarray(chosen))


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSource:
    """Images that are decoded on demand.

    Attributes:
        read: maps a scalar int64 tensor, an entry of `keys`, to uint8 pixels of shape `shape`; runs inside `tf.data`.
        keys: (N,) of int64, what `read` is called with for each position.
        shape: as in `Source`.
        white: as in `Source`.
    """

    read: Callable[[tf.Tensor], tf.Tensor]
    keys: np.ndarray = dataclasses.field(repr=False)
    shape: Shape
    white: float | None = 255.0

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.keys)

    def batches(self, order: np.ndarray, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
        """See `Source`."""
        positions = tf.data.Dataset.from_tensor_slices((order, self.keys[order]))
        images = positions.map(
            lambda position, key: (position, tf.ensure_shape(self.read(key), self.shape)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return images.batch(batch_size, drop_remainder=drop_remainder)

    def take(self, positions: np.ndarray) -> "StreamSource":
        """See `Source`."""
        return dataclasses.replace(self, keys=self.keys[positions])


@dataclasses.dataclass(frozen=True, eq=False)
class CroppingSource:
    """Photographs cropped to one shape: centrally, or randomly for the augmentation "crop".

    Attributes:
        steady: reads the central crops.
        read_crop: maps an entry of `keys` and a seed, (2,) of int64, to uint8 pixels of the same shape; runs inside
            `tf.data`.
        keys: (N,) of int64.
    """

    steady: Source
    read_crop: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    keys: np.ndarray = dataclasses.field(repr=False)

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.keys)

    @property
    def shape(self) -> Shape:
        """(H, W, C) of each crop."""
        return self.steady.shape

    @property
    def white(self) -> float | None:
        """As in `Source`."""
        return self.steady.white

    def batches(self, order: np.ndarray, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
        """See `Source`."""
        return self.steady.batches(order, batch_size, drop_remainder)

    def crops(self, order: np.ndarray, batch_size: int, drop_remainder: bool, seed: int) -> tf.data.Dataset:
        """As `batches`, with random crops: the same for the same seed, whatever batch an image is in."""
        seeded = StreamSource(
            lambda key: self.read_crop(key, tf.stack([tf.constant(seed, key.dtype), key])), self.keys, self.shape
        )
        return seeded.batches(order, batch_size, drop_remainder)

    def take(self, positions: np.ndarray) -> "CroppingSource":
        """See `Source`."""
        return dataclasses.replace(self, steady=self.steady.take(positions), keys=self.keys[positions])


def array_source(images: np.ndarray, what: str) -> ArraySource:
    """Checks and converts a user's array of images.

    Args:
        images: (N, H, W, C), or (N, H, W) for gray images; integers of 0..255, or floats.
        what: its name, for error messages.

    Raises:
        UsageError: it does not hold images, or its pixels are not numbers.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise UsageError(f"{what} must hold images of shape (N, H, W, C) or (N, H, W), received {images.shape}")
    if np.issubdtype(images.dtype, np.integer):
        if images.dtype != np.uint8 and (images.min() < 0 or images.max() > 255):
            raise UsageError(
                f"{what} holds integer pixels of {images.min()} to {images.max()}, expected 0 to 255; "
                "scale them to 0..1 and store them as float32"
            )
        return ArraySource(images.astype(np.uint8, copy=False), white=255.0)
    if not np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{what} must hold integers or floats, received the type {images.dtype}")
    images = images.astype(np.float32, copy=False)
    if not all_finite(images):
        raise UsageError(f"{what} holds NaN or infinite pixels; clean the images first")
    return ArraySource(images)
