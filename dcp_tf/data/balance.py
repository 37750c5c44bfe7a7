"""What is drawn from a seed: orders, subsets with even classes, and train-test splits."""

from typing import Any

import numpy as np

from dcp_tf.data.labels import balancing_classes, rank_in_class
from dcp_tf.errors import UsageError

# The random streams that are drawn from one seed.
ORDER, CROPS, _SUBSET, _SPLIT = range(4)


def generator(seed: int, *stream: int) -> np.random.Generator:
    """The random numbers of one stream of a seed; raises UsageError where the seed is negative."""
    if seed < 0:
        raise UsageError(f"a seed must be 0 or more, received {seed}")
    return np.random.default_rng((seed, *stream))


def balanced_order(size: int, labels: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """Positions of `n` of `size` images, sorted, with classes as even as the labels allow."""
    if n < 1:
        raise UsageError(f"a subset needs at least 1 image, received {n}")
    rng = generator(seed, _SUBSET)
    drawn = rng.permutation(size)
    if labels is not None:
        names, labels = np.unique(labels, return_inverse=True)
        # Take the classes in rounds: one image of each, in an order of classes drawn once.
        classes = labels[drawn]
        order_in_round = rng.permutation(len(names))[classes]
        drawn = drawn[np.lexsort((order_in_round, rank_in_class(classes)))]
    return np.sort(drawn[:n])


def stratified_split(labels: Any, size: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a train-test split with the same fraction of every class.

    A class keeps at least one training image, and gives one to the test if it has two or more. Labels that are nearly
    all different are not classes.

    Returns:
        The positions of the train and of the test images, sorted.

    Raises:
        UsageError: the fraction is not between 0 and 1, or it leaves one split empty.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the test fraction must lie between 0 and 1, received {fraction}")
    rng = generator(seed, _SPLIT)
    is_test = np.zeros(size, bool)
    names, labels = (
        (None, None) if (known := balancing_classes(labels)) is None else np.unique(known, return_inverse=True)
    )
    is_number = names is None or len(names) > size // 2
    classes = [np.arange(size)] if is_number else [np.flatnonzero(labels == label) for label in range(len(names))]
    for members in classes:
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        is_test[rng.permutation(members)[:count]] = True
    if not is_test.any():
        raise UsageError(f"{size} images are too few for a train-test split; give separate test images")
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
