"""The class-balanced selection set in a fixed, shuffled order: read again at each pass, or cached if that is slow."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from dcp_tf import progress
from dcp_tf.data import DataSplit, split_batch
from dcp_tf.data.cropped_split import CroppedSplit
from dcp_tf.data.tf_data_split import TfDataSplit
from dcp_tf.models.signature import pack
from dcp_tf.pruning.activations.cache import Cache, CachedBatches, Tensors
from dcp_tf.training.targets import targets_of


class SelectionImages:
    """Batches of images, as the values of the model's inputs, with their labels.

    Arrays in memory are read again at each pass. Images that need decoding are cached in files, or in up to half of the
    cache's memory; if they do not fit, they are decoded again.

    Attributes:
        labels: per batch, `Weighted` where the data has sample weights.
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
            teacher: from images to labels, for data that lacks some; None: none are missing, or needed.
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
        self.labels: list[Any] = []
        self._read(teacher, cache)

    def __len__(self) -> int:
        return math.ceil(self.total / self._batch)

    def __getitem__(self, index: int) -> Tensors:
        """The images of one batch: the values of all inputs, in a list."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._kept is not None:
            return self._kept[index]
        if self._is_quick:
            return tree.flatten(self._data.read(self._rows(index)))
        if self._last[0] != index:
            if index != self._next or index == 0:
                self._pass = self._batches(index)
            inputs, *_ = next(self._pass)
            self._last, self._next = (index, tree.flatten(inputs)), index + 1
        return self._last[1]

    def close(self) -> None:
        """Frees the images; cached ones can no longer be read."""
        if self._kept is not None:
            self._kept.release()
        self._next, self._pass, self._last = 0, iter(()), (-1, [])

    def _rows(self, index: int) -> np.ndarray:
        """The positions of one batch in the data."""
        return self._order[index * self._batch : (index + 1) * self._batch]

    def _batches(self, first: int) -> Iterator[tuple[Any, Any, Any]]:
        """One pass over the images from a batch on: inputs, labels and weights, None where there are none."""
        return map(split_batch, self._data.batches(self._batch, indices=self._order[first * self._batch :]))

    def _read(self, teacher: Callable | None, cache: Cache) -> None:
        """Reads the labels, and caches the images if that pays, in one pass."""
        if self._is_quick:
            has_targets = self._data.labels is not None or teacher is not None
            self.labels = [self._targets(index, teacher) for index in range(len(self) * has_targets)]
            return
        batches = self._batches(0)

        def read(index: int) -> Tensors:
            inputs, labels, weights = next(batches)
            if labels is not None or teacher is not None:
                self.labels.append(targets_of(inputs, labels, weights, teacher))
            return tree.flatten(inputs)

        size = self.total * _image_bytes(self._data)
        self._kept = cache.keep(read, len(self), size, files_first=True)
        if self._kept is None and isinstance(self._data, TfDataSplit):
            self._kept = Cache(size).keep(read, len(self), size)
        if self._kept is None:
            for index in range(len(self)):
                read(index)

    def _targets(self, index: int, teacher: Callable | None) -> Any:
        """The labels of one batch of data in memory, read without its images unless a teacher needs them."""
        rows = self._rows(index)
        arrays = (self._data.labels, getattr(self._data, "weights", None))
        labels, weights = (
            None if part is None else tree.map_structure(lambda array: tf.constant(array[rows]), part)
            for part in arrays
        )
        return targets_of(None if teacher is None else pack(self[index]), labels, weights, teacher)


def _image_bytes(data: DataSplit) -> int:
    return 4 * sum(math.prod(size or 1 for size in shape) for shape in data.shapes)


def _most_images(data: DataSplit, cache: Cache) -> int:
    """How many images may be chosen: of a pipeline, whose order may change between passes, as many as can be cached.

    A quarter of a GiB is always available for them.
    """
    if not isinstance(data, TfDataSplit):
        return data.size
    available = max(cache.memory.limit / 2, cache.disk.limit, 2**28)
    return max(1, int(available / _image_bytes(data)))
