"""Arrays of any shape, used unchanged: vectors, signals, images without a channel axis, and several of them nested."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.data_split import DataSplit, Pass, array_specs
from dcp_tf.data.gather import all_finite, gathered
from dcp_tf.data.image_split import ImageDataset, make_dataset
from dcp_tf.data.labels import label_array, weight_array
from dcp_tf.data.npz import read_npz
from dcp_tf.data.structure import (
    checked_parts,
    flat_parts,
    join_batch,
    map_parts,
    named_parts,
    pack_parts,
    sample_shapes,
)
from dcp_tf.errors import UsageError
from dcp_tf.settings.normalization import Normalization


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit(DataSplit):
    """A `DataSplit` of inputs of any shape, not augmented, and scaled only where a normalization says so.

    Attributes:
        array: (M, ...) of any number type, or several of them in tuples and dicts, shared by all splits that were taken
            from one; batches of them are float32.
        labels: of int32 or float32, (N, ...), or several of them; None without any.
        chosen: positions of this split's inputs in `array`, (N,); None means all.
        weights: of float32, nested as the labels or one for all; None: all samples count alike.
        normalizations: of each input that holds pixels, in the order of `shapes`, None for others; empty: of none.
    """

    array: Any
    labels: Any
    chosen: np.ndarray | None = None
    weights: Any = None
    normalizations: tuple[Normalization | None, ...] = ()

    @property
    def input_arrays(self) -> list[np.ndarray]:
        """The stored inputs, in the order of `shapes`, which several splits may share."""
        return flat_parts(self.array)

    @property
    def inputs(self) -> Any:
        """The inputs, (N, ...) as stored; a copy if they are a subset."""
        return self.array if self.chosen is None else map_parts(lambda array: array[self.chosen], self.array)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(flat_parts(self.array)[0] if self.chosen is None else self.chosen)

    @property
    def shape(self) -> tuple:
        """The shape of one input, or the shapes of several."""
        return self.array.shape[1:] if isinstance(self.array, np.ndarray) else tuple(self.shapes)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """See `DataSplit`."""
        return sample_shapes(self.array)

    @property
    def in_memory(self) -> bool:
        """True: nothing needs decoding."""
        return True

    def take(self, indices: Sequence[int] | np.ndarray) -> "ArraySplit":
        """As `ImageSplit.take`."""
        positions = np.asarray(indices)
        chosen = positions if self.chosen is None else self.chosen[positions]
        labels, weights = map_parts(lambda part: part[positions], (self.labels, self.weights))
        return dataclasses.replace(self, labels=labels, chosen=chosen, weights=weights)

    def read(self, indices: np.ndarray) -> Any:
        """Some inputs as one batch."""
        rows = indices if self.chosen is None else self.chosen[indices]
        return self._floats([tf.convert_to_tensor(array[rows]) for array in self.input_arrays])

    def _batches(self, order: Pass) -> tf.data.Dataset:
        """The kind of input is unknown, so `augment` changes nothing."""
        positions = np.arange(self.size) if order.indices is None else np.asarray(order.indices)
        if order.shuffle:
            positions = np.random.default_rng((order.seed, order.epoch)).permutation(positions)
        sizes = order.batch_size, order.drop_remainder
        beside = self.labels, self.weights
        inputs = gathered(positions, *sizes, flat_parts(self.array), self.chosen)

        def finish(rows: tuple, other_rows: tuple):
            return join_batch(self._floats(rows[1:]), *pack_parts(beside, other_rows[1:]))

        return tf.data.Dataset.zip(inputs, gathered(positions, *sizes, flat_parts(beside))).map(finish).prefetch(1)

    def _floats(self, rows: Sequence[tf.Tensor]) -> Any:
        """Some samples of each input, nested, as the model takes them."""
        parts = [tf.cast(part, tf.float32) for part in rows]
        for number, normalization in enumerate(self.normalizations):
            if normalization is not None:
                white = 255.0 if rows[number].dtype.is_integer else None
                parts[number] = normalization.apply(parts[number], white)
        return pack_parts(self.array, parts)

    def _spec(self) -> tuple[Any, Any, Any]:
        return array_specs((self.array, self.labels, self.weights))

    def converted(self, function: Callable) -> "ArraySplit":
        """See `DataSplit`."""
        array, labels, weights = function(self.array, self.labels, self.weights)
        return dataclasses.replace(self, array=array, labels=labels, weights=weights)


def load_arrays(path: str) -> ImageDataset:
    """Reads arrays of any shape from a `.npz` file, one for each input and output; values stay unchanged.

    See `read_npz` for their names. Labels may be missing.

    Raises:
        UsageError: the file cannot be read, an array is missing, or the arrays do not fit each other.
    """
    arrays = read_npz(path)
    train, test = (
        make_array_split(arrays[f"x_{p}"], arrays.get(f"y_{p}"), f"x_{p} of {path}", arrays.get(f"w_{p}"))
        for p in ("train", "test")
    )
    dataset = make_dataset(pathlib.Path(path).stem, train, test, f"x_train of {path}", f"x_test of {path}")
    pixels = [name for name, part in named_parts(train.array, "x_train") if part.dtype == np.uint8 and part.ndim > 2]
    notes = tuple(f"{name}: integers of 0 to 255, taken as they are" for name in pixels)
    return dataclasses.replace(dataset, notes=notes)


def make_array_split(inputs: Any, labels: Any = None, name: str = "the arrays", weights: Any = None) -> ArraySplit:
    """Makes a split from arrays.

    Args:
        inputs: (N, ...) of numbers, or several of such arrays in tuples and dicts.
        labels: (N, ...) of numbers, or several, where None stands for missing ones; or None.
        name: of the arrays, for error messages.
        weights: of the samples, (N,) or one for each position; one for all labels, or nested as they are; or None.

    Raises:
        UsageError: they are not numeric, hold NaN, or do not fit each other.
    """
    inputs = map_parts(np.asarray, inputs)
    parts = named_parts(inputs, name)
    if not parts:
        raise UsageError(f"{name} hold no input")
    size = None
    for where, part in parts:
        if part is None or part.ndim < 2 - (len(parts) > 1) or not len(part) or part.dtype.kind not in "buif":
            received = "None" if part is None else f"{part.dtype} {part.shape}" if part.size else "no sample"
            hint = ": encode texts as numbers first" if getattr(part, "dtype", np.dtype(int)).kind in "US" else ""
            raise UsageError(f"{where} must hold numbers of shape (N, ...), received {received}{hint}")
        size = len(part) if size is None else size
        if len(part) != size:
            raise UsageError(f"{where} has {len(part)} samples, {parts[0][0]} {size}; give as many of each")
        if not all_finite(part):
            raise UsageError(f"{where} holds NaN or infinite values; clean them first")
    of_file = name.startswith("x_")  # whose arrays have names of their own
    labels_name = name.replace("x_", "y_", 1) if of_file else f"labels of {name}"
    weights_name = name.replace("x_", "w_", 1) if of_file else f"sample weights of {name}"
    labels = checked_parts(label_array, labels, size, labels_name)
    weights = checked_parts(weight_array, weights, size, weights_name)
    if weights is not None and labels is None:
        raise UsageError(f"{name} have sample weights, but no labels; give both, or leave the weights out")
    return ArraySplit(inputs, labels, None, weights)
