"""The interface of the data that training, selection and evaluation read: inputs in batches, from any source."""

import abc
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.data.balance import balanced_order
from dcp_tf.data.binding import bind
from dcp_tf.data.labels import balancing_classes
from dcp_tf.data.structure import flat_parts, map_parts, split_batch
from dcp_tf.errors import UsageError

_VALUES_AT_ONCE = 2**22  # of the inputs: activations take some dozen times as many, a few layers' worth at a time
_DIGEST_IMAGES = 8


def values_per_sample(shape: Sequence) -> int:
    """How many values an input of a shape holds, or inputs of several shapes hold together; open sizes count as 1."""
    if any(isinstance(size, Sequence) for size in shape):
        return sum(values_per_sample(each_shape) for each_shape in shape)
    return math.prod(size or 1 for size in shape)


def images_per_measurement(shape: Sequence) -> int:
    """The batch size of a pass without gradients: 256, and less for large images (27 of 224 x 224).

    Args:
        shape: of one input, or the shapes of several.
    """
    return min(256, max(8, _VALUES_AT_ONCE // values_per_sample(shape)))


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over a split; the arguments of `DataSplit.batches`."""

    batch_size: int
    indices: Sequence[int] | np.ndarray | None
    shuffle: bool
    augment: bool
    seed: int
    epoch: int
    drop_remainder: bool


class DataSplit(abc.ABC):
    """What `ImageSplit`, `ArraySplit` (arrays of any shape), `TfDataSplit` and `PyDatasetSplit` (pipelines) share.

    Attributes:
        size: how many samples there are.
        shape: of one input in a batch, without the batch axis; of several inputs the tuple of their shapes.
        labels: of all samples, (N, ...), perhaps nested; None where there are none.
        weights: of all samples in losses and metrics, (N,) or one for each position; nested as `labels`, or None.
    """

    size: int
    shape: tuple
    labels: Any
    weights: Any
    unbatched_hint = ""  # ends a message about inputs that have one axis less than a model takes

    @property
    def shapes(self) -> list[tuple[int | None, ...]]:
        """The shape of one sample of each input."""
        return [self.shape]

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_remainder: bool = False,
    ) -> tf.data.Dataset:
        """One pass over the samples. The same arguments give the same batches where the source has a fixed order.

        Args:
            batch_size: samples per batch; the last batch may be smaller.
            indices: which samples; None for all. Arrays and images come in this order.
            shuffle: whether their order is drawn from (seed, epoch).
            augment: whether they are changed randomly, where a suitable augmentation is known.
            seed: 0 or more.
            epoch: the number of the pass, 0 or more.
            drop_remainder: whether a smaller last batch is left out.

        Returns:
            Batches that `split_batch` takes apart, that is (inputs, labels, weights), (inputs, labels), or inputs
            alone where there are no labels; inputs that are a tuple come as (inputs,) then. Inputs are float32.

        Raises:
            UsageError: the batch size or an index is invalid.
        """
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, received {batch_size}")
        return self._batches(Pass(batch_size, indices, shuffle, augment, seed, epoch, drop_remainder))

    @abc.abstractmethod
    def _batches(self, order: Pass) -> tf.data.Dataset: ...

    @abc.abstractmethod
    def _spec(self) -> tuple[Any, Any, Any]:
        """Inputs, labels and weights as nested `tf.TensorSpec`s of batches."""

    @abc.abstractmethod
    def converted(self, function: Callable) -> "DataSplit":
        """The same samples, with (inputs, labels, weights) as a function returns them, of arrays or of a batch."""

    def bound_to(self, model: keras.Model, what: str = "the data") -> "DataSplit":
        """The same samples, in the order and under the names of a model's inputs and outputs.

        Inputs are one tensor, or a tuple in the order of `model.inputs`. Labels and weights are one tensor each, or for
        several outputs a dict by `output_names(model)`, without those that have no labels.

        Args:
            model: functional or Sequential.
            what: the name of the data, for messages.

        Raises:
            UsageError: they do not fit the model.
        """
        function = bind(model, self._spec(), what, self.unbatched_hint)
        return self if function is None else self.converted(function)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """Picks `n` samples with classes as even as the labels allow; all where there are no more than `n`.

        Returns:
            Sorted positions, int64. With one seed, every larger subset contains the smaller ones.
        """
        return balanced_order(self.size, balancing_classes(self.labels), n, seed)

    def representative(self, n: int, seed: int = 0) -> Any:
        """The inputs of a balanced subset of at most `n` samples as float32 arrays, nested as they are in a batch."""
        batches = self.batches(64, indices=self.balanced_subset(n, seed)).as_numpy_iterator()
        return tf.nest.map_structure(
            lambda *parts: np.concatenate(parts), *(split_batch(batch)[0] for batch in batches)
        )


def array_specs(structure: Any) -> Any:
    """The `tf.TensorSpec`s of batches of nested arrays."""
    return map_parts(lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), structure)


def digest(split: DataSplit) -> int:
    """The number by which a resumed run recognizes its data.

    It is the CRC-32 of the labels, the weights, the first images as the model gets them, and their augmentation. Where
    the order may change from pass to pass, only the number of images and their labels and weights, sorted, count.
    """
    labels = flat_parts(split.labels) or [np.zeros(0)]
    crc = split.size
    if getattr(split, "order_may_change", False):
        for part in [*labels, *flat_parts(split.weights)]:
            crc = zlib.crc32(np.sort(part, axis=0).tobytes(), crc)
        return crc
    for part in [*labels, *flat_parts(split.weights)]:
        crc = zlib.crc32(np.asarray(part).tobytes(), crc)
    batch = next(iter(split.batches(min(_DIGEST_IMAGES, split.size))))
    for part in flat_parts(split_batch(batch)[0]):
        crc = zlib.crc32(np.asarray(part).tobytes(), crc)
    return zlib.crc32(str(getattr(split, "augmentation", "")).encode(), crc)
