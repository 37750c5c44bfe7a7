"""A `keras.utils.PyDataset` of a Python program, read by index."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.data.array_split import ArraySplit
from dcp_tf.data.balance import ORDER, generator
from dcp_tf.data.data_split import Pass, array_specs
from dcp_tf.data.structure import flat_parts, join_batch, map_parts, split_batch
from dcp_tf.data.tf_data_order import read_labels
from dcp_tf.data.tf_data_split import TfDataSplit, checked_specs, without
from dcp_tf.errors import UsageError, first_line

_KIND = "PyDataset"


class PyDatasetSplit(TfDataSplit):
    """A `DataSplit` of a `keras.utils.PyDataset`.

    One whose class has no `on_epoch_begin` or `on_epoch_end` has a fixed order: it is shuffled, and only the batches
    that hold a wanted sample are read. Another one decides its order itself; both methods are called in each training
    epoch.
    """

    unbatched_hint = "; each item of the PyDataset must be a whole batch"

    def __init__(self, dataset: keras.utils.PyDataset):
        """Reads all batches once for their labels.

        Raises:
            UsageError: it is empty, never ends, or does not hold batches of one form.
        """
        count = dataset.num_batches
        if not count:
            raise UsageError(f"the {_KIND} {'is empty' if count == 0 else 'never ends; give it a length (__len__)'}")
        base = keras.utils.PyDataset
        self.order_may_change = any(
            getattr(type(dataset), name) is not getattr(base, name) for name in ("on_epoch_begin", "on_epoch_end")
        )
        self._source = dataset
        self._element = array_specs(self._item(0))
        checked_specs(self._element, _KIND)
        sizes: list[int] = []
        self.size, self.labels, self.weights = read_labels(self._measured(count, sizes), _KIND, count)
        self._starts, self._rows = np.cumsum([0, *sizes]), np.arange(self.size)
        self._dataset, self._specs = self._pipeline(self._rows), split_batch(self._element)

    def _item(self, number: int) -> Any:
        """An item as a batch of arrays; labels that are None are left out."""
        try:
            item = self._source[number]
        except Exception as error:  # whatever a user's code raises
            message = f"item {number} of the {_KIND} raises {type(error).__name__}: {first_line(error)}"
            raise UsageError(message) from error
        parts = split_batch(tuple(item) if isinstance(item, list) else item)
        batch = join_batch(*(None if part is None else _arrays(part) for part in parts))
        lengths = {len(part) if part.ndim else 0 for part in flat_parts(batch)}
        if len(lengths) != 1 or 0 in lengths:
            raise UsageError(
                f"item {number} of the {_KIND} must hold arrays with one length, (inputs, labels); it holds "
                f"shapes {map_parts(np.shape, batch)}"
            )
        return batch

    def _measured(self, count: int, sizes: list[int]) -> Iterator[Any]:
        """All batches; their sizes and their common form are kept."""
        for number in range(count):
            batch = self._item(number)
            sizes.append(len(flat_parts(batch)[0]))
            try:
                self._element = tf.nest.map_structure(_common_spec, self._element, array_specs(batch))
            except (ValueError, TypeError) as error:
                raise UsageError(
                    f"the batches of the {_KIND} differ: {self._element} and, at {number}, {array_specs(batch)}"
                ) from error
            yield batch

    def _pipeline(self, rows: np.ndarray, epoch_order: np.random.Generator | None = None) -> tf.data.Dataset:
        """Batches of the samples in some rows, which are sorted; the order of the batches may be drawn."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        by_batch = {number: rows[numbers == number] - self._starts[number] for number in np.unique(numbers)}
        order = list(by_batch) if epoch_order is None else epoch_order.permutation(list(by_batch))

        def read() -> Iterator[Any]:
            for number in order:
                chosen = by_batch[number]
                yield map_parts(lambda part, chosen=chosen: part[chosen], self._item(int(number)))

        return tf.data.Dataset.from_generator(read, output_signature=self._element)

    def _chosen(self, indices: np.ndarray) -> tf.data.Dataset:
        rows = self._rows[np.sort(np.asarray(indices))]
        return super()._chosen(indices) if self.order_may_change else self._singles(self._pipeline(rows))

    def split_off(self, indices: np.ndarray) -> tuple[TfDataSplit, ArraySplit]:
        """As `TfDataSplit.split_off`; samples are recognized by their position where that is fixed."""
        if self.order_may_change:
            return super().split_off(indices)
        rest = copy.copy(self)
        rest._rows, rest.size = np.delete(self._rows, indices), self.size - len(indices)
        rest._dataset = self._pipeline(rest._rows)
        rest.labels, rest.weights = without(indices, self.labels, self.weights)
        return rest, self._read(indices)

    def _batches(self, order: Pass) -> tf.data.Dataset:
        """`indices` are read in the order of the source."""
        if not self.order_may_change:
            if not order.shuffle or order.indices is not None:
                return super()._batches(order)
            rng = generator(order.seed, order.epoch, ORDER)
            return self._shuffled(self._singles(self._pipeline(self._rows, rng)), order)
        dataset = super()._batches(dataclasses.replace(order, shuffle=False))
        if not order.shuffle:
            return dataset
        return (
            self._hook("on_epoch_begin", dataset).concatenate(dataset).concatenate(self._hook("on_epoch_end", dataset))
        )

    def _hook(self, name: str, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """No batch, but a method of the source is called when it is this one's turn."""

        def call() -> Iterator[Any]:
            getattr(self._source, name)()
            yield from ()

        return tf.data.Dataset.from_generator(call, output_signature=dataset.element_spec)


def _arrays(part: Any) -> Any:
    """A batch, or a part of one, with tuples in place of lists and without labels that are None."""
    if isinstance(part, Mapping):
        return {name: _arrays(value) for name, value in part.items() if value is not None}
    if isinstance(part, tuple | list) and any(isinstance(x, Mapping | tuple | list) or np.ndim(x) for x in part):
        if any(value is None for value in part):
            raise UsageError(f"the {_KIND} gives None in a tuple; give a dict of the labels that there are")
        return tuple(_arrays(value) for value in part)
    return np.asarray(part)


def _common_spec(one: tf.TensorSpec, other: tf.TensorSpec) -> tf.TensorSpec:
    """What both fit; raises ValueError where they differ in more than sizes."""
    if one.dtype != other.dtype:
        raise ValueError(f"{one.dtype} and {other.dtype}")
    sizes = zip(one.shape, other.shape, strict=True)
    return tf.TensorSpec([a if a == b else None for a, b in sizes], one.dtype)
