"""Reads the labels of a pipeline in one pass, and says how far its images can be shuffled."""

import math
import time

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data.labels import label_array
from dcp_tf.errors import UsageError

# Images of a pipeline that wait in memory to be shuffled take at most this many bytes.
SHUFFLE_BYTES = 2**29
# A pipeline of unknown length that yields more images counts as endless.
MOST_IMAGES = 10**8
_FIRST_LINE, _BETWEEN_LINES = 5.0, 20.0  # seconds
_EVERY = 51_200  # images: a fast pipeline reports progress too


def read_labels(dataset: tf.data.Dataset, labelled: bool) -> np.ndarray:
    """The labels of all images; zeros, one for each image, where there are none.

    Reports progress if that takes long.

    Raises:
        UsageError: the pipeline is empty, its labels are not numbers of one shape, or it does not end.
    """
    batches = int(dataset.cardinality())
    report = _Progress("the labels" if labelled else "the images", known_to_end=batches >= 0)
    parts: list[np.ndarray] = []
    total = batches if batches >= 0 else None
    for batch in progress.bar(dataset, what="reading the labels", total=total, unit="batch"):
        parts.append(batch[1].numpy() if labelled else np.zeros(batch.shape[0]))
        report.add(len(parts[-1]))
    if not report.images:
        raise UsageError("the tf.data.Dataset is empty")
    if len({batch_labels.shape[1:] for batch_labels in parts}) > 1:
        raise UsageError("the labels of the tf.data.Dataset differ in shape from batch to batch; pad them to one")
    labels = np.concatenate(parts)
    if labelled:
        label_array(labels, len(labels), "labels of the tf.data.Dataset")
    return labels


class _Progress:
    """Prints how many images were read."""

    def __init__(self, what: str, known_to_end: bool):
        self.images = 0
        self._what, self._known_to_end = what, known_to_end
        self._next_time, self._next_count = time.monotonic() + _FIRST_LINE, _EVERY

    def add(self, count: int) -> None:
        """Counts images; raises UsageError if the pipeline seems endless."""
        self.images += count
        if self._known_to_end:
            return
        if self.images > MOST_IMAGES:
            raise UsageError(f"the tf.data.Dataset yields more than {MOST_IMAGES:,} images; end it with .take(batches)")
        now = time.monotonic()
        if now >= self._next_time or self.images >= self._next_count:
            progress.say(
                f"reading {self._what} of the tf.data.Dataset: {self.images:,} images so far; its length is unknown, "
                "an endless one needs .take(batches)"
            )
            self._next_time, self._next_count = now + _BETWEEN_LINES, 4 * max(self.images, self._next_count)


def shuffle_buffer(size: int, images: tf.TensorSpec) -> int:
    """The shuffle buffer for `size` images, within the memory limit."""
    sides = [side or 256 for side in images.shape[1:]]  # open sides as photographs have them
    return max(1, min(size, SHUFFLE_BYTES // max(1, math.prod(sides) * images.dtype.size)))


def note_sorted(classes: np.ndarray | None, buffer: int) -> None:
    """Warns if the images are sorted by class and the shuffle buffer is too small to mix them."""
    if classes is None or buffer >= len(classes):
        return
    everywhere = len(np.unique(classes))
    nearby = np.mean([len(np.unique(classes[start : start + buffer])) for start in range(0, len(classes), buffer)])
    if everywhere > 1 and nearby <= max(everywhere / 2, 1):
        progress.say(
            f"the tf.data.Dataset comes sorted by class, and only {buffer:,} of its {len(classes):,} images fit into "
            "memory to be shuffled: shuffle it before (its file names, for instance), or training will do poorly"
        )
