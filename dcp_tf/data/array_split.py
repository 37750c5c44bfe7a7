"""Arrays of any shape, used unchanged: vectors, signals, images without a channel axis."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.data.gather import all_finite, gathered
from dcp_tf.data.image_arrays import read_npz
from dcp_tf.data.image_split import ImageDataset, balanced_order
from dcp_tf.data.labels import check_same_labels, class_names, class_numbers, label_array
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A `DataSplit` of inputs of any shape, neither scaled nor augmented.

    Attributes:
        array: (M, ...) of any number type, shared by all splits that were taken from one; batches of it are float32.
        labels: of int32 or float32, (N, ...), or None.
        chosen: positions of this split's inputs in `array`, (N,); None means all.
    """

    array: np.ndarray
    labels: np.ndarray | None
    chosen: np.ndarray | None = None

    @property
    def inputs(self) -> np.ndarray:
        """The inputs, (N, ...) as stored; a copy if they are a subset."""
        return self.array if self.chosen is None else self.array[self.chosen]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.array if self.chosen is None else self.chosen)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.array.shape[1:]

    @property
    def in_memory(self) -> bool:
        """True: nothing needs decoding."""
        return True

    def take(self, indices: Sequence[int] | np.ndarray) -> "ArraySplit":
        """As `ImageSplit.take`."""
        positions = np.asarray(indices)
        chosen = positions if self.chosen is None else self.chosen[positions]
        return ArraySplit(self.array, None if self.labels is None else self.labels[positions], chosen)

    def read(self, indices: np.ndarray) -> tf.Tensor:
        """Some inputs as one batch."""
        rows = indices if self.chosen is None else self.chosen[indices]
        return tf.convert_to_tensor(self.array[rows].astype(np.float32))

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
        """See `DataSplit`. The kind of input is unknown, so `augment` changes nothing."""
        order = np.arange(self.size) if indices is None else np.asarray(indices)
        if shuffle:
            order = np.random.default_rng((seed, epoch)).permutation(order)
        inputs = gathered(order, batch_size, False, [self.array], self.chosen)
        labels = gathered(order, batch_size, False, [] if self.labels is None else [self.labels])

        def finish(rows: tuple, label_rows: tuple):
            values = tf.cast(rows[1], tf.float32)
            return values if self.labels is None else (values, label_rows[1])

        return tf.data.Dataset.zip(inputs, labels).map(finish).prefetch(1)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """See `DataSplit`; rows of targets count by their largest entry."""
        return balanced_order(self.size, class_numbers(self.labels), n, seed)

    def representative(self, n: int, seed: int = 0) -> np.ndarray:
        """As `ImageSplit.representative`."""
        return self.take(self.balanced_subset(n, seed)).inputs.astype(np.float32)


def load_arrays(path: str) -> ImageDataset:
    """Reads `x_train y_train x_test y_test` of any shape from a `.npz` file; values stay unchanged.

    Labels may be missing.

    Raises:
        UsageError: the file cannot be read, an array is missing, or the arrays do not fit each other.
    """
    arrays = read_npz(path)
    train, test = (
        make_array_split(arrays[f"x_{p}"], arrays.get(f"y_{p}"), f"x_{p} of {path}") for p in ("train", "test")
    )
    if train.shape != test.shape:
        raise UsageError(f"x_train of {path} holds inputs of shape {train.shape}, but x_test of {test.shape}")
    check_same_labels(train.labels, test.labels, f"y_train of {path}", f"y_test of {path}")
    classes = class_names(train.labels, test.labels)
    return ImageDataset(readable_name(pathlib.Path(path).stem), train, test, len(classes), classes, train.shape)


def make_array_split(inputs: np.ndarray, labels: np.ndarray | None = None, name: str = "the arrays") -> ArraySplit:
    """Makes a split from arrays.

    Args:
        inputs: (N, ...) of numbers.
        labels: (N, ...) of numbers, or None.
        name: of the arrays, for error messages.

    Raises:
        UsageError: they are not numeric, hold NaN, or do not fit each other.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim < 2 or not len(inputs) or inputs.dtype.kind not in "buif":
        raise UsageError(f"{name} must hold numbers of shape (N, ...), received {inputs.dtype} {inputs.shape}")
    if not all_finite(inputs):
        raise UsageError(f"{name} hold NaN or infinite values")
    return ArraySplit(inputs, None if labels is None else label_array(labels, len(inputs), f"labels of {name}"))
