"""Flags of how networks are trained, whichever program trains them."""

from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.program import Program

SCHEDULES = ("cosine", "step")
DECAYS = ("kernels", "no_depthwise", "all")
PRECISIONS = ("float32", "bfloat16", "float16")


def define_recipe(program: Program) -> None:
    """What all trainings of a program have in common, beside epochs, rates and batches."""
    program.enum(
        "schedule", "cosine", SCHEDULES, "How the learning rate falls: to 0 along a cosine, or to a tenth at each step."
    )
    program.list(
        "boundaries", ["0.4", "0.6"], "For --schedule=step: where it falls, in epochs (160,240) or fractions (0.4,0.6)."
    )
    program.float("warmup", 0.0, "Epochs over which the learning rate first rises from 0; not with auxiliary losses.")
    program.float("weight_decay", 1e-4, "L2 coefficient of the weights that --decay names.")
    program.enum(
        "decay",
        "kernels",
        DECAYS,
        "Which weights decay. kernels: those of convolutions and fully connected layers; no_depthwise: those without "
        "depthwise kernels; all: biases and BatchNormalization too.",
    )
    program.float(
        "clip_norm",
        None,
        "Largest global norm of the gradient; 0: no limit. Without the flag 1.",
    )
    program.float("label_smoothing", 0.0, "Share of the labels that is spread over all classes, such as 0.1.")
    program.enum(
        "mixed_precision",
        "float32",
        PRECISIONS,
        "What layers compute in while they are trained; weights and models stay float32. float16 scales the loss.",
    )
    program.float(
        "ema",
        0.0,
        "Decay of a moving average of the weights, such as 0.999, that is measured and kept in their place; 0: none.",
    )
    program.integer("max_steps_per_epoch", None, "At most so many batches per epoch, for rehearsals.", lower=1)


def read_training(flags: Any, epochs: str, learning_rate: str) -> Any:
    """How one phase trains.

    Args:
        flags: of the program.
        epochs: name of the flag. That of the training with auxiliary losses has a schedule of its own.
        learning_rate: name of the flag.

    Raises:
        UsageError: the learning rate is 0, or another value cannot be.
    """
    values = {name: flags[name].value for name in flags}
    if epochs in ("aux_epochs", "finetune_epochs"):
        values |= _for_few_images(flags, epochs)
    return training_config(values, epochs, learning_rate)


def _for_few_images(flags: Any, epochs: str) -> dict[str, Any]:
    """What makes a training long enough where images are few; epochs and batches that are given stay."""
    from dcp_tf.training import FEW_IMAGES

    own = {"max_epochs": epochs, "min_batch_size": "batch_size"}
    given = {key for key, name in own.items() if flags[name].present or flags[name].value != flags[name].default}
    return {key: value for key, value in FEW_IMAGES.items() if key not in given}


def training_config(values: Mapping[str, Any], epochs: str, learning_rate: str) -> Any:
    """As `read_training`, from the values of flags by name."""
    from dcp_tf.training import TrainConfig

    if not values[learning_rate]:
        raise UsageError(f"--{learning_rate} must be above 0; --{epochs}=0 leaves the training out")
    own = "aux_" if epochs == "aux_epochs" else ""
    return TrainConfig(
        epochs=values[epochs],
        batch_size=values["batch_size"],
        learning_rate=values[learning_rate],
        schedule=values[f"{own}schedule"],
        boundaries=read_numbers(f"{own}boundaries", values[f"{own}boundaries"]),
        warmup=0.0 if own or not values[epochs] else values["warmup"],
        weight_decay=values["weight_decay"],
        decay=values["decay"],
        clip_norm=values["clip_norm"],
        label_smoothing=values["label_smoothing"],
        mixed_precision=values["mixed_precision"],
        ema=values["ema"],
        steps_per_epoch=values["max_steps_per_epoch"],
        bn_sparsity=values.get("bn_sparsity", 0.0),
        min_steps=values.get("min_steps", 0),
        min_batch_size=values.get("min_batch_size"),
        max_epochs=values.get("max_epochs"),
        held_out=None if own else values.get("held_out"),
        seed=values["seed"],
    )


def read_numbers(name: str, texts: Sequence[str]) -> tuple[float, ...]:
    """The numbers of a list flag; raises UsageError where something else is among them."""
    try:
        return tuple(float(text) for text in texts if text != "")
    except ValueError as error:
        raise UsageError(f"--{name} takes numbers with commas between them, received {texts}") from error
