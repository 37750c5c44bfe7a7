"""Channel labels: integers that say which positions of which tensors are the same channel.

The labels of a tensor are an integer array that broadcasts to the tensor's shape (batch axis included): an axis of
size 1 means that the labels do not change along it. A feature map (N, H, W, C) thus needs only (1, 1, 1, C) labels.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class LabelSpace:
    """Creates labels and records which of them are the same channel and which must stay."""

    def __init__(self):
        self.size = 0
        self._edges: list[tuple[np.ndarray, np.ndarray]] = []
        self.pins: list[tuple[np.ndarray, str]] = []
        self.parts: list[np.ndarray] = []

    def fresh(self, count: int) -> np.ndarray:
        """`count` new labels, shape (count,)."""
        labels = np.arange(self.size, self.size + count)
        self.size += count
        return labels

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties `a` and `b` (broadcast against each other), position by position: they are the same channels."""
        a, b = np.broadcast_arrays(a, b)
        if a is not b and not np.array_equal(a, b):
            self._edges.append((a.ravel(), b.ravel()))

    def pin(self, labels: np.ndarray, reason: str) -> None:
        """Pins `labels`: they can never be removed, for the given reason."""
        self.pins.append((np.unique(labels), reason))

    def part(self, labels: np.ndarray) -> None:
        """States that one of `labels` must stay: a tensor holds these channels and no others."""
        self.parts.append(np.unique(labels))

    def classes(self) -> np.ndarray:
        """For each label the number of its class: labels of one class stay or go together. Shape (size,)."""
        if not self._edges:
            return np.arange(self.size)
        rows = np.concatenate([a for a, _ in self._edges])
        columns = np.concatenate([b for _, b in self._edges])
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(self.size, self.size))
        return connected_components(links, directed=False)[1]


def compress(labels: np.ndarray) -> np.ndarray:
    """The same labels; every axis along which they do not change has size 1."""
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels.take([0], axis)
            if np.array_equal(np.broadcast_to(first, labels.shape), labels):
                labels = first
    return labels


def place(vector: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Labels that change along `axis` only: a vector of shape (n,) as an array of `rank` axes."""
    shape = [1] * rank
    shape[axis] = len(vector)
    return vector.reshape(shape)


def varying_axes(labels: np.ndarray) -> list[int]:
    """The axes along which the array is longer than 1."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1]


def close_rectangles(space: LabelSpace, arrays: list[np.ndarray]) -> np.ndarray:
    """Ties labels until every array stays a full rectangle, whichever classes are removed.

    Where the classes change along several axes of one tensor (the groups and the channels of a channel shuffle), the
    last of these axes stays free and the others are tied along it.

    Args:
        space: the labels; ties are added.
        arrays: label arrays of all tensors.

    Returns:
        The classes, as `LabelSpace.classes`.
    """
    suspects = [a for a in arrays if len(varying_axes(a)) > 1]
    while True:
        classes = space.classes()
        uneven = next((a for a in suspects if len(varying_axes(compress(classes[a]))) > 1), None)
        if uneven is None:
            return classes
        free = varying_axes(compress(classes[uneven]))[-1]
        rows = np.moveaxis(uneven, free, -1).reshape(-1, uneven.shape[free])
        space.tie(rows[:1], rows)
