"""What is wrong with arguments that a Python program mixed up, in one line."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from dcp_tf.data import DataSplit, as_split
from dcp_tf.errors import UsageError
from dcp_tf.models import check_functional
from dcp_tf.models.batch import share_layers, with_open_batch
from dcp_tf.models.functional import check_input
from dcp_tf.models.names import refused_names, valid_model_name, valid_name
from dcp_tf.models.signature import output_names, with_flat_signature
from dcp_tf.pruning.methods import Method
from dcp_tf.training import Objective, TrainConfig
from dcp_tf.training.objectives import output_shape


def check_arguments(method: Any, auxiliary: Any, finetuning: Any, distillation: Any) -> None:
    """Raises UsageError where an argument of `prune` is of another kind."""
    if not isinstance(method, Method):
        hint = "; images and labels are one argument: prune(model, (images, labels), method)"
        is_data = hasattr(method, "__len__") and not isinstance(method, str)
        raise UsageError(
            "method must be an object such as dcp_tf.DCP(rate=0.5), received "
            + (f"{type(method).__name__}{hint}" if is_data else f"{method!r:.80}")
        )
    for name, config in (("auxiliary", auxiliary), ("finetuning", finetuning)):
        if not isinstance(config, TrainConfig):
            raise UsageError(f"{name} must be a dcp_tf.TrainConfig(epochs=...), received {config!r:.80}")
    if distillation is not None and (isinstance(distillation, bool) or not isinstance(distillation, numbers.Real)):
        raise UsageError(f"distillation must be a number from 0 to 1 or None, received {distillation!r:.80}")


def usable_model(model: keras.Model) -> keras.Model:
    """The model with flat inputs and outputs, trainable in batches of any size; its layers are those of the given one.

    Raises:
        UsageError: it works with one batch size only, has names that TensorFlow refuses, or a strategy's scope is open.
    """
    if tf.distribute.has_strategy():
        raise UsageError(
            "call prune outside of strategy.scope(); `with dcp_tf.training.distributed(strategy):` around it trains on "
            "all replicas"
        )
    if refused := refused_names(model):
        raise UsageError(
            f"TensorFlow takes no layer called {refused[0]!r}: rename it (layer.name = {valid_name(refused[0])!r}), or "
            "let dcp_tf.models.load read the file"
        )
    model = with_open_batch(model)
    if valid_model_name(model.name) != model.name:
        name, model = valid_model_name(model.name), share_layers(model)
        model.name = name
    return with_flat_signature(model)


def bound_data(model: keras.Model, data: Any, what: str = "the data") -> DataSplit:
    """The data in the order and under the names of a model's inputs and outputs; see `DataSplit.bound_to`.

    Raises:
        UsageError: the model is not functional, or does not take such data.
    """
    check_functional(model)
    for tensor in model.inputs:
        check_input(tensor)
    scalars = [n for n, x in zip(output_names(model), model.outputs, strict=True) if len(x.shape) < 2]
    if scalars:
        raise UsageError(
            f"pruning with data needs outputs of shape (batch, ..., values), {scalars[0]!r} of {model.name!r} is one "
            "number per sample without an axis: keras.layers.Reshape((1,)) adds one"
        )
    return as_split(data).bound_to(model, what)


def check_validation(model: keras.Model, data: DataSplit, objective: Objective) -> None:
    """Raises UsageError unless the model can be measured on the data."""
    measured = set(getattr(objective, "names", ())) - set(getattr(objective, "imitated", ()))
    if data.labels is None or (measured and not measured & set(data.labels)):
        raise UsageError("validation_data has no labels to measure the model by; give some, or leave it out")
    objective.check(data.labels, output_shape(model, data), "validation_data")
