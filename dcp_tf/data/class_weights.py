"""Weights of classes, as weights of the samples that have them."""

import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.data_split import DataSplit
from dcp_tf.errors import UsageError

BALANCED = "balanced"


def with_class_weight(split: DataSplit, class_weight: Mapping[Any, Any] | str | None) -> DataSplit:
    """The same samples, each weighted by its class, as `keras.Model.fit` does it; sample weights are multiplied.

    Args:
        split: bound to its model, with labels that are class numbers, or rows with one entry for each class.
        class_weight: from class number to weight, 1 for others; "balanced": in reverse to how often each class occurs,
            1 on average; by the outputs' names where there are several; None: the split itself. A map of classes gets
            one weight for each position.

    Raises:
        UsageError: it names no output or no class, or there are no labels of classes.
    """
    if class_weight is None:
        return split
    if class_weight != BALANCED and (not isinstance(class_weight, Mapping) or not class_weight):
        raise UsageError(
            f"class_weight must be a dict {{class number: weight}} or {BALANCED!r}, received {class_weight!r:.80}"
        )
    if split.labels is None:
        raise UsageError("class_weight needs labels; the data has none")
    labels = split.labels
    if isinstance(labels, Mapping):
        unknown = None if class_weight == BALANCED else next((n for n in class_weight if n not in labels), None)
        if class_weight == BALANCED or unknown is not None:
            raise UsageError(
                f"class_weight {'is for one output' if unknown is None else f'names {unknown!r}'}; give "
                f"{{output: {{class number: weight}}}} for outputs that have labels: {', '.join(labels)}"
            )
        tables = {name: _table(weights, labels[name]) for name, weights in class_weight.items()}
    else:
        tables = _table(class_weight, labels)

    def convert(inputs: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
        if not isinstance(tables, dict):
            return inputs, labels, _weighted(tables, labels, weights)
        before = weights or {}
        return inputs, labels, before | {n: _weighted(t, labels[n], before.get(n)) for n, t in tables.items()}

    return split.converted(convert)


def _table(class_weight: Any, labels: np.ndarray) -> np.ndarray:
    """The weight of each class by its number; the last stands for all others."""
    if class_weight == BALANCED:
        class_weight = _balanced(labels)
    valid = isinstance(class_weight, Mapping) and all(
        isinstance(number, numbers.Integral) and number >= 0 and isinstance(weight, numbers.Real) and weight >= 0
        for number, weight in class_weight.items()
    )
    if not valid or not class_weight:
        raise UsageError(f"class_weight must be {{class number: weight of 0 or more}}, received {class_weight!r:.80}")
    if not _has_rows(labels) and not np.issubdtype(labels.dtype, np.integer):
        raise UsageError(f"class_weight needs class numbers as labels, these are {labels.dtype} {labels.shape}")
    table = np.ones(max(map(int, class_weight)) + 2, np.float32)
    for number, weight in class_weight.items():
        table[int(number)] = weight
    return table


def _balanced(labels: np.ndarray) -> dict[int, float]:
    """Weights in reverse to how often each class occurs, 1 on average over the labels."""
    numbers = labels.argmax(-1) if _has_rows(labels) else labels
    if not np.issubdtype(numbers.dtype, np.integer):
        raise UsageError(f"class_weight needs class numbers as labels, these are {labels.dtype} {labels.shape}")
    classes, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    return dict(zip(classes.tolist(), (counts.sum() / (len(classes) * counts)).tolist(), strict=True))


def _has_rows(labels: Any) -> bool:
    """Whether each label is a row with an entry for each class."""
    is_float = tf.as_dtype(labels.dtype).is_floating
    return len(labels.shape) in (2, 4) and labels.shape[-1] > 1 and is_float


def _weighted(table: np.ndarray, labels: Any, weights: Any) -> Any:
    """The weights of labels, an array or a tensor as they are, times those of before."""
    is_array = isinstance(labels, np.ndarray)
    classes = tf.argmax(labels, -1) if _has_rows(labels) else labels
    last = len(table) - 1
    classes = tf.where((classes >= 0) & (classes < last), tf.cast(classes, tf.int64), tf.cast(last, tf.int64))
    looked_up = tf.gather(tf.constant(table), classes)
    if weights is not None:
        more = len(looked_up.shape) - len(weights.shape)
        weights = tf.cast(weights, tf.float32)
        looked_up *= tf.reshape(weights, tf.concat([tf.shape(weights), tf.ones(max(0, more), tf.int32)], 0))
    return looked_up.numpy() if is_array else looked_up
