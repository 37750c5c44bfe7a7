"""Flags of how networks are trained, whichever program trains them."""

import types
from collections.abc import Mapping
from typing import Any

from dcp_tf.settings.optimizers import Default
from dcp_tf.settings.training import AUXILIARY, BASELINE, FEW_IMAGES, FINETUNING, TrainConfig
from dcp_tf.tools.cli.flags_from_settings import Changes, define, flag_names, read, values_of
from dcp_tf.tools.cli.program import FLAG_OF, Program

# Trainings that have flags of their own, beside those that all trainings of a program share.
_AUXILIARY: Changes = {
    "epochs": {
        "flag": "aux_epochs",
        "about": "For dcp, dkp and their variants: epochs with the auxiliary losses, before the selection; 0: none. "
        "Classifiers alone read the images once, and their features so often at least.",
    },
    "learning_rate": {"flag": "aux_lr", "about": "Highest learning rate of those epochs."},
    "schedule": {"flag": "aux_schedule", "about": "How it falls, as {schedule}."},
    "boundaries": {"flag": "aux_boundaries", "about": "For {aux_schedule}=step, as {boundaries}."},
    "optimizer": {
        "flag": "aux_optimizer",
        "about": "What updates the weights in those epochs, as {optimizer}; by default SGD, or Adam where classifiers "
        "train alone.",
    },
}
_FINETUNING: Changes = {
    "epochs": {
        "flag": "finetune_epochs",
        "about": "Epochs of the pruned model; 0: none. By default more, up to 100, where images are so few that "
        "batches of 32 make no 300 steps.",
    },
    "held_out": {},
    "learning_rate": {"flag": "finetune_lr", "about": "Highest learning rate of the pruned model."},
    "batch_size": {
        "about": "Images per training step. By default fewer in fine-tuning, down to 32, where it would take less than "
        "300 steps."
    },
}
_BASELINE: Changes = {"epochs": {"lower": 1}, "batch_size": {}, "learning_rate": {}}
PHASES: Mapping[str, tuple[TrainConfig, Changes]] = types.MappingProxyType(
    {"auxiliary": (AUXILIARY, _AUXILIARY), "finetuning": (FINETUNING, _FINETUNING), "baseline": (BASELINE, _BASELINE)}
)
_RECIPE = (
    *("schedule", "boundaries", "warmup", "weight_decay", "decay", "clip_norm", "label_smoothing", "mixed_precision"),
    *("ema", "steps_per_epoch", "optimizer"),
)
FLAG_OF |= {
    f"{phase}.{field}": flag
    for phase, (config, changes) in PHASES.items()
    for field, flag in flag_names(config, changes).items()
}


def define_phase(program: Program, phase: str) -> None:
    """The flags that one of `PHASES` has for itself."""
    config, changes = PHASES[phase]
    define(program, config, tuple(changes), changes)


def define_recipe(program: Program) -> None:
    """What all trainings of a program have in common, beside epochs, rates and batches."""
    define(program, BASELINE, _RECIPE)


def read_training(flags: Any, phase: str) -> TrainConfig:
    """How one of `PHASES` trains.

    Raises:
        UsageError: the learning rate is 0, or another value cannot be.
    """
    few = {}
    if phase != "baseline":  # epochs and batches that are given stay
        own = {"max_epochs": PHASES[phase][1]["epochs"]["flag"], "min_batch_size": "batch_size"}
        given = {key for key, name in own.items() if flags[name].present or flags[name].value != flags[name].default}
        few = {key: None if key in given else value for key, value in FEW_IMAGES.items()}
    values = values_of(flags)
    for name in unchosen(PHASES[phase], {n for n in flags if flags[n].present}, values):
        del values[name]
    return training_config(values, phase, **few)


def as_compiled(config: TrainConfig, model_and_data: Any, phase: str) -> TrainConfig:
    """The training with the optimizer of model.compile, which `prepare` does not see on the flattened model."""
    from dcp_tf.training.optimizer import with_compiled_optimizer

    if not config.epochs or model_and_data.model is model_and_data.compiled:
        return config
    return with_compiled_optimizer(config, model_and_data.compiled, phase)


def optimizer_of(config: TrainConfig) -> dict[str, Any]:
    """The optimizer that a training uses and its numbers, as the flags call them."""
    given = config.optimizer or "sgd"
    name = given if isinstance(given, str) else given["class_name"].lower()
    return {"optimizer": name, "finetune_lr": float(config.learning_rate), "weight_decay": float(config.weight_decay)}


def unchosen(phase: tuple[TrainConfig, Changes], given: set[str], values: Mapping[str, Any]) -> list[str]:
    """The flags of one of `PHASES` whose numbers follow the optimizer, as nobody gave them."""
    config, changes = phase
    flags = flag_names(config, changes)
    numbers = {flags[f]: getattr(config, f) for f in flags if isinstance(getattr(config, f), Default)}
    return [flag for flag, number in numbers.items() if flag not in given and values.get(flag) == number]


def training_config(values: Mapping[str, Any], phase: str, **given: Any) -> TrainConfig:
    """As `read_training`, from the values of flags by name."""
    config, changes = PHASES[phase]
    epochs = changes["epochs"].get("flag", "epochs")
    if phase == "auxiliary":
        given |= {"warmup": 0.0, "held_out": None}
    elif not values[epochs]:
        given |= {"warmup": 0.0}
    return read(values, config, changes, **given)
