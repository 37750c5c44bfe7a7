"""Losses that `keras.Model.compile` takes, as losses of this package."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# What Keras makes of functions; it has no public name.
from keras.src.losses.losses import LossFunctionWrapper

from dcp_tf.errors import UsageError
from dcp_tf.training.losses import ClassificationLoss, as_targets

_LOSSES = keras.losses
_NOT_SHOWN = ("from_logits", "axis")
OF_NUMBERS = (
    *(_LOSSES.mean_squared_error, _LOSSES.mean_absolute_error, _LOSSES.mean_absolute_percentage_error),
    *(_LOSSES.mean_squared_logarithmic_error, _LOSSES.huber, _LOSSES.log_cosh),
)
_DISTANCES = (*OF_NUMBERS, _LOSSES.cosine_similarity)  # they compare outputs with a teacher's as they do with labels


@dataclasses.dataclass(frozen=True, eq=False)
class KerasLoss:
    """A loss of `keras.Model.compile`, as `fit` computes it. See `dcp_tf.training.Loss`.

    It has a `distance` where it is one of Keras' losses of numbers.

    Attributes:
        loss: it.
    """

    loss: keras.losses.Loss

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        """The mean of weight times loss, or what the loss's own reduction says, float32."""
        outputs = tf.convert_to_tensor(outputs)
        if weights is not None:
            weights = tf.convert_to_tensor(weights)
            if outputs.shape.rank > 2 and weights.shape.rank == 1:  # Keras spreads weights over one more axis only
                values = self.loss.call(tf.cast(labels, outputs.dtype), outputs)
                weights = weights[(..., *[None] * (len(values.shape) - 1))]
        return tf.cast(self.loss(labels, outputs, weights), tf.float32)

    def __getattr__(self, name: str):
        if name == "distance" and function_of(self.loss) in _DISTANCES:
            return self._distance
        raise AttributeError(name)

    def _distance(self, teacher_outputs, outputs, temperature: float, weights=None) -> tf.Tensor:
        return self(teacher_outputs, outputs, weights)

    def describe(self) -> str:
        """Its name, and its settings other than usual ones."""
        name = getattr(getattr(self.loss, "fn", None), "__qualname__", type(self.loss).__qualname__)
        settings = {key: value for key, value in settings_of(self.loss).items() if key not in _NOT_SHOWN and value}
        if not is_mean(self.loss):
            settings["reduction"] = self.loss.reduction
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        return f"{name}({shown})" if shown else name

    def __repr__(self) -> str:
        return f"KerasLoss({self.describe()})"


class ClassificationAsKeras:
    """A cross-entropy of Keras' with label smoothing or focus; all but its value is that of the plain one.

    Args:
        base: the plain loss.
        loss: of rows of targets.
    """

    def __init__(self, base: ClassificationLoss, loss: KerasLoss):
        self._base, self._loss = base, loss

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        """See `KerasLoss`; labels are of any form that classes have."""
        return self._loss(as_targets(labels, tf.convert_to_tensor(outputs)), outputs, weights)

    def __getattr__(self, name: str):
        if name.startswith("_"):  # such as copying asks for before there is a base
            raise AttributeError(name)
        return getattr(self._base, name)

    def __repr__(self) -> str:
        return f"{self._loss!r} for {self._base!r}"


def keras_loss(given: Any, labels: tuple, outputs: tuple) -> keras.losses.Loss:
    """What Keras makes of a loss that `compile` was given.

    Args:
        given: a loss, a function, or a name.
        labels: their shape.
        outputs: their shape.

    Raises:
        UsageError: Keras does not know it.
    """
    name = given if isinstance(given, str) else None
    if isinstance(given, str) and given.lower() in ("crossentropy", "ce"):
        is_sparse = len(labels) < len(outputs) or labels[-1] == 1
        given = f"{'binary' if outputs[-1] == 1 else 'sparse_categorical' if is_sparse else 'categorical'}_crossentropy"
    try:
        loss = _LOSSES.get(given)
    except (TypeError, ValueError):
        raise UsageError(f"the model is compiled with the loss {given!r}, which Keras does not know") from None
    return loss if isinstance(loss, _LOSSES.Loss) else LossFunctionWrapper(loss, name=name)


def function_of(loss: keras.losses.Loss) -> Callable | None:
    """The function of Keras' that a loss computes; None for a user's own."""
    function = getattr(loss, "fn", None)
    parts = (type(loss).__module__, getattr(function, "__module__", ""))
    return function if all(str(module).startswith("keras.") for module in parts) else None


def is_of_keras(given: Any) -> bool:
    """Whether something is a loss object or a loss function of Keras', or the name of one."""
    if isinstance(given, str):
        try:
            return _LOSSES.get(given) is not None
        except ValueError:
            return given.lower() in ("crossentropy", "ce")
    is_function = callable(given) and str(getattr(given, "__module__", "")).startswith("keras.src.losses")
    return isinstance(given, _LOSSES.Loss) or is_function


def settings_of(loss: keras.losses.Loss) -> dict[str, Any]:
    """The settings of a loss of Keras' that change its values."""
    return dict(getattr(loss, "_fn_kwargs", {}))


def is_mean(loss: keras.losses.Loss) -> bool:
    """Whether a loss is the mean over the batch of weight times loss."""
    return loss.reduction in ("sum_over_batch_size", "mean")
