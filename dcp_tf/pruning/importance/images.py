"""The class-balanced selection set, for criteria that look at what the model does with images."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import split_batch
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.context import Context
from dcp_tf.training.targets import samples_in, targets_of


def mean_over_batches(context: Context, function: Callable) -> list[np.ndarray]:
    """Averages what a function of images and labels returns over the selection set, each batch by its size.

    The function is compiled once, and its values are summed on the device.
    """
    sums, step, total = None, None, 0
    for images, labels in selection_set(context, f"ranking channels by {context.method.name}"):
        if step is None:
            step = compiled(function, [images, labels])
        size = samples_in(images)
        values = [size * tf.cast(x, tf.float64) for x in step(images, labels)]
        sums = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
        total += size
    return [x.numpy() / total for x in sums]


def selection_set(
    context: Context, what: str, most: int | None = None, batch_size: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """The selection set in batches of images and labels (perhaps `Weighted`); predictions where labels are missing.

    Args:
        context: the images, their labels and how many of them the method looks at.
        what: is done with them, for the progress bar.
        most: images.
        batch_size: in place of the method's.
    """
    data, method, teacher = context.data, context.method, context.labels_from_model()
    subset = data.balanced_subset(min(method.selection_samples, data.size, most or data.size), context.seed)
    order = np.random.default_rng([context.seed, 0]).permutation(subset)
    batch_size = batch_size or method.selection_batch
    batches = data.batches(batch_size, indices=order)
    count = math.ceil(len(order) / batch_size)
    for batch in progress.bar(batches, what=what, total=count, unit="batch"):
        inputs, labels, weights = split_batch(batch)
        yield inputs, targets_of(inputs, labels, weights, teacher)
