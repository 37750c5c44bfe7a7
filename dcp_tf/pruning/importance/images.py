"""The class-balanced selection set, for criteria that look at what the model does with images."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.pruning.context import Context


def mean_over_batches(context: Context, function: Callable) -> list[np.ndarray]:
    """Averages what a function of images and labels returns over the selection set, each batch by its size.

    The function is compiled once, and its values are summed on the device.
    """
    sums, step, total = None, None, 0
    for images, labels in selection_set(context, f"ranking channels by {context.method.name}"):
        if step is None:
            specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in (images, labels)]
            step = tf.function(function, input_signature=specs, autograph=False)
        size = int(images.shape[0])
        values = [size * tf.cast(x, tf.float64) for x in step(images, labels)]
        sums = values if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
        total += size
    return [x.numpy() / total for x in sums]


def selection_set(
    context: Context, what: str, most: int | None = None, batch_size: int | None = None
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The selection set in batches of images and labels; the model's own predictions where there are no labels.

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
        yield (batch, teacher(batch)) if teacher else batch
