"""Training inputs that a training does not look at, so that its epochs can be compared by them."""

import math

import numpy as np

from dcp_tf.data.data_split import DataSplit
from dcp_tf.data.labels import class_numbers
from dcp_tf.data.tf_data_split import TfDataSplit

_LARGEST = 1000
_MOST_BYTES = 2**28  # of those that a pipeline gives, which are kept in memory


def hold_out(data: DataSplit, count: int | None = None, seed: int = 0) -> tuple[DataSplit, DataSplit | None]:
    """Draws which inputs are held out, the same share of every class.

    No class loses its last input. Those of a pipeline, whose order may change, are told by their values; one that
    augments its images still trains on other versions of them.

    Args:
        data: the training inputs.
        count: how many are held out, less than all; None: a tenth of them, at most 1,000.
        seed: 0 or more.

    Returns:
        The inputs to train on and those held out, or all of them and None where they are too few.
    """
    count = min(_LARGEST, data.size // 10) if count is None else min(count, data.size - 1)
    if isinstance(data, TfDataSplit):
        count = min(count, _MOST_BYTES // (4 * math.prod(data.shape)) if None not in data.shape else 0)
    if not count:
        return data, None
    drawn = np.random.default_rng((seed, 7)).permutation(data.size)
    classes = class_numbers(data.labels)
    if classes is not None:
        drawn = _in_turns(classes[drawn], drawn)
    if isinstance(data, TfDataSplit):
        return data.split_off(np.sort(drawn[:count]))
    return data.take(np.sort(drawn[count:])), data.take(np.sort(drawn[:count]))


def _in_turns(classes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mixed positions, reordered so that any first part of them has its share of each class; one of each is last."""
    names, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if len(names) > len(classes) // 2:  # hardly two are equal: these are no classes
        return drawn
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(classes), np.int64)
    rank[by_class] = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    size = sizes[classes]
    is_last = rank == size - 1
    return drawn[np.lexsort(((rank + 0.5) / size, is_last))]
