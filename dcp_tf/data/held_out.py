"""Held-out training inputs, by which the epochs of a training are compared."""

import numpy as np

from dcp_tf.data.data_split import DataSplit, values_per_sample
from dcp_tf.data.labels import balancing_classes, rank_in_class
from dcp_tf.data.tf_data_split import TfDataSplit

_LARGEST = 1000
_MOST_BYTES = 2**28  # of those from a pipeline, which are kept in memory


def hold_out(
    data: DataSplit, count: int | None = None, seed: int = 0, seen: int = 0
) -> tuple[DataSplit, DataSplit | None]:
    """Draws the held-out inputs, the same fraction of every class.

    No class loses its last input. Inputs of a pipeline, whose order may change, are recognized by their values; a
    pipeline that augments its images still trains on other versions of them.

    Args:
        data: the training inputs.
        count: how many are held out, less than all; None means a tenth of them, at most 1,000.
        seed: 0 or more.
        seen: how many inputs, `balanced_subset(seen, seed)`, a model was fitted to before. Others are held out first:
            the inputs that it was fitted to speak for the model as it is.

    Returns:
        The inputs to train on and those held out, or all of them and None if they are too few.
    """
    count = min(_LARGEST, data.size // 10) if count is None else min(count, data.size - 1)
    if isinstance(data, TfDataSplit):
        sizes = [size for shape in data.shapes for size in shape]
        count = min(count, _MOST_BYTES // (4 * values_per_sample(data.shapes)) if None not in sizes else 0)
    if not count:
        return data, None
    drawn = np.random.default_rng((seed, 7)).permutation(data.size)
    was_seen = np.isin(drawn, data.balanced_subset(seen, seed) if seen else [])
    classes = balancing_classes(data.labels)
    if classes is None:
        drawn = drawn[np.argsort(was_seen, kind="stable")]
    else:
        drawn = _interleave_classes(classes[drawn], drawn, was_seen)
    if isinstance(data, TfDataSplit):
        return data.split_off(np.sort(drawn[:count]))
    return data.take(np.sort(drawn[count:])), data.take(np.sort(drawn[:count]))


def _interleave_classes(classes: np.ndarray, drawn: np.ndarray, was_seen: np.ndarray) -> np.ndarray:
    """Shuffled positions, reordered so that every prefix has its fraction of each class; one of each comes last.

    Those that were seen come after the others.
    """
    names, classes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if len(names) > len(classes) // 2:  # nearly all different: these are not classes
        return drawn[np.argsort(was_seen, kind="stable")]
    rank, size = rank_in_class(classes), sizes[classes]
    is_last = rank == size - 1
    return drawn[np.lexsort(((rank + 0.5) / size, was_seen, is_last))]
