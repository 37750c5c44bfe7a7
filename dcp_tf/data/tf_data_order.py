"""Reads the labels of a pipeline in one pass, and says how far its images can be shuffled."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data.gather import all_finite
from dcp_tf.data.labels import label_array, weight_array
from dcp_tf.data.structure import flat_parts, map_parts, named_parts, pack_parts, split_batch
from dcp_tf.errors import UsageError, first_line

# Images of a pipeline that wait in memory to be shuffled take at most this many bytes.
SHUFFLE_BYTES = 2**29
# A pipeline of unknown length that yields more images counts as endless.
MOST_IMAGES = 10**8
_FIRST_LINE, _BETWEEN_LINES = 5.0, 20.0  # seconds
_EVERY = 51_200  # images: a fast pipeline reports progress too


def read_labels(batches: Iterable, kind: str, total: int | None) -> tuple[int, Any, Any]:
    """The number of samples in batches, and all their labels and weights, nested as there; None where there are none.

    Reports progress if that takes long.

    Args:
        batches: of a pipeline.
        kind: of the pipeline, for messages.
        total: how many batches there are, if that is known.

    Raises:
        UsageError: there is no batch, labels are not numbers of one shape, or the batches do not end.
    """
    report, sizes = _Progress(kind, total is not None), []
    parts: list[Any] = []
    try:
        for batch in progress.bar(batches, what="reading the labels", total=total, unit="batch"):
            inputs, *beside = split_batch(batch)
            parts.append(map_parts(np.asarray, tuple(beside)))
            sizes.append(int(flat_parts(inputs)[0].shape[0]))
            if not all(all_finite(np.asarray(part)) for part in flat_parts(inputs)):
                raise UsageError(f"batch {len(sizes)} of the {kind} holds NaN or infinite values in its inputs")
            report.add(sizes[-1], flat_parts(beside))
    except tf.errors.OpError as error:
        raise UsageError(f"the {kind} cannot be read: {first_line(error)}") from error
    if not parts:
        raise UsageError(f"the {kind} is empty")
    if any(len({part.shape[1:] for part in same}) > 1 for same in zip(*map(flat_parts, parts), strict=True)):
        raise UsageError(f"the labels of the {kind} differ in shape from batch to batch; pad them to one")
    joined = [np.concatenate(same) for same in zip(*map(flat_parts, parts), strict=True)]
    labels, weights = pack_parts(parts[0], joined)
    size = sum(sizes)
    for where, part in named_parts(labels, f"labels of the {kind}"):
        if part is not None:
            label_array(part, size, where)
    for where, part in named_parts(weights, f"sample weights of the {kind}"):
        if part is not None:
            weight_array(part, size, where)
    return size, labels if flat_parts(labels) else None, weights if flat_parts(weights) else None


class _Progress:
    """Prints how many images were read."""

    def __init__(self, kind: str, known_to_end: bool):
        self.images = 0
        self._kind, self._known_to_end = kind, known_to_end
        self._next_time, self._next_count = time.monotonic() + _FIRST_LINE, _EVERY

    def add(self, count: int, labels: list) -> None:
        """Counts images and looks at their labels; raises UsageError if the pipeline seems endless."""
        self.images += count
        if self._known_to_end:
            return
        if self.images > MOST_IMAGES:
            raise UsageError(f"the {self._kind} yields more than {MOST_IMAGES:,} images; end it with .take(batches)")
        now = time.monotonic()
        if now >= self._next_time or self.images >= self._next_count:
            progress.say(
                f"reading the {'labels' if labels else 'images'} of the {self._kind}: {self.images:,} images so far; "
                "its length is unknown, an endless one needs .take(batches)"
            )
            self._next_time, self._next_count = now + _BETWEEN_LINES, 4 * max(self.images, self._next_count)


def shuffle_buffer(size: int, inputs: Sequence[tf.TensorSpec]) -> int:
    """The shuffle buffer for `size` samples, within the memory limit; open sides count as those of photographs."""
    each = sum(math.prod(side or 256 for side in spec.shape[1:]) * spec.dtype.size for spec in inputs)
    return max(1, min(size, SHUFFLE_BYTES // max(1, each)))


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
