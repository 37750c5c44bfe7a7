"""Sorts classes of labels by what is known of them, without a Python object for each class."""

from collections.abc import Callable, Hashable

import numpy as np


class Signatures:
    """The facts of each class, in the order in which they were stated.

    Attributes:
        of_class: per class the number of its list of facts.
        facts: the lists.
    """

    def __init__(self, count: int):
        self.of_class = np.zeros(count, np.int64)
        self.facts: list[tuple] = [()]

    def add(self, classes: np.ndarray, fact: Hashable) -> None:
        """States a fact of some classes; stating it again changes nothing."""
        if len(classes) == 0:
            return
        old, where = np.unique(self.of_class[classes], return_inverse=True)
        new = []
        for number in old.tolist():
            known = self.facts[number]
            if fact in known:
                new.append(number)
            else:
                new.append(len(self.facts))
                self.facts.append((*known, fact))
        self.of_class[classes] = np.asarray(new)[where]

    def sort(self, order: np.ndarray, key: Callable[[tuple], Hashable]) -> list[tuple[Hashable, np.ndarray]]:
        """Puts classes together whose facts have the same key.

        Args:
            order: class numbers; groups are ordered by their first class, and classes within them in this order.
            key: from the facts of a class to what tells its group apart.

        Returns:
            Pairs (key, classes).
        """
        numbers: dict[Hashable, int] = {}
        group_of = np.full(len(self.facts), -1)
        for signature in np.unique(self.of_class[order]).tolist():
            group_of[signature] = numbers.setdefault(key(self.facts[signature]), len(numbers))
        keys, groups = list(numbers), group_of[self.of_class[order]]
        by_group = np.argsort(groups, kind="stable")
        cuts = np.flatnonzero(np.diff(groups[by_group])) + 1
        members = [places for places in np.split(by_group, cuts) if len(places)]
        members.sort(key=lambda places: places[0])
        return [(keys[groups[places[0]]], order[places]) for places in members]
