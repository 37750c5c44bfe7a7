"""Arrays of any shape, taken as they are: vectors, signals, images without a channel axis, what a program holds."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.data.sources import label_array
from dcp_tf.data.split import balanced_order
from dcp_tf.errors import UsageError


@dataclasses.dataclass(frozen=True, eq=False)
class PlainSplit:
    """Inputs of any shape with the reading methods of `Split`; they are neither scaled nor augmented.

    Attributes:
        inputs: (N, ...) of float32.
        labels: (N,) of int32, (N, classes) of float32, or None.
    """

    inputs: np.ndarray
    labels: np.ndarray | None

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.inputs.shape[1:]

    def take(self, indices: Sequence[int] | np.ndarray) -> "PlainSplit":
        """As `Split.take`."""
        positions = np.asarray(indices)
        return PlainSplit(self.inputs[positions], None if self.labels is None else self.labels[positions])

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
        """As `Split.batches`, but for `augment`: nothing is known of the inputs, so nothing is changed."""
        order = np.arange(self.size) if indices is None else np.asarray(indices)
        if shuffle:
            order = np.random.default_rng((seed, epoch)).permutation(order)
        inputs = tf.constant(self.inputs)
        labels = None if self.labels is None else tf.constant(self.labels)

        def pick(positions: tf.Tensor):
            picked = tf.gather(inputs, positions)
            return picked if labels is None else (picked, tf.gather(labels, positions))

        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(pick).prefetch(2)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """As `Split.balanced_subset`; rows of targets count by their largest entry."""
        hard = self.labels if self.labels is None or self.labels.ndim == 1 else self.labels.argmax(-1)
        return balanced_order(self.size, hard, n, seed)

    def representative(self, n: int, seed: int = 0) -> np.ndarray:
        """As `Split.representative`."""
        return self.inputs[self.balanced_subset(n, seed)]


def plain_split(inputs: np.ndarray, labels: np.ndarray | None = None, name: str = "the arrays") -> PlainSplit:
    """Makes a split of arrays.

    Args:
        inputs: (N, ...) of numbers.
        labels: (N,) class numbers from 0, (N, classes) targets, or None.
        name: what the arrays are called in errors.

    Raises:
        UsageError: they hold no numbers, NaN, or do not fit each other.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim < 2 or not len(inputs) or inputs.dtype.kind not in "buif":
        raise UsageError(f"{name} must hold numbers of shape (N, ...), received {inputs.dtype} {inputs.shape}")
    inputs = inputs.astype(np.float32)
    if not np.isfinite(inputs).all():
        raise UsageError(f"{name} hold NaN or infinite values")
    if labels is None or np.ndim(labels) == 1:
        return PlainSplit(inputs, None if labels is None else label_array(labels, len(inputs), f"labels of {name}"))
    labels = np.asarray(labels)
    if labels.shape == (len(inputs), 1):
        return PlainSplit(inputs, label_array(labels[:, 0], len(inputs), f"labels of {name}"))
    if labels.ndim != 2 or len(labels) != len(inputs):
        raise UsageError(f"labels of {name} must be (N,) or (N, classes), N = {len(inputs)}, received {labels.shape}")
    return PlainSplit(inputs, labels.astype(np.float32))
