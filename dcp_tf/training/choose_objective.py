"""Chooses the objective of a model from its outputs, its data and the user's settings."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from dcp_tf.errors import UsageError, did_you_mean
from dcp_tf.models.outputs import outputs_kind as read_outputs_kind
from dcp_tf.settings.data import LOSSES, MARGINS
from dcp_tf.training.custom_objective import Custom
from dcp_tf.training.embeddings import Directions, Embedding
from dcp_tf.training.keras_metrics import with_metrics
from dcp_tf.training.label_checks import are_two_classes, are_whole, check_reachable, is_index
from dcp_tf.training.objectives import Classification, Objective, Regression, output_shape


def choose_objective(
    model: keras.Model, data: Any, loss: str = "auto", outputs_kind: str | None = None, what: str = "the data"
) -> Objective:
    """Finds the objective of a model, and fits it to the model and its data.

    Args:
        model: with one output.
        data: see `dcp_tf.data.DataSplit`; its labels may be None.
        loss: one of `LOSSES`. "auto" infers it from the last activation and the labels: class numbers and one-hot rows
            are classes, rows with several ones are several classes at once, everything else after a linear layer is
            regression. Without labels the model's own outputs are the targets: class probabilities if it ends in a
            softmax or sigmoid, numbers if it ends in a linear layer.
            "softmax": one class; "sigmoid": one class, with independent binary outputs; "multilabel": several
            classes at once; "mse": numbers; "arcface", "cosface", "asoftmax": embeddings of classes, or, without
            labels, the directions of the model's own.
        outputs_kind: "logits", "softmax" or "sigmoid"; None infers it from the last activation.
        what: the name of the data in errors.

    Raises:
        UsageError: the loss is unknown, or model, data and loss do not fit each other.
    """
    return choose_for_outputs(
        outputs_kind or read_outputs_kind(model), output_shape(model, data), data, loss, model, what
    )


def choose_for_outputs(
    kind: str, shape: tuple, data: Any, loss: str = "auto", model: keras.Model | None = None, what: str = "the data"
) -> Objective:
    """As `choose_objective`, for outputs of known kind and shape (with the batch axis)."""
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}; {did_you_mean(loss, LOSSES)}, or a name of keras.losses", "loss")
    if len(shape) < 2:
        raise UsageError(f"expected outputs of shape (batch, ..., values), received {shape}")
    name = infer_loss(kind, shape, data.labels) if loss == "auto" else loss
    if (name, kind) in (("softmax", "sigmoid"), ("sigmoid", "softmax"), ("multilabel", "softmax")):
        raise UsageError(f"a model that ends in a {kind} has no {name} loss; leave out the loss, or end it in logits")
    if name == "mse":
        if data.labels is not None:
            check_reachable(data.labels, kind, what)
        objective = Regression()
    elif name in MARGINS:
        objective = Directions() if data.labels is None else Embedding(name)
    else:
        objective = Classification(kind, independent=name != "softmax", multilabel=name == "multilabel")
    return objective.bind(shape, data, model, what)


def as_objective(
    objective: Objective | str | Callable | None,
    model: keras.Model,
    data: Any,
    outputs_kind: str | None = None,
    what: str = "the data",
) -> Objective:
    """The objective of one output, fitted to the model and its data.

    Args:
        objective: an objective, a name of `LOSSES`, a loss `(labels, outputs) -> scalar mean`, or None for "auto".
        model: with one output.
        data: see `dcp_tf.data.DataSplit`.
        outputs_kind: as for `choose_objective`.
        what: the name of the data in errors.

    Raises:
        UsageError: it is something else, or does not fit.
    """
    if objective is None or isinstance(objective, str):
        return choose_objective(model, data, objective or "auto", outputs_kind, what)
    if outputs_kind is not None:
        raise UsageError("give either outputs_kind or an objective that knows it, not both")
    if isinstance(objective, Objective):
        return with_metrics(objective.bind(output_shape(model, data), data, model, what), objective.keras_metrics)
    if isinstance(objective, type):
        raise UsageError(f"give an object as the objective, {objective.__name__}(), not the class")
    if callable(objective):
        return Custom(objective).bind(output_shape(model, data), data, model, what)
    raise UsageError(f"expected an objective, the name of a loss, or a loss, received {type(objective).__name__}")


def infer_loss(kind: str, shape: tuple, labels: np.ndarray | None) -> str:
    """The name of the loss that labels and outputs suggest."""
    of_classes = "sigmoid" if kind == "sigmoid" else "softmax"
    if labels is None:
        # A softmax ignores a shift of all outputs, which matters for images, embeddings and numbers.
        return "mse" if kind == "logits" else of_classes
    index, is_answer = is_index(labels.shape, shape), np.isin(labels, (0, 1)).all()
    if shape[-1] == 1 and index and kind != "softmax":
        return "sigmoid" if is_answer or are_two_classes(labels) else "mse" if _is_number(kind, labels) else of_classes
    if index or kind == "softmax":
        return of_classes
    sums_to_1 = bool(np.allclose(labels.sum(-1), 1.0, atol=1e-2))
    if sums_to_1 and (is_answer or (kind == "logits" and labels.min() >= 0 and len(shape) == 2)):
        return of_classes
    return "multilabel" if is_answer else "mse"


def _is_number(kind: str, labels: np.ndarray) -> bool:
    """Whether labels for a single output, which are not 0 and 1, are numbers that it can predict."""
    return kind == "logits" or not are_whole(labels)
