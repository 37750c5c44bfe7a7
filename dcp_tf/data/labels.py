"""A user's labels: class numbers, other numbers, rows or maps. The objective defines what they mean."""

from typing import Any

import numpy as np

from dcp_tf.data.structure import flat_parts, named_parts
from dcp_tf.errors import UsageError


def label_array(labels: np.ndarray, size: int, what: str, unit: str = "labels") -> np.ndarray:
    """Checks and converts a user's labels.

    Args:
        labels: (N, ...) of integers, floats or truth values; a column (N, 1) counts as (N,).
        size: N, how many images there are.
        what: their name, for error messages.
        unit: what they are, for error messages.

    Returns:
        The labels as int32 or float32.

    Raises:
        UsageError: they are not numbers, hold NaN, or are not one per image.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "buif":
        names = (
            "; numpy.unique(y, return_inverse=True)[1] numbers names in their order"
            if labels.dtype.kind in "US"
            else ""
        )
        raise UsageError(
            f"{what} must be integers (class numbers from 0) or floats, received the type {labels.dtype}{names}"
        )
    if labels.ndim < 1 or 0 in labels.shape[1:]:
        raise UsageError(f"{what} must hold one label per image, of shape (N,) or (N, ...), received {labels.shape}")
    if len(labels) != size:
        raise UsageError(f"{what} has {len(labels)} {unit} for {size} images; there must be one for each")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float32)
        if not np.isfinite(labels).all():
            raise UsageError(f"{what} holds NaN or infinite {unit}; clean them first")
        return labels
    if labels.dtype.kind != "b" and (labels.min(initial=0) < -(2**31) or labels.max(initial=0) >= 2**31):
        raise UsageError(f"{what} holds integers beyond 32 bits; store them as floats, or number the classes from 0")
    return labels.astype(np.int32)


def weight_array(weights: np.ndarray, size: int, what: str) -> np.ndarray:
    """Checks and converts a user's sample weights to float32.

    Args:
        weights: (N,), or (N, ...) with one for each position of a map; a column (N, 1) counts as (N,).
        size: N, how many samples there are.
        what: their name, for error messages.

    Raises:
        UsageError: they are not numbers of 0 or more, all zero, or not one per sample.
    """
    weights = label_array(weights, size, what, unit="weights").astype(np.float32)
    if weights.min(initial=0) < 0 or not weights.any():
        raise UsageError(f"{what} must be 0 or more, and not all 0")
    return weights


def class_numbers(labels: np.ndarray | None) -> np.ndarray | None:
    """One class number (N,) for each image, for balancing; None if the labels are not classes.

    Rows of targets between 0 and 1 count by their largest entry, the first of equal ones; rows of zeros are a class of
    their own. Numbers that are not class numbers, and maps, name no class.
    """
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1:
        whole = np.issubdtype(labels.dtype, np.integer) or bool((labels == np.floor(labels)).all())
        return labels.astype(np.int64) if whole and labels.min(initial=0) >= 0 else None
    if labels.ndim > 2 or labels.min(initial=0) < 0 or labels.max(initial=0) > 1:
        return None
    return np.where(labels.any(1), labels.argmax(1), labels.shape[1])


def balancing_classes(labels: Any) -> np.ndarray | None:
    """The class number of each sample, of the first labels that are integers, else of the first that name classes."""
    parts = flat_parts(list(labels.values()) if isinstance(labels, dict) else labels)
    parts.sort(key=lambda part: not (np.ndim(part) == 1 and np.issubdtype(part.dtype, np.integer)))
    return next((numbers for part in parts if (numbers := class_numbers(part)) is not None), None)


def rank_in_class(classes: np.ndarray) -> np.ndarray:
    """For each position how many earlier positions have the same class, (N,)."""
    by_class = np.argsort(classes, kind="stable")
    ordered = classes[by_class]
    rank = np.empty(len(classes), np.int64)
    rank[by_class] = np.arange(len(classes)) - np.searchsorted(ordered, ordered)
    return rank


def class_names(*labels: Any) -> tuple[str, ...]:
    """Names for numbered classes: "0" up to the largest label, at least two; empty without class labels.

    In rows of labels each column is a class. Several outputs have the names of the first one whose labels are numbers.
    """
    if any(isinstance(part, dict | tuple) for part in labels):
        both = [dict(named_parts(part, "")) for part in labels if part is not None]
        groups = [[parts[name] for parts in both if name in parts] for name in both[0]]
        return next((names for group in groups if np.ndim(group[0]) == 1 and (names := class_names(*group))), ())
    present = [part for part in labels if part is not None]
    if present and all(part.ndim == 2 for part in present):
        return tuple(str(number) for number in range(present[0].shape[1]))
    if not present or not all(part.ndim == 1 and np.issubdtype(part.dtype, np.integer) for part in present):
        return ()
    if min(int(part.min()) for part in present) < 0:
        return ()
    return tuple(str(number) for number in range(max(2, *(int(part.max()) + 1 for part in present))))


def check_same_labels(train: Any, test: Any, train_name: str, test_name: str) -> None:
    """Raises UsageError if the labels of two splits differ in type or shape; outputs with labels in both count."""
    of_test = dict(named_parts(test, ""))
    for name, part in named_parts(train, ""):
        other = of_test.get(name)
        if part is None or other is None:
            continue
        if part.shape[1:] != other.shape[1:] or part.dtype != other.dtype:
            raise UsageError(
                f"{train_name}{name} holds labels of the type {part.dtype} and the shape {part.shape}, but "
                f"{test_name}{name} of {other.dtype} and {other.shape}; give both the same form"
            )
