"""Which optimizer trains, as a setting: a name, or what `keras.optimizers.serialize` makes of an optimizer."""

import json
from typing import Any

from dcp_tf.errors import UsageError

OPTIMIZERS = (
    *("sgd", "adam", "adamw", "rmsprop", "nadam", "adamax", "adagrad", "adadelta", "adafactor", "ftrl", "lion"),
    *("lamb", "muon", "schedulefreeadamw"),
)
_RATES = {"schedulefreeadamw": 0.0025}  # that Keras gives them; 0.001 for all others
_DECAYS = {"adamw": 0.004, "muon": 0.004}


NOT_DECAYING = "not_decaying"  # key of an OptimizerConfig: patterns of names, or whole paths, of variables


class Default(float):
    """A number that nobody chose, so that it follows the optimizer."""


class OptimizerConfig(dict):
    """What `keras.optimizers.serialize` gives, without the name that Keras numbers in each process.

    Attributes:
        kind: the class, which need not be registered then; None where that was only read from JSON.
    """

    kind: type | None = None

    def make(self) -> Any:
        """A new optimizer."""
        import keras

        plain = json.loads(json.dumps(self))  # as Keras changes what it reads
        plain.pop(NOT_DECAYING, None)
        if self.kind is None:
            return keras.optimizers.deserialize(plain)
        return self.kind.from_config(plain["config"])


def optimizer_config(optimizer: Any) -> Any:
    """The setting of an optimizer that a Python program gives; names and what is a setting already stay.

    Raises:
        UsageError: it is no optimizer, or cannot be created again from its config.
    """
    if isinstance(optimizer, str):
        return optimizer.lower()
    if optimizer is None or isinstance(optimizer, OptimizerConfig):
        return optimizer
    config = OptimizerConfig(optimizer) if isinstance(optimizer, dict) else serialized(optimizer)
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise UsageError(
            "exclude_from_weight_decay(var_list=...) names variables of another model: give "
            "exclude_from_weight_decay(var_names=['gamma', 'bias']), or compile the model with the optimizer",
            "optimizer",
        )
    if config.get("config", {}).get("use_ema"):
        raise UsageError(
            "give TrainConfig(ema=0.99) in place of the optimizer's use_ema=True: BatchNormalization's statistics are "
            "averaged then too, and the averages are measured and kept",
            "ema",
        )
    return config


def serialized(optimizer: Any) -> OptimizerConfig:
    """As `optimizer_config`, of an optimizer object.

    Raises:
        UsageError: it is no optimizer, or cannot be created again from its config.
    """
    import keras

    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise UsageError(
            "optimizer must be a keras.optimizers.Optimizer, such as keras.optimizers.AdamW(1e-3), or one of "
            f"{', '.join(OPTIMIZERS)}, received {optimizer!r:.80}",
            "optimizer",
        )
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # mixed_precision scales the loss
    try:
        config = OptimizerConfig(keras.optimizers.serialize(optimizer))
        for part in (config, *_parts(config)):
            del part["config"]["name"]
            part["config"]["loss_scale_factor"] = None
        patterns = [getattr(part, "_exclude_from_weight_decay_pattern", None) for part in parts_of(optimizer)]
        if any(patterns):
            config[NOT_DECAYING] = [pattern.pattern for pattern in patterns if pattern]
        config = OptimizerConfig(json.loads(json.dumps(config)))
        config.kind = type(optimizer)
        config.make()
    except Exception as error:  # of many kinds, by what the user's class does
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the optimizer {type(optimizer).__name__} cannot be created again from its config ({line:.200}): give "
            "plain numbers or a keras.optimizers.schedules object, and register classes with "
            "@keras.saving.register_keras_serializable()",
            "optimizer",
        ) from error
    return config


def parts_of(optimizer: Any) -> list:
    """The optimizers inside of a `keras.optimizers.MultiOptimizer`, or the optimizer itself."""
    return getattr(optimizer, "optimizers", [optimizer])


def rate_and_decay(optimizer: Any) -> tuple[float, float]:
    """The learning rate that an optimizer brings (of a schedule the first one), and its weight decay."""
    if isinstance(optimizer, str):
        return _RATES.get(optimizer, 0.001), _DECAYS.get(optimizer, 0.0)
    config = optimizer["config"]
    rate = config.get("learning_rate", 0.001)
    if "optimizer_map" in config:  # whose parts have rates of their own, all times this
        rate = 1.0
    if isinstance(rate, dict):
        known = [value for value in rate["config"].values() if isinstance(value, float) and value > 0]
        rate = rate["config"].get("initial_learning_rate") or next(iter(known), 0.001)
    return float(f"{rate:.7g}"), float(config.get("weight_decay") or 0.0)  # Keras keeps rates in float32


def has_schedule(optimizer: Any) -> bool:
    """Whether the optimizer brings a schedule of its own, `keras.optimizers.schedules`."""
    return isinstance(optimizer, dict) and isinstance(optimizer["config"].get("learning_rate"), dict)


def _parts(config: dict) -> list[dict]:
    """The serialized optimizers inside of a serialized `keras.optimizers.MultiOptimizer`."""
    if "optimizer_map" not in config["config"]:
        return []
    inner = config["config"]["optimizer_map"]["config"]
    return [inner["default_optimizer"], *inner["optimizer_map"].values()]
