"""Whether labels fit the outputs of a model: one clear line where they do not."""

from collections.abc import Sequence

import numpy as np

from dcp_tf.errors import UsageError

_SUM_TOLERANCE = 1e-2  # of the targets of one answer, which a user may have rounded


def is_index(labels: Sequence, outputs: Sequence) -> bool:
    """Whether labels of this shape are one number for each answer of outputs of this shape, and no rows of targets."""
    return len(labels) == len(outputs) - 1 or (len(labels) == len(outputs) and labels[-1] == 1)


def fits(labels: Sequence, outputs: Sequence) -> bool:
    """Whether a shape equals another as far as that is known; the batch axes are not compared."""
    pairs = zip(labels[1:], outputs[1:], strict=False)
    return len(labels) == len(outputs) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def check_class_labels(labels: np.ndarray, shape: tuple, what: str, *, rows_sum_to_1: bool) -> None:
    """Raises UsageError unless labels are class numbers, or rows of targets, for outputs of this shape."""
    if not is_index(labels.shape, shape):
        check_rows(labels, shape, what, sums_to_1=rows_sum_to_1)
        return
    _check_shape(labels, (*shape[:-1], 1) if len(labels.shape) == len(shape) else shape[:-1], shape, what)
    outputs = shape[-1]
    whole = np.issubdtype(labels.dtype, np.integer) or (outputs == 1 and np.isin(labels, (0, 1)).all())
    if not whole:
        raise UsageError(
            f"{what} has labels of the type {labels.dtype}; classes must be integers (from 0), and for numbers to "
            "regress the model must end in a linear layer with as many outputs (--loss=mse)"
        )
    if labels.size and labels.min() < 0:
        raise UsageError(f"{what} holds the negative label {labels.min()}; classes are numbered from 0")
    largest = int(labels.max(initial=0))
    if largest >= max(2, outputs):
        raise UsageError(
            f"{what} has the label {largest}, but the model has {outputs} output{'s' * (outputs != 1)}; "
            f"use a model with at least {largest + 1}"
        )


def check_rows(labels: np.ndarray, shape: tuple, what: str, *, sums_to_1: bool) -> None:
    """Raises UsageError unless labels are one row of targets, each between 0 and 1, for each answer."""
    _check_shape(labels, shape, shape, what)
    if labels.size and not (labels.min() >= 0 and labels.max() <= 1):
        raise UsageError(
            f"{what} has rows of labels between {labels.min():g} and {labels.max():g}; those of classes are 0 and 1, "
            "or probabilities; numbers to regress need --loss=mse"
        )
    if sums_to_1 and np.abs(labels.sum(-1, dtype=np.float64) - 1).max(initial=0) > _SUM_TOLERANCE:
        raise UsageError(
            f"{what} has rows of labels that do not sum to 1, as those of a softmax must; for several classes at once "
            "end the model in sigmoids, or give --loss=multilabel for logits"
        )


def check_numbers(labels: np.ndarray, shape: tuple, what: str) -> None:
    """Raises UsageError unless labels are numbers of the outputs' shape; a last axis of 1 may be left out."""
    left_out = shape[-1] == 1 and len(labels.shape) == len(shape) - 1
    _check_shape(labels, shape[:-1] if left_out else shape, shape, what)
    if not np.isfinite(labels).all():
        raise UsageError(f"{what} has labels that are NaN or infinite")


def _check_shape(labels: np.ndarray, expected: tuple, shape: tuple, what: str) -> None:
    if not fits(labels.shape, expected):
        wanted = ", ".join(["N", *map(str, expected[1:])]) + "," * (len(expected) == 1)
        outputs = ", ".join(["N", *map(str, shape[1:])])
        raise UsageError(
            f"{what} has labels of shape {labels.shape}, but the model gives ({outputs}), which needs labels ({wanted})"
        )
