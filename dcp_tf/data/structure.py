"""Nested inputs, labels and weights: batches taken apart and put together, and what holds for all their parts."""

import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def split_batch(batch: Any) -> tuple[Any, Any, Any]:
    """The inputs, the labels and the sample weights of a batch, as Keras reads it; None for what is not there."""
    parts = batch if isinstance(batch, tuple) else (batch,)
    return (*parts, None, None)[:3]


def join_batch(inputs: Any, labels: Any = None, weights: Any = None) -> Any:
    """A batch of `tf.data`, which `split_batch` takes apart again."""
    if weights is not None:
        return inputs, labels, weights
    if labels is not None:
        return inputs, labels
    return (inputs,) if isinstance(inputs, tuple) else inputs


def map_parts(function: Callable, structure: Any) -> Any:
    """The structure with the function's values in place of its parts; None stays."""
    return tf.nest.map_structure(lambda part: None if part is None else function(part), structure)


def flat_parts(structure: Any) -> list[Any]:
    """The parts of a structure that are not None, in the order of `tf.nest.flatten`."""
    return [part for part in tf.nest.flatten(structure) if part is not None]


def pack_parts(structure: Any, parts: list[Any] | tuple[Any, ...]) -> Any:
    """The structure with other parts in place of those that are not None."""
    remaining = iter(parts)
    return map_parts(lambda _: next(remaining), structure)


def named_parts(structure: Any, what: str) -> list[tuple[str, Any]]:
    """The parts of a structure, each with `what` and where it is, for messages: "labels['boxes']".

    The arrays of a file are called as they are there: "y_train/boxes of data.npz".
    """
    side, of, file = what.partition(" of ")
    of_file = re.fullmatch("[xyw]_(train|test)", side)
    return [
        (
            "/".join([side, *map(str, path)]) + of + file if of_file else what + "".join(f"[{key!r}]" for key in path),
            part,
        )
        for path, part in keras.tree.flatten_with_path(structure)
    ]


def checked_parts(check: Callable, structure: Any, size: int, what: str) -> Any:
    """Each array as a function of array, `size` and name returns it; None where there is no array."""
    names = iter([name for name, part in named_parts(structure, what) if part is not None])
    return map_parts(lambda part: check(part, size, next(names)), structure) if flat_parts(structure) else None


def sample_shapes(inputs: Any) -> list[tuple[int | None, ...]]:
    """The shape of one sample of each input, of arrays or of their specs."""
    return [tuple(part.shape[1:]) for part in flat_parts(inputs)]
