"""Few images, seen several times: each as it is and as random crops of it."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.array_split import make_array_split
from dcp_tf.data.data_split import DataSplit, Pass
from dcp_tf.data.structure import join_batch, map_parts, split_batch

_LEAST_SIDE = 32  # of the images: crops of smaller ones leave too few pixels
_MOST_PIXELS = 4096 * 96 * 96  # of all views together
_MOST_VIEWS = 16
_LEAST_AREA = 0.4  # of a crop, as a part of the image
_ASPECT = 4 / 3


@dataclasses.dataclass(frozen=True, eq=False)
class CroppedSplit(DataSplit):
    """What a selection reads of images that are few: their own pixels and random crops, in the same size.

    Position `p` is view `p // N` of image `p % N`; view 0 is the image itself. The others show 40 to 100 % of its area,
    half of them mirrored. They keep the image's label.

    Attributes:
        images: N images in memory.
        boxes: of each position the corners (y1, x1, y2, x2) in parts of the image, (V * N, 4).
        labels: of all positions, or None.
        weights: of all positions, or None.
    """

    images: DataSplit
    boxes: np.ndarray
    labels: Any
    weights: Any = None

    in_memory = True

    @property
    def size(self) -> int:
        """How many views there are."""
        return len(self.boxes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self.images.shape

    def read(self, positions: np.ndarray) -> tf.Tensor:
        """Some views at once."""
        images = self.images.read(positions % self.images.size)
        is_crop = positions >= self.images.size
        if not is_crop.any():
            return images
        numbers = tf.range(len(positions))
        crops = tf.image.crop_and_resize(images, self.boxes[positions], numbers, self.shape[:2])
        return tf.where(is_crop[:, None, None, None], crops, images)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """Sorted positions of `n` views: of images as even over the classes as the labels allow."""
        if n >= self.size:
            return np.arange(self.size)
        images = self.images.balanced_subset(n, seed)
        return np.sort(self._positions(images)[:n])

    def _batches(self, order: Pass) -> Iterator[Any]:
        """The views at some positions in their order."""
        rows = np.arange(self.size) if order.indices is None else order.indices
        for start in range(0, len(rows), order.batch_size):
            positions = rows[start : start + order.batch_size]
            beside = map_parts(
                lambda part, positions=positions: tf.constant(part[positions]), (self.labels, self.weights)
            )
            yield join_batch(self.read(positions), *beside)

    def _spec(self) -> tuple[Any, Any, Any]:
        return self.images._spec()

    def converted(self, function: Callable) -> "CroppedSplit":
        """See `DataSplit`; the function must leave the images alone."""
        _, labels, weights = function(None, self.labels, self.weights)
        return dataclasses.replace(self, labels=labels, weights=weights)

    def split(self, fraction: float, seed: int) -> tuple["CroppedSplit", "CroppedSplit"]:
        """All views of a fraction of the images, even over the classes, and all views of the others."""
        first = self.images.balanced_subset(max(1, round(fraction * self.images.size)), seed)
        return self._of(first), self._of(np.setdiff1d(np.arange(self.images.size), first))

    def _of(self, images: np.ndarray) -> "CroppedSplit":
        positions = self._positions(images)
        labels, weights = map_parts(lambda part: part[positions], (self.labels, self.weights))
        return CroppedSplit(self.images.take(images), self.boxes[positions], labels, weights)

    def _positions(self, images: np.ndarray) -> np.ndarray:
        """Those of all views of some images, view by view."""
        return (images + self.images.size * np.arange(self.size // self.images.size)[:, None]).ravel()

    def mixed(self, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The positions in random order, with all views of a tenth of the images at the end.

        What is measured there is measured on images that nothing before has seen.
        """
        numbers = rng.permutation(self.images.size)
        held_out = numbers[: max(1, len(numbers) // 10)]
        mixed = rng.permutation(positions)
        is_held_out = np.isin(mixed % self.images.size, held_out)
        return np.concatenate([mixed[~is_held_out], mixed[is_held_out]])


def views_per_image(data: DataSplit, samples: int) -> int:
    """How often each image may be seen so that there are `samples` views; 1 where crops make no sense or take too long.

    Args:
        data: to select by.
        samples: how many views are wanted.
    """
    if len(data.shape) != 3 or None in data.shape or data.shape[2] not in (1, 3, 4):
        return 1
    if min(data.shape[:2]) < _LEAST_SIDE:
        return 1
    most = min(samples, _MOST_PIXELS // math.prod(data.shape[:2]))
    return max(1, min(_MOST_VIEWS, most // data.size))


def with_crops(data: DataSplit, views: int, seed: int) -> CroppedSplit:
    """The images and `views - 1` random crops of each.

    Args:
        data: images of one shape; where they do not lie in memory they are read once.
        views: 1 or more.
        seed: of the crops.
    """
    if not getattr(data, "in_memory", False):
        # A pipeline may shuffle at each pass: its labels are those of the same pass.
        batches = [split_batch(batch) for batch in data.batches(64)]
        images, labels, weights = tf.nest.map_structure(lambda *parts: _joined(parts), *batches)
        data = make_array_split(images, labels, weights=weights)
    rng = np.random.default_rng([seed, 2])
    whole = np.tile([[0.0, 0.0, 1.0, 1.0]], (data.size, 1))
    boxes = np.concatenate([whole, _boxes((views - 1) * data.size, rng)]).astype(np.float32)
    beside = map_parts(lambda part: np.concatenate([part] * views), (data.labels, data.weights))
    return CroppedSplit(data, boxes, *beside)


def _joined(parts: tuple) -> np.ndarray | None:
    return None if parts[0] is None else np.concatenate(parts)


def _boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Corners of random crops, half of them mirrored, (count, 4)."""
    area = rng.uniform(_LEAST_AREA, 1.0, count)
    aspect = np.exp(rng.uniform(-math.log(_ASPECT), math.log(_ASPECT), count))
    sizes = np.minimum(1.0, np.sqrt(np.stack([area / aspect, area * aspect], axis=1)))
    starts = rng.uniform(0.0, 1.0 - sizes)
    boxes = np.concatenate([starts, starts + sizes], axis=1)
    mirrored = rng.random(count) < 0.5
    boxes[mirrored] = boxes[mirrored][:, [0, 3, 2, 1]]
    return boxes
