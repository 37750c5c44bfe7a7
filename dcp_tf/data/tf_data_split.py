"""`tf.data` pipelines of a Python program, used unchanged."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.array_split import ArraySplit, make_array_split
from dcp_tf.data.data_split import DataSplit, Pass
from dcp_tf.data.labels import balancing_classes
from dcp_tf.data.structure import (
    flat_parts,
    join_batch,
    map_parts,
    named_parts,
    sample_shapes,
    split_batch,
)
from dcp_tf.data.tf_data_order import note_sorted, read_labels, shuffle_buffer
from dcp_tf.errors import UsageError

_KIND = "tf.data.Dataset"


class TfDataSplit(DataSplit):
    """A `DataSplit` of a `tf.data.Dataset` of batches.

    The pipeline itself decides the order and the augmentation of its images.

    Attributes:
        size: number of images.
        labels: of all images, (N, ...), or several; None without any.
        weights: of all images, or None.
    """

    order_may_change = True
    _functions: tuple[Callable, ...] = ()  # that batches pass through
    unbatched_hint = "; if the tf.data.Dataset yields single images, add .batch(128)"

    def __init__(self, dataset: tf.data.Dataset):
        """Reads the pipeline once for its labels.

        Raises:
            UsageError: it yields no batches of images, is empty, or does not end.
        """
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UsageError("the tf.data.Dataset never ends; leave out .repeat(), or add .take(batches)")
        self._dataset, self._specs = dataset, checked_specs(dataset.element_spec, _KIND)
        batches = int(dataset.cardinality())
        total = batches if batches >= 0 else None
        self.size, self.labels, self.weights = read_labels(dataset, _KIND, total)
        note_sorted(balancing_classes(self.labels), self._buffer)

    @property
    def _buffer(self) -> int:
        """How many samples can be shuffled."""
        return shuffle_buffer(self.size, flat_parts(self._specs[0]))

    @property
    def shape(self) -> tuple:
        """The shape of one image, or the shapes of several inputs."""
        return self.shapes[0] if isinstance(self._specs[0], tf.TensorSpec) else tuple(self.shapes)

    @property
    def shapes(self) -> list[tuple[int | None, ...]]:
        """See `DataSplit`."""
        return sample_shapes(self._specs[0])

    def _spec(self) -> tuple[Any, Any, Any]:
        return self._specs

    def converted(self, function: Callable) -> "TfDataSplit":
        """See `DataSplit`."""
        other = copy.copy(self)
        other._functions = (*self._functions, function)
        other._specs = split_batch(mapped(self._dataset, other._functions).element_spec)
        _, other.labels, other.weights = function(None, self.labels, self.weights)
        return other

    def _singles(self, batches: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """All samples, or those of some batches, one by one."""
        return mapped(self._dataset if batches is None else batches, self._functions).unbatch()

    def split_off(self, indices: np.ndarray) -> tuple["TfDataSplit", ArraySplit]:
        """The pipeline without the inputs that are now at some positions, and these inputs, read once.

        Inputs are recognized by their values, so that a pipeline that shuffles never yields them either.
        """
        held_out, rest = self._read(indices), copy.copy(self)
        rows = (map_parts(lambda part, row=row: part[row], held_out.array) for row in range(held_out.size))
        fingerprints = tf.constant([int(_fingerprint(row)) for row in rows], tf.int64)
        kept = self._singles().filter(lambda *parts: tf.reduce_all(fingerprints != _fingerprint(parts[0])))
        rest._dataset, rest._functions, rest.size = kept.batch(64), (), self.size - held_out.size
        rest.labels, rest.weights = without(indices, self.labels, self.weights)
        return rest, held_out

    def _read(self, indices: np.ndarray) -> ArraySplit:
        """The inputs at some positions, with labels and weights, in memory."""
        rows = list(self._chosen(indices))
        stacked = tf.nest.map_structure(lambda *values: np.stack([value.numpy() for value in values]), *rows)
        inputs, labels, weights = split_batch(stacked)
        return make_array_split(inputs, labels, weights=weights)

    def _chosen(self, indices: np.ndarray) -> tf.data.Dataset:
        """The single inputs at some positions."""
        chosen = np.zeros(self.size, bool)
        chosen[np.asarray(indices)] = True
        chosen = tf.constant(chosen)
        return self._singles().enumerate().filter(lambda i, _: chosen[i]).map(lambda _, x: x)

    def _batches(self, order: Pass) -> tf.data.Dataset:
        """`indices` need a pipeline with a fixed order; `augment` is ignored."""
        if order.indices is not None:
            return finished(self._chosen(order.indices), order)
        return self._shuffled(self._singles(), order) if order.shuffle else finished(self._singles(), order)

    def _shuffled(self, dataset: tf.data.Dataset, order: Pass) -> tf.data.Dataset:
        buffer = min(max(self._buffer, 16 * order.batch_size), self.size)
        return finished(dataset.shuffle(buffer, seed=(order.seed * 7919 + order.epoch) % 2**31), order)


def finished(dataset: tf.data.Dataset, order: Pass) -> tf.data.Dataset:
    """Batches of single samples, with inputs and weights as floats."""

    def finish(*parts: Any) -> Any:
        inputs, labels, weights = split_batch(parts)
        inputs, weights = map_parts(lambda part: tf.cast(part, tf.float32), (inputs, weights))
        return join_batch(inputs, labels, weights)

    return dataset.batch(order.batch_size, drop_remainder=order.drop_remainder).map(finish).prefetch(2)


def without(indices: np.ndarray, labels: Any, weights: Any) -> tuple[Any, Any]:
    """Labels and weights but for those at some positions."""
    return map_parts(lambda part: np.delete(part, indices, axis=0), (labels, weights))


def mapped(dataset: tf.data.Dataset, functions: Iterable[Callable]) -> tf.data.Dataset:
    """Batches as functions of inputs, labels and weights return them."""
    for function in functions:
        dataset = dataset.map(lambda *parts, function=function: join_batch(*function(*split_batch(parts))))
    return dataset


def checked_specs(element: Any, kind: str) -> tuple[Any, Any, Any]:
    """The forms of inputs, labels and weights in the batches of a pipeline.

    Raises:
        UsageError: it yields anything but batches of dense numbers.
    """
    specs = split_batch(element)
    inputs = named_parts(specs[0], "inputs")
    parts = [*inputs, *[part for structure in specs[1:] for part in named_parts(structure, "labels")]]
    dense = all(spec is None or isinstance(spec, tf.TensorSpec) for _, spec in parts)
    if not dense or not inputs or (isinstance(element, tuple) and not 1 <= len(element) <= 3):
        hint = "" if dense else "; ragged and sparse tensors need .to_tensor() or tf.sparse.to_dense first"
        raise UsageError(
            f"the {kind} must yield inputs, (inputs, labels) or (inputs, labels, sample_weight), it yields "
            f"{f'{len(element)} parts' if dense and isinstance(element, tuple) else 'others'}{hint}"
        )
    for where, spec in parts:
        is_input = where.startswith("inputs")
        name = "images" if len(inputs) == 1 else where
        is_single = spec is not None and spec.shape.rank in (0, *(1,) * (is_input and len(inputs) == 1))
        if is_single and inputs[0][1].dtype != tf.string:
            raise UsageError(f"the {kind} must yield batches; add .batch(128)")
        if is_input and spec.shape.rank is None:
            raise UsageError(f"the {kind} does not say the shape of its {name}; give an output_signature that does")
        if is_input and not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
            raise UsageError(f"the {name} of the {kind} must be numbers, received {spec.dtype.name}")
    return specs


def _fingerprint(inputs: Any) -> tf.Tensor:
    """A hash of the inputs of one sample."""
    serialized = [tf.io.serialize_tensor(part) for part in flat_parts(inputs)]
    return tf.strings.to_hash_bucket_fast(tf.strings.join(serialized), 2**62)
