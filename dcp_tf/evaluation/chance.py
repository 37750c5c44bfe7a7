"""Whether what was measured is better than chance, and whether the classes are only in another order."""

import dataclasses
from collections.abc import Callable

import numpy as np

_SHUFFLES = 20
_DEVIATIONS = 4.0  # above the mean of shuffled labels, beyond which a figure is no chance
_GAIN = 0.2  # of the way from chance to 1, which is no chance even where images are few
_ORDER_GAIN = 0.2  # by which another order of the classes must be better to be named
_PER_CLASS = 4  # images that tell which output a class is


@dataclasses.dataclass(frozen=True)
class Chance:
    """A figure beside what shuffled labels give.

    Attributes:
        value: the figure, at most 1, more being better.
        mean: of the figures of shuffled labels.
        std: their standard deviation.
    """

    value: float
    mean: float
    std: float

    @property
    def is_near(self) -> bool:
        """Whether the figure cannot be told from that of shuffled labels, and is not far above it either."""
        if self.mean >= 1.0:  # as of a single class: nothing can be told
            return False
        gain = (self.value - self.mean) / (1.0 - self.mean)
        return self.value - self.mean < _DEVIATIONS * self.std and gain < _GAIN


def against_chance(score: Callable[[np.ndarray], float], labels: np.ndarray, seed: int = 0) -> Chance:
    """Compares a figure with those of the same outputs and shuffled labels.

    That allows for classes of unequal size and for models that prefer some: a model that says what is most frequent is
    at chance, however often it is right.

    Args:
        score: from labels to a figure, more being better.
        labels: (N, ...).
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    shuffled = [score(labels[rng.permutation(len(labels))]) for _ in range(_SHUFFLES)]
    # One image more or less is within the noise of any figure.
    return Chance(score(labels), float(np.mean(shuffled)), max(float(np.std(shuffled)), 0.5 / len(labels)))


@dataclasses.dataclass(frozen=True)
class ClassOrder:
    """Another way to number the classes.

    Attributes:
        name: what it is, in words.
        value: top-1 with it.
        outputs: for each label the output that stands for it, -1 for none; empty for a shift.
    """

    name: str
    value: float
    outputs: tuple[int, ...] = ()


def class_orders(answers: np.ndarray, labels: np.ndarray, classes: int) -> list[ClassOrder]:
    """What labels shifted by one would give, and labels in the order that fits the answers best, one to one.

    The best order is found on one half of the images and measured on the other, in turn, so that no luck counts.

    Args:
        answers: (N,) the classes that a model gives.
        labels: (N,) class numbers.
        classes: how many there are.
    """
    from scipy.optimize import linear_sum_assignment

    shifts = {"labels less 1": -1, "labels plus 1": 1} if classes > 2 else {}
    orders = [ClassOrder(name, float(np.mean(answers == labels + shift))) for name, shift in shifts.items()]

    def fitted(chosen: np.ndarray) -> np.ndarray:
        counts = np.zeros((classes, classes))
        np.add.at(counts, (labels[chosen], answers[chosen]), 1)
        rows, columns = linear_sum_assignment(counts, maximize=True)
        outputs = np.full(classes, -1)
        outputs[rows] = columns
        return outputs

    present = np.unique(labels)
    if len(labels) < _PER_CLASS * len(present):
        return orders
    # Every other image of each class is in the first half.
    by_class = np.argsort(labels, kind="stable")
    halves = by_class[::2], by_class[1::2]
    right = sum(int((fitted(a)[labels[b]] == answers[b]).sum()) for a, b in (halves, halves[::-1]))
    outputs = fitted(np.arange(len(labels)))
    outputs[np.setdiff1d(np.arange(classes), present)] = -1
    return [*orders, ClassOrder("another order", right / len(labels), tuple(int(output) for output in outputs))]


def better_order(orders: list[ClassOrder], value: float) -> ClassOrder | None:
    """The best order where it is much better than the one that there is, whose top-1 is `value`."""
    # Of equal ones the first: a shift says more than a list.
    best = max(orders, key=lambda order: round(order.value, 2), default=None)
    return best if best is not None and best.value > max(value + _ORDER_GAIN, 1.5 * value) else None
