"""A smaller model as its user had the large one: of the same class where that works, and compiled like it."""

import copy
import warnings
from typing import Any

import keras
from keras import tree

# Keras has no public switch for one call: code in a file is a risk, code that is in memory already is none.
from keras.src.saving.serialization_lib import SafeModeScope

from dcp_tf import progress
from dcp_tf.errors import first_line
from dcp_tf.models.functional import Functional

_OWN_LOOP = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "compile", "fit")


def compiled_like(model: keras.Model, original: keras.Model) -> keras.Model:
    """The model, compiled as the original is: a fresh optimizer, the same losses and weights, fresh metrics.

    Args:
        model: a smaller one, functional or Sequential, with inputs and outputs nested as the original's.
        original: it stays as it is. One that is not compiled leaves the other uncompiled.

    Returns:
        `model` itself, or the same layers in the original's class where that has a training loop of its own and is
        made as Keras' models are, `Class(inputs, outputs)`. What cannot be taken over is logged in a line.
    """
    own = [name for name in _OWN_LOOP if _overrides(type(original), name)]
    if own:
        model, reason = _in_class(model, type(original))
        if reason:
            progress.say(
                f"note: {type(original).__name__} has its own {own[0]}, and the smaller model is a plain keras.Model: "
                f"{reason}; build {type(original).__name__} from its inputs and outputs, or compile it for keras' fit"
            )
            return model
    config = compile_arguments(original)
    if "compile" in own and config:
        reason = "compile_from_config does not call it"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras' words on that
                model.compile_from_config(original.get_compile_config())
        except Exception as error:  # a user's own code
            reason = first_line(error)
        if not model.compiled:
            progress.say(
                f"note: {type(original).__name__} has its own compile: call it on the smaller model ({reason})"
            )
        return model
    if config:
        model.compile(**config)
        _keep_from_decay(original, model)
    return model


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What `compile` made the model with, for another model: a fresh optimizer and fresh metrics; {} if it was not."""
    config = getattr(model, "_compile_config", None)
    if not getattr(model, "compiled", False) or config is None:
        return {}
    arguments = dict(config.config)
    arguments["optimizer"] = fresh_optimizer(arguments["optimizer"])
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = tree.map_structure(_fresh_metric, arguments[name])
    return arguments


def fresh_optimizer(optimizer: keras.optimizers.Optimizer | None) -> keras.optimizers.Optimizer | None:
    """An optimizer of the same class and settings, its learning rate as it stands, without slots and steps."""
    if optimizer is None:
        return None
    config = optimizer.get_config()
    if isinstance(
        schedule := getattr(optimizer, "_learning_rate", None), keras.optimizers.schedules.LearningRateSchedule
    ):
        config["learning_rate"] = schedule  # schedules keep nothing, and a user's own may not be registered
    with SafeModeScope(safe_mode=False):
        return type(optimizer).from_config(config)


def _fresh_metric(metric: Any) -> Any:
    if not isinstance(metric, keras.Metric):
        return metric
    try:
        with SafeModeScope(safe_mode=False):
            return type(metric).from_config(metric.get_config())
    except Exception as error:  # a user's own code
        progress.say(
            f"note: metric {metric.name!r} cannot be recreated from its config ({first_line(error)}): the smaller "
            "model is compiled without it"
        )
        return None


def _keep_from_decay(original: keras.Model, model: keras.Model) -> None:
    """Leaves out of the weight decay what the original's optimizer leaves out."""
    before, after = (getattr(m.optimizer, "inner_optimizer", m.optimizer) for m in (original, model))
    if (excluded := getattr(before, "_exclude_from_weight_decay", None)) is None:
        return
    paths = {v.path for v in original.trainable_variables if before._var_key(v) in excluded}
    after._exclude_from_weight_decay = {after._var_key(v) for v in model.trainable_variables if v.path in paths}
    after._exclude_from_weight_decay_pattern = copy.copy(before._exclude_from_weight_decay_pattern)


def _overrides(kind: type, name: str) -> bool:
    """Whether a class between the model's and Keras' own defines a method."""
    defined = next((base for base in kind.__mro__ if name in vars(base)), object)
    return not defined.__module__.startswith("keras.")


def _in_class(model: keras.Model, kind: type) -> tuple[keras.Model, str]:
    """The model's layers in a model of another class; else the model itself, and why."""
    if _overrides(kind, "__init__"):
        return model, "its __init__ is its own too"
    try:
        if issubclass(kind, keras.Sequential):
            return kind(list(model._layers), name=model.name), ""  # with that of the input
        base = model if isinstance(model, Functional) else model._functional
        return kind(base._inputs_struct, base._outputs_struct, name=model.name), ""
    except Exception as error:  # a user's own code
        return model, first_line(error)
