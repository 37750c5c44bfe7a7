"""What every loader returns: the pixels and labels of a data set, before any preprocessing."""

import dataclasses
from typing import Any

from dcp_tf.data.balance import stratified_split
from dcp_tf.data.pixel_sources import Source
from dcp_tf.data.structure import map_parts


@dataclasses.dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set as stored.

    Attributes:
        name: of the data set.
        train: the training pixels, their labels (N,) or None, and perhaps sample weights.
        test: the test pixels and the same of them.
        class_names: by label; empty without labels.
        augmentation: what suits these images, one of `preprocessing.AUGMENTATIONS`.
        notes: what the user should know about how they were read.
    """

    name: str
    train: tuple
    test: tuple
    class_names: tuple[str, ...]
    augmentation: str = "shift"
    notes: tuple[str, ...] = ()


def train_test_split(
    source: Source, labels: Any, fraction: float, seed: int
) -> tuple[tuple[Source, Any], tuple[Source, Any]]:
    """Splits every class: the `train` and `test` of `RawDataset`."""
    sides = stratified_split(labels, source.size, fraction, seed)
    train, test = ((source.take(side), map_parts(lambda part, side=side: part[side], labels)) for side in sides)
    return train, test
