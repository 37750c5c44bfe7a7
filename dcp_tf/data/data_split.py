"""The interface of the data that training, selection and evaluation read: inputs in batches, from any source."""

import math
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

_VALUES_AT_ONCE = 2**22  # of the inputs: activations take some dozen times as many, a few layers' worth at a time
_DIGEST_IMAGES = 8


def images_per_measurement(shape: Sequence[int | None]) -> int:
    """The batch size of a pass without gradients: 256, and less for large images (27 of 224 x 224).

    Args:
        shape: of one input.
    """
    return min(256, max(8, _VALUES_AT_ONCE // math.prod(size or 1 for size in shape)))


class DataSplit(Protocol):
    """The methods that `ImageSplit`, `ArraySplit` (arrays of any shape) and `TfDataSplit` (a pipeline) share."""

    @property
    def size(self) -> int:
        """How many inputs there are."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of one input in a batch."""

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of all inputs, (N, ...), or None."""

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        epoch: int = 0,
    ) -> tf.data.Dataset:
        """One pass over the inputs, as pairs (inputs, labels), or inputs alone where there are no labels.

        Args:
            batch_size: inputs per batch; the last batch may be smaller.
            indices: which inputs; None for all.
            shuffle: whether their order is drawn from (seed, epoch).
            augment: whether they are changed randomly, where a suitable augmentation is known.
            seed: 0 or more.
            epoch: the number of the pass, 0 or more.
        """

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """Sorted positions of `n` inputs, with classes as even as the labels allow; all where there are no more."""


def digest(split: DataSplit) -> int:
    """The number by which a resumed run recognizes its data.

    It is the CRC-32 of the labels, of the first images as the model gets them, and of their augmentation. The order of
    a `tf.data.Dataset` may change from pass to pass, so only the number of its images and its sorted labels count.
    """
    labels = np.zeros(0) if split.labels is None else np.asarray(split.labels)
    if getattr(split, "order_may_change", False):
        return zlib.crc32(np.sort(labels, axis=0).tobytes(), split.size)
    batch = next(iter(split.batches(min(_DIGEST_IMAGES, split.size))))
    images = batch[0] if isinstance(batch, tuple) else batch
    crc = zlib.crc32(np.asarray(images).tobytes(), zlib.crc32(labels.tobytes(), split.size))
    return zlib.crc32(str(getattr(split, "augmentation", "")).encode(), crc)
