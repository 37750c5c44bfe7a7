"""Objectives of Keras' losses, which are known ones where these say the same."""

import dataclasses
from typing import Any

import keras

from dcp_tf.models.outputs import outputs_kind as read_outputs_kind
from dcp_tf.training.choose_objective import choose_objective, infer_loss
from dcp_tf.training.custom_objective import Custom
from dcp_tf.training.keras_losses import (
    OF_NUMBERS,
    ClassificationAsKeras,
    KerasLoss,
    function_of,
    is_mean,
    keras_loss,
    settings_of,
)
from dcp_tf.training.losses import MeanSquaredError
from dcp_tf.training.objectives import Classification, Objective, Regression, output_shape, predictions

_LOSSES = keras.losses
_FOCAL = (_LOSSES.categorical_focal_crossentropy, _LOSSES.binary_focal_crossentropy)
_CATEGORICAL = (_LOSSES.sparse_categorical_crossentropy, _LOSSES.categorical_crossentropy, _FOCAL[0])
_BINARY = (_LOSSES.binary_crossentropy, _FOCAL[1])
_LOOKED_AT = 16  # images that tell probabilities from logits


@dataclasses.dataclass(frozen=True)
class KerasClassification(Classification):
    """Classes with a cross-entropy of Keras' that is smoothed or focused; auxiliary heads learn the plain one.

    Attributes:
        loss_as_compiled: of rows of targets.
    """

    loss_as_compiled: KerasLoss | None = None

    @property
    def loss(self) -> ClassificationAsKeras:
        """See `Objective`."""
        plain = Classification.loss.fget(self)
        return plain if self.loss_as_compiled is None else ClassificationAsKeras(plain, self.loss_as_compiled)


@dataclasses.dataclass(frozen=True)
class KerasRegression(Regression):
    """Numbers with a loss of Keras', in the labels' own units; auxiliary heads learn standardized labels.

    Attributes:
        loss_as_compiled: None: the mean squared error.
    """

    loss_as_compiled: KerasLoss | None = None

    @property
    def loss(self) -> MeanSquaredError | KerasLoss:
        """See `Objective`."""
        return self.loss_as_compiled or MeanSquaredError()

    def describe(self):
        """See `Objective`."""
        return super().describe() if self.loss_as_compiled is None else self.loss_as_compiled.describe()


def objective_of_loss(given: Any, model: keras.Model, data: Any, what: str = "the data") -> tuple[Objective, str]:
    """The objective of one output with a loss of Keras', and what it is in words.

    Args:
        given: a `keras.losses.Loss`, a function that Keras takes for one, or a name.
        model: with this output alone.
        data: bound to the model; without labels the output shall stay as it is, as without a loss.
        what: the name of the data in errors.

    Raises:
        UsageError: Keras does not know the loss, or it does not fit the data.
    """
    if given is None or data.labels is None:
        return choose_objective(model, data, what=what), "imitates the model"
    shape = output_shape(model, data)
    loss = keras_loss(given, data.labels.shape, shape)
    function, told = function_of(loss), given if isinstance(given, str) else KerasLoss(loss).describe()
    objective: Objective | None = None
    if is_mean(loss) and function in OF_NUMBERS:
        objective = Regression().bind(shape, data, model, what)
        as_compiled = None if function is _LOSSES.mean_squared_error else KerasLoss(loss)
        if as_compiled is not None or max(objective.std) > 1:
            objective = KerasRegression(objective.mean, objective.std, objective.is_dense, as_compiled)
    elif is_mean(loss) and function in (*_CATEGORICAL, *_BINARY):
        objective = _of_classes(loss, model, data, what)
    return objective or Custom(KerasLoss(loss)).bind(shape, data, model, what), told


def _of_classes(loss: keras.losses.Loss, model: keras.Model, data: Any, what: str) -> Objective | None:
    """Classes as the loss reads the outputs; None for labels that are no classes, such as images as targets."""
    function, settings, shape = function_of(loss), settings_of(loss), output_shape(model, data)
    is_binary, kind = function in _BINARY, read_outputs_kind(model)
    if settings.get("ignore_class") is not None or settings.get("axis", -1) != -1:
        return None
    if kind == "logits" and not settings.get("from_logits", False) and _gives_probabilities(model, data):
        kind = "sigmoid" if is_binary else "softmax"
    inferred = infer_loss(kind, shape, data.labels)
    is_numbers = is_binary and (kind == "softmax" or inferred == "mse")
    if is_numbers or (not is_binary and (kind == "sigmoid" or shape[-1] == 1)):
        return None
    form = {"independent": is_binary, "multilabel": is_binary and inferred == "multilabel"}
    if function in _FOCAL or settings.get("label_smoothing"):
        return KerasClassification(kind, **form, loss_as_compiled=KerasLoss(loss)).bind(shape, data, model, what)
    return Classification(kind, **form).bind(shape, data, model, what)


def _gives_probabilities(model: keras.Model, data: Any) -> bool:
    """Whether outputs that no known activation ends in are those that a loss without from_logits takes."""
    values, _ = predictions(model, data, _LOOKED_AT)
    return bool(values.min() >= 0 and values.max() <= 1)
