"""Checks that labels fit the outputs of a model."""

from collections.abc import Sequence

import numpy as np

from dcp_tf.errors import UsageError

_SUM_TOLERANCE = 1e-2  # of the targets of one prediction, which a user may have rounded
_OUTLIERS = 0.1  # fraction of labels outside of a sigmoid's range from which their scale must be wrong
_SLACK = 0.05


def is_index(labels: Sequence, outputs: Sequence) -> bool:
    """Whether labels of this shape are one number per prediction, and not rows of targets."""
    return len(labels) == len(outputs) - 1 or (len(labels) == len(outputs) and labels[-1] == 1)


def fits(labels: Sequence, outputs: Sequence) -> bool:
    """Whether two shapes are compatible apart from the batch axes."""
    pairs = zip(labels[1:], outputs[1:], strict=False)
    return len(labels) == len(outputs) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def check_class_labels(labels: np.ndarray, shape: tuple, what: str, *, rows_sum_to_1: bool) -> None:
    """Raises UsageError unless labels are class numbers, or rows of targets, for outputs of this shape."""
    if not is_index(labels.shape, shape):
        check_rows(labels, shape, what, sums_to_1=rows_sum_to_1)
        return
    _check_shape(labels, (*shape[:-1], 1) if len(labels.shape) == len(shape) else shape[:-1], shape, what)
    if not are_whole(labels):
        raise UsageError(
            f"{what} has labels of the type {labels.dtype} with fractions; classes must be integers (from 0), numbers "
            f"to regress need loss=mse and labels ({_axes(shape)})",
            setting="loss",
        )
    _check_numbering(labels, shape[-1], what)


def are_whole(labels: np.ndarray) -> bool:
    """Whether labels are integers, of whatever type."""
    return not np.issubdtype(labels.dtype, np.floating) or bool((labels == np.floor(labels)).all())


def are_two_classes(labels: np.ndarray) -> bool:
    """Whether labels have two values that name two classes, such as -1 and 1 or 0 and 255."""
    if not labels.size or not are_whole(labels):
        return False
    low, high = labels.min(), labels.max()
    return (low, high) in ((0, 1), (1, 2), (-1, 1), (0, 255)) and bool(((labels == low) | (labels == high)).all())


def numbering_note(labels: np.ndarray | None, shape: Sequence) -> str | None:
    """A line if the classes of training labels seem to be numbered from 1, although they fit the outputs.

    Args:
        labels: of the training images, checked.
        shape: of the outputs, with the batch axis.
    """
    if labels is None or not labels.size or shape[-1] < 3 or not is_index(labels.shape, shape):
        return None
    low, high = int(labels.min()), int(labels.max())
    if low != 1:
        return None
    return (
        f"none of the labels is 0: they run from 1 to {high}, the outputs from 0 to {shape[-1] - 1}; if the classes "
        "were numbered from 1, subtract 1 from the labels"
    )


def _check_numbering(labels: np.ndarray, outputs: int, what: str) -> None:
    """Raises UsageError unless whole numbers are those of the classes of a model."""
    low, high, classes = int(labels.min(initial=0)), int(labels.max(initial=0)), max(2, outputs)
    first = int(labels.min()) if labels.size else 0
    if low >= 0 and high < classes:
        return
    if first == 1 and high == classes:
        raise UsageError(
            f"{what} has labels from 1 to {high}; classes are numbered from 0: subtract 1 from the labels"
            + (" (or give loss=mse if they are numbers to regress)" if outputs == 1 else ""),
            setting="loss",
        )
    if classes == 2 and are_two_classes(labels):
        raise UsageError(
            f"{what} has the labels {first} and {high}; the two classes are numbered 0 and 1: give (y == {high})"
            + (" (or loss=mse if they are numbers to regress)" if outputs == 1 else ""),
            setting="loss",
        )
    if low < 0:
        raise UsageError(f"{what} holds the negative label {low}; classes are numbered from 0")
    raise UsageError(
        f"{what} has the label {high}, but the model has {outputs} output{'s' * (outputs != 1)}; "
        f"use a model with at least {high + 1}" + (", or loss=mse for numbers to regress" if outputs == 1 else ""),
        setting="loss",
    )


def check_reachable(labels: np.ndarray, kind: str, what: str) -> None:
    """Raises UsageError if a model that ends in probabilities cannot predict the numbers of the labels."""
    if kind == "logits" or not labels.size:
        return
    beyond = (labels < -_SLACK) | (labels > 1 + _SLACK)
    if beyond.mean() > _OUTLIERS:
        raise UsageError(
            f"{what} has labels from {labels.min():g} to {labels.max():g}, but the model ends in a {kind}, which gives "
            "0 to 1: scale the labels, or end the model in a linear layer"
        )


def check_rows(labels: np.ndarray, shape: tuple, what: str, *, sums_to_1: bool) -> None:
    """Raises UsageError unless labels are one row of targets between 0 and 1 per prediction."""
    if shape[-1] == 1 and fits(labels.shape, (*shape[:-1], 2)):
        raise UsageError(
            f"{what} has rows of two labels, but the model has one output, which answers yes or no: give the column of "
            "the second class, y[..., 1]"
        )
    _check_shape(labels, shape, shape, what)
    if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
        raise UsageError(
            f"{what} has rows of labels between {labels.min():g} and {labels.max():g}; those of classes are 0 and 1, "
            "or probabilities; numbers to regress need loss=mse",
            setting="loss",
        )
    if sums_to_1 and np.abs(labels.sum(-1, dtype=np.float64) - 1).max(initial=0) > _SUM_TOLERANCE:
        raise UsageError(
            f"{what} has rows of labels that do not sum to 1, as those of a softmax must; for several classes at once "
            "end the model in sigmoids, or give loss=multilabel for logits",
            setting="loss",
        )


def check_numbers(labels: np.ndarray, shape: tuple, what: str) -> None:
    """Raises UsageError unless labels are numbers of the outputs' shape; a last axis of 1 may be omitted."""
    left_out = shape[-1] == 1 and len(labels.shape) == len(shape) - 1
    _check_shape(labels, shape[:-1] if left_out else shape, shape, what)
    if not np.isfinite(labels).all():
        raise UsageError(f"{what} has labels that are NaN or infinite")


def _check_shape(labels: np.ndarray, expected: tuple, shape: tuple, what: str) -> None:
    if not fits(labels.shape, expected):
        expected_axes = _axes(expected) + "," * (len(expected) == 1)
        raise UsageError(
            f"{what} has labels of shape {labels.shape}, but the model gives ({_axes(shape)}), which needs labels "
            f"({expected_axes})"
        )


def _axes(shape: Sequence) -> str:
    return ", ".join(["N", *map(str, shape[1:])])
