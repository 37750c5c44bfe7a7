"""The optimizer of a training: SGD as the settings describe it, or any of Keras."""

import dataclasses
import re
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.optimizers import NOT_DECAYING, OPTIMIZERS, Default, parts_of, rate_and_decay, serialized
from dcp_tf.settings.training import TrainConfig

_RATE_AFTER_PRUNING = 0.3  # times the rate of a model's own training: more ruins large networks after recovery
_FOR_SGD = 3  # times Keras' default for another optimizer: rates above were chosen for SGD


class Optimizer:
    """A Keras optimizer, built, whose learning rate the training sets before each step.

    Args:
        config: how to train.
        variables: what is trained.
        decays: whether a variable's weights decay. SGD's decay is part of the gradient (`TrainStep`); that of other
            optimizers is their own, `v -= rate * weight_decay * v`.
        by_default: the class where the configuration names no optimizer; None: SGD as it describes it.

    Attributes:
        keras: the optimizer itself.
        limits_gradient: whether it limits the gradient itself, by `clipnorm`, `global_clipnorm` or `clipvalue`.
    """

    def __init__(
        self,
        config: TrainConfig,
        variables: Sequence[keras.Variable],
        decays: Callable[[keras.Variable], bool],
        by_default: type | None = None,
    ):
        self.keras = by_default() if by_default and config.optimizer is None else _make(config)
        self._parts = parts_of(self.keras)
        excluded = config.optimizer.get(NOT_DECAYING, ()) if isinstance(config.optimizer, dict) else ()
        fixed = [v for v in variables if not decays(v) or any(v.path == p or re.search(p, v.name) for p in excluded)]
        for part in self._parts:
            part.exclude_from_weight_decay(fixed)
        self.keras.build(variables)
        limits = ("clipnorm", "global_clipnorm", "clipvalue")
        self.limits_gradient = any(getattr(part, limit, None) for part in self._parts for limit in limits)
        self._scales = None if self.keras is self._parts[0] else [_rate(part) for part in self._parts]
        self._settable = not config.has_schedule

    def rates(self) -> list[float]:
        """The learning rates of the next step: one, or of a `MultiOptimizer` one per part."""
        return [_rate(part) for part in self._parts]

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate; that of a `MultiOptimizer` multiplies those of its parts."""
        if self._settable:
            for part, scale in zip(self._parts, self._scales or [1.0], strict=True):
                part.learning_rate.assign(rate * scale)


def _rate(optimizer: keras.optimizers.Optimizer) -> float:
    return float(tf.convert_to_tensor(optimizer.learning_rate))


def _make(config: TrainConfig) -> keras.optimizers.Optimizer:
    if config.is_plain_sgd:
        return keras.optimizers.SGD(learning_rate=0.0, momentum=config.momentum, nesterov=config.nesterov)
    is_name = isinstance(config.optimizer, str)
    optimizer = optimizer_named(config.optimizer)() if is_name else config.optimizer.make()
    if not isinstance(config.weight_decay, Default):
        for part in parts_of(optimizer):
            part.weight_decay = config.weight_decay or None
            if hasattr(part, "adam_weight_decay"):  # Muon, for all but matrices
                part.adam_weight_decay = config.weight_decay or None
    return optimizer


def optimizer_named(name: str) -> type:
    """The class of one of `OPTIMIZERS`."""
    return next(kind for key, kind in vars(keras.optimizers).items() if key.lower() == name)


def with_compiled_optimizer(config: TrainConfig, model: keras.Model, phase: str) -> TrainConfig:
    """The configuration with the optimizer that the model was compiled with, unless another one was asked for.

    A model compiled with SGD is trained with SGD as the configuration has it. The learning rate, where none was asked
    for, is 0.3 times the model's own, which counts as a tenth of Keras' default for that optimizer at least, as a
    training may end near 0, and as this default at most. A rate that was asked for and is far above this default was
    chosen for SGD, which stays then (docs/decisions/063).
    """
    compiled = getattr(model, "optimizer", None) if getattr(model, "compiled", False) else None
    compiled = getattr(compiled, "inner_optimizer", compiled)
    if config.optimizer is not None or compiled is None or type(compiled) is keras.optimizers.SGD:
        return config
    try:
        setting = serialized(compiled)
        changes, own = {}, setting["config"]
        if own.pop("use_ema", False) and not config.ema:
            changes["ema"] = own["ema_momentum"]
        name, (rate, _) = setting["class_name"].lower(), rate_and_decay(setting)
        if name in OPTIMIZERS:
            most, _ = rate_and_decay(name)
            if not isinstance(config.learning_rate, Default) and config.learning_rate > _FOR_SGD * most:
                progress.say(
                    f"{phase}: SGD, since learning_rate={config.learning_rate:g} is far above what "
                    f"{setting['class_name']} takes ({most:g}); optimizer={name!r} trains as the model was compiled",
                    ("learning_rate", "optimizer"),
                )
                return config
            own["learning_rate"] = _RATE_AFTER_PRUNING * min(max(rate, most / 10), most)
        if listed := _listed(compiled, model):
            setting[NOT_DECAYING] = [*setting.get(NOT_DECAYING, ()), *listed]
        config = dataclasses.replace(config, optimizer=setting, **changes)
    except UsageError as error:
        progress.say(f"{phase}: SGD in place of the optimizer that the model was compiled with, as {error}")
        return config
    name = setting["class_name"]
    progress.say(f"{phase}: {name}, as the model was compiled, learning rate {config.learning_rate:g}", "optimizer")
    return config


def _listed(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> list[str]:
    """Paths of the variables of a model that its optimizer was told not to decay one by one."""
    keys = {key for part in parts_of(optimizer) for key in getattr(part, "_exclude_from_weight_decay", ())}
    return sorted(v.path for v in model.trainable_variables if optimizer._var_key(v) in keys)
