"""The inputs on which a file is compared with its model."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs that are read anew in each pass, so that they need the memory of a batch.

    Attributes:
        count: how many there are.
        read: gives the batches in order: a list with one array (N, ...) for each input, and class numbers (N,) or None.
    """

    count: int
    read: Callable[[], Iterable[tuple[list[np.ndarray], np.ndarray | None]]]

    def __iter__(self) -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
        return iter(self.read())

    def first(self, count: int) -> list[np.ndarray]:
        """The first samples, an array for each input."""
        batches, found = [], 0
        for arrays, _ in self:
            batches.append(arrays)
            found += len(arrays[0])
            if found >= count:
                break
        return [np.concatenate(parts)[:count] for parts in zip(*batches, strict=True)]


def samples_of(images: Any, inputs: int, labels: Any = None) -> Samples:
    """The samples in arrays.

    Args:
        images: inputs (N, ...), or one such array for each input of the model, or `Samples`, which stay what they are.
        inputs: how many inputs the model has.
        labels: class numbers (N,), where `images` are arrays.

    Raises:
        UsageError: there are no samples, or labels for another number of them.
    """
    if isinstance(images, Samples):
        samples = images
    else:
        arrays = [np.asarray(images)] if inputs == 1 else [np.asarray(part) for part in images]
        if labels is not None and len(labels) != len(arrays[0]):
            raise UsageError(f"expected one label for each of {len(arrays[0])} images. Received: {len(labels)} labels")

        def read() -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
            for start in range(0, len(arrays[0]), BATCH):
                rows = slice(start, start + BATCH)
                yield [array[rows] for array in arrays], None if labels is None else labels[rows]

        samples = Samples(len(arrays[0]), read)
    if samples.count == 0:
        raise UsageError("there are no images to compare on; give at least one")
    return samples


def samples_of_split(split: Any, class_numbers: Callable[[Any], np.ndarray | None] = lambda labels: None) -> Samples:
    """The samples of a `dcp_tf.data` split, which are read from it in each pass.

    Args:
        split: its inputs are those of the model.
        class_numbers: makes class numbers (N,), or None, from the labels of a batch.
    """
    from dcp_tf.data.structure import flat_parts, split_batch

    def read() -> Iterator[tuple[list[np.ndarray], np.ndarray | None]]:
        for batch in split.batches(BATCH).as_numpy_iterator():
            inputs, labels, _ = split_batch(batch)
            yield flat_parts(inputs), class_numbers(labels)

    return Samples(split.size, read)
