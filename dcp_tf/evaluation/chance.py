"""Whether a metric is better than chance, and whether the classes are only in another order."""

import dataclasses
from collections.abc import Callable

import numpy as np

_SHUFFLES = 20
_DEVIATIONS = 4.0  # above the mean of shuffled labels: a larger value is not chance
_GAIN = 0.2  # of the way from chance to 1: a larger value is not chance even with few images
_ORDER_GAIN = 0.2  # by which another class order must be better to be reported
_PER_CLASS = 4  # images needed to match a class to an output


@dataclasses.dataclass(frozen=True)
class Chance:
    """A metric compared with shuffled labels.

    Attributes:
        value: of the metric, at most 1, higher is better.
        mean: over shuffled labels.
        std: their standard deviation.
    """

    value: float
    mean: float
    std: float

    @property
    def is_near(self) -> bool:
        """Whether the metric is within the noise of shuffled labels, and not far above them either."""
        if self.mean >= 1.0:  # a single class, say
            return False
        gain = (self.value - self.mean) / (1.0 - self.mean)
        return self.value - self.mean < _DEVIATIONS * self.std and gain < _GAIN


def against_chance(score: Callable[[np.ndarray], float], labels: np.ndarray, seed: int = 0) -> Chance:
    """Compares a metric with the same metric on shuffled labels.

    This accounts for unbalanced classes: a model that always predicts the most frequent class is at chance, however
    often it is right.

    Args:
        score: maps labels to the metric, higher is better.
        labels: (N, ...).
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    shuffled = [score(labels[rng.permutation(len(labels))]) for _ in range(_SHUFFLES)]
    # One image more or less is within the noise of any metric.
    return Chance(score(labels), float(np.mean(shuffled)), max(float(np.std(shuffled)), 0.5 / len(labels)))


@dataclasses.dataclass(frozen=True)
class ClassOrder:
    """Another numbering of the classes.

    Attributes:
        name: in words.
        value: top-1 with it.
        outputs: for each label its output, -1 for none; empty for a shift.
    """

    name: str
    value: float
    outputs: tuple[int, ...] = ()


def class_orders(answers: np.ndarray, labels: np.ndarray, classes: int) -> list[ClassOrder]:
    """The accuracy with labels shifted by one, and with the one-to-one order that fits the answers best.

    The best order is fitted on one half of the images and evaluated on the other, for both halves.

    Args:
        answers: (N,) the predicted classes.
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
    """The best order if it is much better than the current one, whose top-1 is `value`."""
    # The first of equal ones: a shift is clearer than a list.
    best = max(orders, key=lambda order: round(order.value, 2), default=None)
    return best if best is not None and best.value > max(value + _ORDER_GAIN, 1.5 * value) else None
