"""The class-balanced selection set in a fixed, shuffled order: read again at each pass, or cached if that is slow."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import DataSplit
from dcp_tf.data.cropped_split import CroppedSplit
from dcp_tf.data.tf_data_split import TfDataSplit
from dcp_tf.pruning.activations.cache import Cache, CachedBatches, Tensors


class SelectionImages:
    """Batches of images, as the values of the model's one input, with their labels.

    Arrays in memory are read again at each pass. Images that need decoding are cached in files, or in up to half of the
    cache's memory; if they do not fit, they are decoded again.

    Attributes:
        labels: per batch.
        total: number of images.
    """

    def __init__(
        self,
        data: DataSplit,
        samples: int,
        batch: int,
        seed: int,
        teacher: Callable | None,
        cache: Cache,
        apart_from: int = 0,
    ):
        """Draws the images and reads their labels.

        Args:
            data: to choose from.
            samples: the most to choose.
            batch: images per batch.
            seed: of the choice and the order.
            teacher: from images to labels, for data without any; None: no labels.
            cache: for images that need decoding.
            apart_from: the size of another selection set, whose images are left out.
        """
        self._data, self._batch = data, batch
        count = min(samples, data.size - apart_from)
        subset = data.balanced_subset(min(count + apart_from, _most_images(data, cache)), seed)
        if apart_from:
            subset = np.setdiff1d(subset, data.balanced_subset(apart_from, seed))
        if len(subset) < count:
            progress.say(f"selecting on {len(subset)} images, which is what half of cache_gib holds", "cache_gib")
        rng = np.random.default_rng([seed, 0])
        self._order = data.mixed(subset, rng) if isinstance(data, CroppedSplit) else rng.permutation(subset)
        self.total = len(self._order)
        self._is_quick = getattr(data, "in_memory", False)
        # Batches of images that are decoded at each pass are best read in order.
        self._next, self._pass = 0, iter(())
        self._last: tuple[int, Tensors] = (-1, [])
        self._kept: CachedBatches | None = None
        self.labels: list[tf.Tensor] = []
        self._read(teacher, cache)

    def __len__(self) -> int:
        return math.ceil(self.total / self._batch)

    def __getitem__(self, index: int) -> Tensors:
        """The images of one batch, in a list."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._kept is not None:
            return self._kept[index]
        if self._is_quick:
            return [self._data.read(self._order[index * self._batch : (index + 1) * self._batch])]
        if self._last[0] != index:
            if index != self._next or index == 0:
                self._pass = self._batches(index)
            images, _ = next(self._pass)
            self._last, self._next = (index, [images]), index + 1
        return self._last[1]

    def close(self) -> None:
        """Frees the images; cached ones can no longer be read."""
        if self._kept is not None:
            self._kept.release()
        self._next, self._pass, self._last = 0, iter(()), (-1, [])

    def _batches(self, first: int) -> Iterator[tuple[tf.Tensor, tf.Tensor | None]]:
        """One pass over the images from a batch on, with labels if there are any."""
        for batch in self._data.batches(self._batch, indices=self._order[first * self._batch :]):
            yield batch if isinstance(batch, tuple) else (batch, None)

    def _read(self, teacher: Callable | None, cache: Cache) -> None:
        """Reads the labels, and caches the images if that pays, in one pass."""
        if self._is_quick and self._data.labels is not None:
            chosen = self._data.labels[self._order]
            self.labels = [tf.constant(chosen[i : i + self._batch]) for i in range(0, self.total, self._batch)]
            return
        if self._is_quick:
            self.labels = [] if teacher is None else [teacher(self[i][0]) for i in range(len(self))]
            return
        batches = self._batches(0)

        def read(index: int) -> Tensors:
            images, labels = next(batches)
            if labels is not None or teacher is not None:
                self.labels.append(teacher(images) if labels is None else labels)
            return [images]

        size = self.total * _image_bytes(self._data)
        self._kept = cache.keep(read, len(self), size, files_first=True)
        if self._kept is None and isinstance(self._data, TfDataSplit):
            self._kept = Cache(size).keep(read, len(self), size)
        if self._kept is None:
            for index in range(len(self)):
                read(index)


def _image_bytes(data: DataSplit) -> int:
    return 4 * math.prod(size or 1 for size in data.shape)


def _most_images(data: DataSplit, cache: Cache) -> int:
    """How many images may be chosen: of a pipeline, whose order may change between passes, as many as can be cached.

    A quarter of a GiB is always available for them.
    """
    if not isinstance(data, TfDataSplit):
        return data.size
    available = max(cache.memory.limit / 2, cache.disk.limit, 2**28)
    return max(1, int(available / _image_bytes(data)))
