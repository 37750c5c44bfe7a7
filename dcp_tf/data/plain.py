"""Arrays of any shape, taken as they are: vectors, signals, images without a channel axis, what a program holds."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.data.arrays import read_npz
from dcp_tf.data.labels import check_same_labels, class_names, class_numbers, label_array
from dcp_tf.data.split import ImageDataset, balanced_order
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name


@dataclasses.dataclass(frozen=True, eq=False)
class PlainSplit:
    """Inputs of any shape, `Readable`; they are neither scaled nor augmented.

    Attributes:
        inputs: (N, ...) of float32.
        labels: of int32 or float32, (N, ...), or None.
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
        """See `Readable`. Nothing is known of the inputs, so `augment` changes nothing."""
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
        """See `Readable`; rows of targets count by their largest entry."""
        return balanced_order(self.size, class_numbers(self.labels), n, seed)

    def representative(self, n: int, seed: int = 0) -> np.ndarray:
        """As `Split.representative`."""
        return self.inputs[self.balanced_subset(n, seed)]


def load_plain(path: str) -> ImageDataset:
    """Reads `x_train y_train x_test y_test` of any shape from a `.npz` file; values are taken as they are.

    Labels may be missing.

    Raises:
        UsageError: the file cannot be read, an array is missing, or the arrays do not fit each other.
    """
    arrays = read_npz(path)
    train, test = (plain_split(arrays[f"x_{p}"], arrays.get(f"y_{p}"), f"x_{p} of {path}") for p in ("train", "test"))
    if train.shape != test.shape:
        raise UsageError(f"x_train of {path} holds inputs of shape {train.shape}, but x_test of {test.shape}")
    check_same_labels(train.labels, test.labels, f"y_train of {path}", f"y_test of {path}")
    classes = class_names(train.labels, test.labels)
    return ImageDataset(readable_name(pathlib.Path(path).stem), train, test, len(classes), classes, train.shape)


def plain_split(inputs: np.ndarray, labels: np.ndarray | None = None, name: str = "the arrays") -> PlainSplit:
    """Makes a split of arrays.

    Args:
        inputs: (N, ...) of numbers.
        labels: (N, ...) of numbers, or None.
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
    return PlainSplit(inputs, None if labels is None else label_array(labels, len(inputs), f"labels of {name}"))
