"""What training, selection and measuring read: a set of inputs in batches, wherever it comes from."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

_VALUES_AT_ONCE = 2**22  # of the inputs: layers make some dozen times as many of them, of which a few lie in memory


def images_per_measurement(shape: Sequence[int | None]) -> int:
    """How many inputs a pass without gradients takes at once: 256, and fewer of large images (27 of 224 x 224).

    Args:
        shape: of one input.
    """
    return min(256, max(8, _VALUES_AT_ONCE // math.prod(size or 1 for size in shape)))


class Readable(Protocol):
    """What `Split` (images), `PlainSplit` (arrays of any shape) and `DatasetSplit` (a pipeline) have in common."""

    @property
    def size(self) -> int:
        """How many inputs there are."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of one input, as it lies in a batch."""

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
            augment: whether they are changed by chance, where it is known how they may be.
            seed: 0 or more.
            epoch: the number of the pass, 0 or more.
        """

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """Sorted positions of `n` inputs, with classes as even as the labels allow; all where there are no more."""
