"""From a model, its data and what the user says to an objective."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.models.outputs import outputs_kind as read_outputs_kind
from dcp_tf.settings.data import LOSSES, MARGINS
from dcp_tf.training.custom_objective import Custom
from dcp_tf.training.embeddings import Directions, Embedding
from dcp_tf.training.label_checks import are_two_classes, are_whole, check_reachable, is_index
from dcp_tf.training.objectives import Classification, Objective, Regression, output_shape


def choose_objective(
    model: keras.Model, data: Any, loss: str = "auto", outputs_kind: str | None = None, what: str = "the data"
) -> Objective:
    """Finds the objective of a model, and fits it to the model and its data.

    Args:
        model: with one output.
        data: see `dcp_tf.data.DataSplit`; its labels may be None.
        loss: one of `LOSSES`. "auto" reads it off the last activation and the labels: numbers of classes and one-hot
            rows are classes, rows with several ones are several classes at once, all else under a linear layer is
            regressed. Without labels the model's own outputs are the targets: probabilities of classes where it ends in
            a softmax or sigmoid, numbers where it ends in a linear layer.
            "softmax": one class; "sigmoid": one class, each with a yes / no question of its own; "multilabel": several
            classes at once; "mse": numbers; "arcface", "cosface", "asoftmax": embeddings of classes, or, without
            labels, the directions of the model's own.
        outputs_kind: "logits", "softmax" or "sigmoid"; None reads it off the last activation.
        what: what the data is called in errors.

    Raises:
        UsageError: the loss is unknown, or model, data and loss do not fit each other.
    """
    return choose_for_outputs(
        outputs_kind or read_outputs_kind(model), output_shape(model, data), data, loss, model, what
    )


def choose_for_outputs(
    kind: str, shape: tuple, data: Any, loss: str = "auto", model: keras.Model | None = None, what: str = "the data"
) -> Objective:
    """As `choose_objective` for outputs of which the kind and the shape (with the batch axis) are known."""
    if loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}; choose one of {', '.join(LOSSES)}")
    if len(shape) < 2:
        raise UsageError(f"expected outputs of shape (batch, ..., values), received {shape}")
    name = _read_off(kind, shape, data.labels) if loss == "auto" else loss
    if (name, kind) in (("softmax", "sigmoid"), ("sigmoid", "softmax"), ("multilabel", "softmax")):
        raise UsageError(f"a model that ends in a {kind} has no {name} loss; leave out the loss, or end it in logits")
    if name == "mse":
        if data.labels is not None:
            check_reachable(data.labels, kind, what)
        found = Regression()
    elif name in MARGINS:
        found = Directions() if data.labels is None else Embedding(name)
    else:
        found = Classification(kind, independent=name != "softmax", multilabel=name == "multilabel")
    return found.bind(shape, data, model, what)


def as_objective(
    objective: Objective | str | Callable | None, model: keras.Model, data: Any, outputs_kind: str | None = None
) -> Objective:
    """What `prune` was given as an objective, fitted to the model and its data.

    Args:
        objective: an objective, a name of `LOSSES`, a loss `(labels, outputs) -> scalar mean`, or None for "auto".
        model: with one output.
        data: see `dcp_tf.data.DataSplit`.
        outputs_kind: as for `choose_objective`.

    Raises:
        UsageError: it is something else, or does not fit.
    """
    if objective is None or isinstance(objective, str):
        return choose_objective(model, data, objective or "auto", outputs_kind)
    if outputs_kind is not None:
        raise UsageError("give either outputs_kind or an objective that knows it, not both")
    if isinstance(objective, Objective):
        return objective.bind(output_shape(model, data), data, model)
    if callable(objective):
        return Custom(objective).bind(output_shape(model, data), data, model)
    raise UsageError(f"expected an objective, the name of a loss, or a loss, received {type(objective).__name__}")


def _read_off(kind: str, shape: tuple, labels: np.ndarray | None) -> str:
    """The name of the loss that the labels ask for, given that the outputs are of a kind and a shape."""
    of_classes = "sigmoid" if kind == "sigmoid" else "softmax"
    if labels is None:
        # A softmax would not see what is added to all outputs, which linear ones may need: images, embeddings, numbers.
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
    """Whether labels for one output, which are no answers of yes or no, are numbers that it can give."""
    return kind == "logits" or not are_whole(labels)
