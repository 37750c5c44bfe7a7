"""Channel labels: integers that say which positions of which tensors are the same channel.

The labels of a tensor are an integer array that broadcasts to the tensor's shape (batch axis included): an axis of
size 1 means that the labels do not change along it. A feature map (N, H, W, C) thus needs only (1, 1, 1, C) labels.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_MEETS_NONE = "it meets a tensor whose channels lie along other axes"


class LabelSpace:
    """Creates labels and records which of them are the same channel and which must stay."""

    def __init__(self):
        self.size = 0
        self._edges: list[tuple[np.ndarray, np.ndarray]] = []
        self.pins: list[tuple[np.ndarray, str]] = []
        self.parts: list[np.ndarray] = []
        self._heads: list[tuple[np.ndarray, np.ndarray]] = []
        self.in_all_heads: list[np.ndarray] = []
        self._factors = np.empty((0, 2), np.int64)  # of crossed labels; -1 of all others

    def fresh(self, count: int) -> np.ndarray:
        """`count` new labels, shape (count,)."""
        labels = np.arange(self.size, self.size + count)
        self.size += count
        return labels

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties `a` and `b` (broadcast against each other), position by position: they are the same channels.

        Of crossed labels those of one axis are tied to those of the same axis; what has no partner is pinned.
        """
        if np.array_equal(*np.broadcast_arrays(a, b)):
            return
        rank = max(a.ndim, b.ndim)
        first, second = (
            {tuple(axis + rank - x.ndim for axis in varying_axes(x)): x for x in self.factors(labels)}
            for labels in (a, b)
        )
        if len(first) == len(second) == 1:
            self.pin(np.concatenate([self._others_of(a), self._others_of(b)]), _MEETS_NONE)
            self.link(a, b)
            return
        if len(first) < len(self.factors(a)) or len(second) < len(self.factors(b)):  # two along one axis
            first, second = {(): a}, {(0,): b}
        for axes in first.keys() & second.keys():
            self.link(first[axes], second[axes])
        for axes in first.keys() ^ second.keys():
            self.pin((first | second)[axes], _MEETS_NONE)

    def link(self, a: np.ndarray, b: np.ndarray) -> None:
        """Ties as `tie` does, crossed labels like all others."""
        a, b = np.broadcast_arrays(a, b)
        if a is not b and not np.array_equal(a, b):
            self._edges.append((a.ravel(), b.ravel()))

    def cross(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Labels of positions that stay where both `a` and `b` stay (broadcast against each other; neither crossed)."""
        a, b = np.broadcast_arrays(a, b)
        labels = self.fresh(a.size).reshape(a.shape)
        before = np.full((labels.flat[0] - len(self._factors), 2), -1)
        self._factors = np.concatenate([self._factors, before, np.stack([a.ravel(), b.ravel()], 1)])
        self.link(labels, a)
        return labels

    def factors(self, labels: np.ndarray) -> list[np.ndarray]:
        """The labels that were crossed to make `labels`, compressed; `labels` alone if not all of them were."""
        if not len(self._factors):
            return [labels]
        known = self._factors_of(labels)
        return [labels] if (known < 0).any() else [compress(known[..., 0]), compress(known[..., 1])]

    def is_crossed(self, labels: np.ndarray) -> bool:
        """Whether any of some labels were made by `cross`."""
        return bool((self._factors_of(labels) >= 0).any())

    def _factors_of(self, labels: np.ndarray) -> np.ndarray:
        known = np.full((*labels.shape, 2), -1)
        inside = labels < len(self._factors)
        known[inside] = self._factors[labels[inside]]
        return known

    def _others_of(self, labels: np.ndarray) -> np.ndarray:
        others = self._factors_of(labels)[..., 1]
        return others[others >= 0]

    def crossed(self) -> tuple[np.ndarray, np.ndarray]:
        """All crossed labels, and for each the second of those that it was made of; it is tied to the first."""
        labels = np.flatnonzero(self._factors[:, 1] >= 0)
        return labels, self._factors[labels, 1]

    def pin(self, labels: np.ndarray, reason: str) -> None:
        """Pins `labels`: they can never be removed, for the given reason."""
        if labels.size:
            self.pins.append((np.unique(labels), reason))

    def part(self, labels: np.ndarray) -> None:
        """States that one of `labels` must stay: a tensor holds these channels and no others."""
        self.parts.append(np.unique(labels))

    def within(self, labels: np.ndarray, heads: np.ndarray) -> None:
        """States that each of `labels` lies in the head at its position (broadcast): without the head it goes too."""
        if self.is_crossed(labels) or self.is_crossed(heads):
            for array in (labels, heads):
                self.pin(
                    np.concatenate([array.ravel(), self._others_of(array)]), "it lies along another axis than heads"
                )
        self._heads.append(tuple(x.ravel() for x in np.broadcast_arrays(labels, heads)))

    @property
    def attention_heads(self) -> np.ndarray:
        """The labels of all heads."""
        return np.concatenate([np.empty(0, np.int64), *(heads for _, heads in self._heads)])

    def head_of_label(self) -> np.ndarray:
        """For each label the label of its attention head, -1 for those in none. Heads of one label are tied."""
        heads = np.full(self.size, -1)
        for labels, of_labels in self._heads:
            known = heads[labels]
            self.tie(np.where(known < 0, of_labels, known), of_labels)
            heads[labels] = of_labels
        return heads

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


def head_count(head: np.ndarray | None) -> int:
    """How many attention heads channels lie in, by the number of each one's head; 1 where they lie in none."""
    return 1 if head is None else int(head.max()) + 1


def best_of_each(order: np.ndarray, count: int, head: np.ndarray | None) -> np.ndarray:
    """The first `count` channels of an order, as many of each attention head; `head` has the number of that of each."""
    if head is None:
        return order[:count]
    of_each, place_in_head = count // head_count(head), np.zeros(len(order), np.int64)
    for number in np.unique(head):
        own = head[order] == number
        place_in_head[own] = np.arange(own.sum())
    return order[place_in_head < of_each]


def varying_axes(labels: np.ndarray) -> list[int]:
    """The axes along which the array is longer than 1."""
    return [axis for axis, size in enumerate(labels.shape) if size > 1]


def close_rectangles(space: LabelSpace, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ties labels until every array stays a full rectangle, whichever classes are removed.

    Where the classes change along several axes of one tensor (the groups and the channels of a channel shuffle), the
    last of these axes stays free and the others are tied along it. The channels of attention heads are free along both
    axes: of each head that stays, as many channels stay (see `ChannelGraph.kept`).

    Args:
        space: the labels; ties are added.
        arrays: label arrays of all tensors and weights.

    Returns:
        The classes, as `LabelSpace.classes`, and for each label the class of its head, -1 without one.
    """
    suspects = [a for a in arrays if len(varying_axes(a)) > 1]
    heads, (crossed, others) = space.head_of_label(), space.crossed()
    all_heads = heads.copy()
    all_heads[crossed] = others
    while True:
        classes = space.classes()
        head_classes = _inherited(space, classes, np.where(heads < 0, -1, classes[heads]))
        if head_classes is None:
            continue
        deeper = (head_classes[crossed] >= 0) | (head_classes[others] >= 0)
        head_classes[crossed] = classes[others]
        uneven = next((a for a in suspects if not _is_rectangle(classes[a], head_classes[a])), None)
        if uneven is None:
            space.pin(np.concatenate([crossed[deeper], others[deeper]]), "it lies along another axis than heads do")
            return classes, head_classes
        _tie_rows(space, uneven, classes[uneven], head_classes[uneven], all_heads)


def _tie_rows(
    space: LabelSpace, labels: np.ndarray, classes: np.ndarray, head_classes: np.ndarray, heads: np.ndarray
) -> None:
    """Ties an array along all axes but the last one along which it changes, its heads too where they are in the way.

    Of more than two axes, that of heads stays as it is: of a query, a key and a value in one array, as many channels
    have to stay.
    """
    axis, varying = head_axis(head_classes), varying_axes(compress(classes))
    free = [a for a in varying if a != axis][-1:]
    stay = free if axis is None or len(varying) == 2 else (axis, *free)
    rows = np.moveaxis(labels, stay, range(-len(stay), 0)).reshape(-1, *(labels.shape[a] for a in stay))
    space.link(rows[:1], rows)
    inside = heads[labels[heads[labels] >= 0]]
    if axis is None and len(inside):
        space.link(inside[:1], inside)


def _inherited(space: LabelSpace, classes: np.ndarray, heads: np.ndarray) -> np.ndarray | None:
    """Heads by label, where labels without one lie in that of their class; None if heads had to be tied for it."""
    if (heads < 0).all():
        return heads
    count, inside, without = int(classes.max()) + 1, heads >= 0, heads < 0
    without[np.concatenate([np.empty(0, np.int64), *(labels.ravel() for labels in space.in_all_heads)])] = False
    first = np.full(count, -1)
    first[classes[inside]] = heads[inside]
    several = np.zeros(count, bool)
    several[classes[inside][heads[inside] != first[classes[inside]]]] = True
    torn = np.flatnonzero(several[classes] & without)
    if len(torn):
        label_of_class = np.zeros(count, np.int64)
        label_of_class[classes] = np.arange(len(classes))
        own = inside & (classes == classes[torn[0]])
        space.tie(label_of_class[heads[own][:1]], label_of_class[heads[own]])
        return None
    return np.where(without, first[classes], heads)


def head_axis(heads: np.ndarray) -> int | None:
    """The only axis along which the heads of an array change, if all labels are in one; else None."""
    axes = varying_axes(compress(heads))
    return axes[0] if len(axes) == 1 and (heads >= 0).all() else None


def _is_rectangle(classes: np.ndarray, heads: np.ndarray) -> bool:
    """Whether what stays of an array is a full rectangle, whichever classes are removed."""
    axes = sorted({*varying_axes(compress(classes)), *varying_axes(compress(heads))})
    if len(axes) <= 1:
        return True
    axis = head_axis(heads)
    if axis not in axes or len(axes) > 2:
        return False
    # Rows of one head (the queries that share a key) are the same classes; those of different heads too, or none is,
    # and then the same channels of each head are the same classes (as a query's and a key's side by side).
    table = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
    _, first, row = np.unique(np.moveaxis(heads, axis, 0).reshape(len(table), -1)[:, 0], True, True)
    rows = table[first]
    alike = [np.unique(r, return_index=True, return_inverse=True) for r in rows]
    places = np.stack([first[inverse] for _, first, inverse in alike])
    apart = len(np.unique(rows)) == sum(len(values) for values, *_ in alike) and (places == places[:1]).all()
    return bool((table == rows[row]).all() and ((rows == rows[:1]).all() or apart))
