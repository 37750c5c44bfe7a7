"""Puts channel classes with the same facts into groups, and sums up in one line why a group is pinned.

Classes that share all facts so far share one list of them, so that large models need no Python object per channel.
"""

import re
from collections.abc import Callable, Hashable, Sequence

import numpy as np

# A reason that names a layer: the words before the name, the name, and the kind of the layer with what it does.
_NAMES_A_LAYER = re.compile(r"(it is read by |it is made by |)(\S+)( \(\w+\).+)")


class ClassFacts:
    """The facts of each class, in the order in which they were stated."""

    def __init__(self, count: int):
        self._list_of_class = np.zeros(count, np.int64)
        self._lists: list[tuple] = [()]

    def add(self, classes: np.ndarray, fact: Hashable) -> None:
        """States a fact about some classes; stating it again changes nothing."""
        if len(classes) == 0:
            return
        old, inverse = np.unique(self._list_of_class[classes], return_inverse=True)
        new = []
        for number in old.tolist():
            facts = self._lists[number]
            if fact in facts:
                new.append(number)
            else:
                new.append(len(self._lists))
                self._lists.append((*facts, fact))
        self._list_of_class[classes] = np.asarray(new)[inverse]

    def groups(self, order: np.ndarray, key: Callable[[tuple], Hashable]) -> list[tuple[Hashable, np.ndarray]]:
        """Puts classes together whose facts have the same key.

        Args:
            order: class numbers; groups are ordered by their first class, and classes within them in this order.
            key: maps the facts of a class to what distinguishes its group.

        Returns:
            Pairs (key, classes).
        """
        numbers: dict[Hashable, int] = {}
        group_of_list = np.full(len(self._lists), -1)
        for number in np.unique(self._list_of_class[order]).tolist():
            group_of_list[number] = numbers.setdefault(key(self._lists[number]), len(numbers))
        keys, groups = list(numbers), group_of_list[self._list_of_class[order]]
        by_group = np.argsort(groups, kind="stable")
        cuts = np.flatnonzero(np.diff(groups[by_group])) + 1
        members = sorted((part for part in np.split(by_group, cuts) if len(part)), key=lambda part: part[0])
        return [(keys[groups[part[0]]], order[part]) for part in members]


def summarize_reasons(reasons: Sequence[str]) -> str:
    """All reasons in one line. Of reasons that differ only in the layer's name, the first one and a count.

    Args:
        reasons: clauses, such as "norm (LayerNormalization) takes statistics over the channels".
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for reason in reasons:
        parts = _NAMES_A_LAYER.fullmatch(reason)
        alike.setdefault((parts[1], parts[3]) if parts else (reason,), []).append(reason)
    return "; ".join(_with_count(first, len(more)) for first, *more in alike.values())


def _with_count(reason: str, more: int) -> str:
    return f"{reason} (and {more} more layer{'s' * (more > 1)} like it)" if more else reason
