"""`--experiment` and what goes with it, and `--strategy`: which flags have which values in the end."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.program import Program
from dcp_tf.tools.training_flags import training_config

STRATEGIES = ("one", "mirrored", "multi_worker", "tpu")
_TARGETS = ("rate", "target_macs", "target_params", "target_bytes", "target_latency")
_OF_THE_RUN = ("experiment", "list_experiments", "override", "help", "debug")  # these are read before overrides
_EPOCHS = ("aux_epochs", "finetune_epochs")
_OF_MODELS = ("weights", "outputs", "normalization", "mean", "std", "resize")  # that are there already


def define_experiment(program: Program) -> None:
    """`--experiment`, `--override`, `--epochs_scale`, `--image_size`, `--list_experiments`."""
    program.section("Experiments")
    program.string(
        "experiment",
        None,
        "A row of the papers' tables, with its data set, network, method and schedules; --list_experiments shows them. "
        "Flags on the command line come before --override, that before the experiment, and that before defaults. "
        "Without --model the baseline is trained first.",
    )
    program.list(
        "override",
        [],
        "Settings of the experiment to change: NAME=VALUE of any flag here, or baseline.NAME=VALUE of the baseline's "
        "training (flags of train). A semicolon stands for a comma inside a value.",
    )
    program.float("epochs_scale", 1.0, "What all numbers of epochs are multiplied by (at least 1 stays), as in 0.01.")
    define_image_size(program)
    program.boolean("list_experiments", False, "Print the experiments, what the paper reports, and how long they take.")


def define_image_size(program: Program) -> None:
    """`--image_size`."""
    program.integer(
        "image_size",
        None,
        "Height and width at which a zoo: network that is trained here sees the images. Without the flag those of the "
        "data set (small ones enlarged), or of the experiment.",
        lower=1,
    )


def define_strategy(program: Program) -> None:
    """`--strategy`."""
    program.enum(
        "strategy",
        "one",
        STRATEGIES,
        "What trains: one device; mirrored: all GPUs of this machine; multi_worker: the machines that TF_CONFIG lists, "
        "each with the same command (all but the first write to worker_N in --output_dir); tpu: a TPU (never tested).",
    )


def make_strategy(flags: Any) -> Any:
    """The strategy that the flags name; to be made before TensorFlow's first operation."""
    if flags.strategy == "one":
        return None
    from dcp_tf.training.distribution import make_strategy

    return make_strategy(flags.strategy)


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An experiment as this run has it.

    Attributes:
        name: of the experiment.
        model: the network, zoo:NAME.
        image_size: see `Experiment`.
        baseline: how the baseline is trained, a `TrainConfig`; None where `--model` brings one.
    """

    name: str
    model: str
    image_size: int | None
    baseline: Any


def choose(flags: Any) -> Chosen | None:
    """Sets the flags to what `--experiment` and `--override` say; None without an experiment.

    Raises:
        UsageError: an unknown experiment, an override of no flag or that cannot be, or flags without a meaning here.
    """
    if flags.experiment is None:
        for name in ("override", "epochs_scale", "image_size"):
            if flags[name].present:
                raise UsageError(f"--{name} changes an experiment; name one with --experiment")
        return None
    from dcp_tf.experiments import EXPERIMENTS

    if flags.experiment not in EXPERIMENTS:
        hint = _did_you_mean(flags.experiment, EXPERIMENTS)
        raise UsageError(f"unknown experiment {flags.experiment!r}{hint}; --list_experiments shows them all")
    if not flags.epochs_scale:
        raise UsageError("--epochs_scale must be above 0")
    experiment = EXPERIMENTS[flags.experiment]()
    overrides, of_baseline = _read_overrides(flags)
    given = {name for name in flags if flags[name].present} | overrides.keys()
    for name, value in overrides.items():
        if not flags[name].present:
            flags[name].value = value
    for name, value in _that_stays(experiment.flags, given, flags).items():
        flags[name].value = value
    for name in _EPOCHS:
        flags[name].value = scaled(flags[name].value, flags.epochs_scale)
    if flags.model is None:
        _check_own_baseline(flags)
    if not flags["dataset"].present and not {"dataset"} & (experiment.flags.keys() | overrides.keys()):
        raise UsageError(f"say which data: {flags.experiment} needs --dataset=faces:DIR")
    baseline = {**experiment.baseline, **of_baseline}
    config = None if flags.model else _baseline_config(baseline, flags)
    return Chosen(flags.experiment, experiment.model, flags.image_size or experiment.image_size, config)


def scaled(epochs: int, scale: float) -> int:
    """A number of epochs times the scale; a training that there is keeps one epoch at least."""
    return max(1, round(epochs * scale)) if epochs else 0


def list_experiments() -> str:
    """The table that `--list_experiments` prints."""
    from dcp_tf.experiments import EXPERIMENTS

    rows = [("EXPERIMENT", "PAPER", "TIME", "WHAT")]
    for name, function in EXPERIMENTS.items():
        lines = [line.strip() for line in function.__doc__.splitlines()]
        paper, time = (next(x for x in lines if x.startswith(start)) for start in ("Paper: ", "Time: "))
        rows.append(
            (name, paper.removeprefix("Paper: ").rstrip("."), time.removeprefix("Time: ").rstrip("."), lines[0])
        )
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _read_overrides(flags: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Overrides of flags as their values, and those of the baseline."""
    from dcp_tf.tools import train

    own, of_baseline = {}, {}
    for entry in flags.override:
        name, equals, text = entry.partition("=")
        is_baseline = name.startswith("baseline.")
        known, key = (train.PROGRAM.flags, name.removeprefix("baseline.")) if is_baseline else (flags, name)
        if key in _OF_THE_RUN:
            raise UsageError(f"--override={entry}: --{key} is no setting of an experiment; give it on the command line")
        if not equals or key not in known:
            hint = "" if key in known else _did_you_mean(key, set(known) - set(_OF_THE_RUN))
            raise UsageError(f"--override takes NAME=VALUE with the name of a flag, received {entry!r}{hint}")
        try:
            value = known[key].parser.parse(text.replace(";", ","))
        except ValueError as error:
            raise UsageError(f"--override={entry}: {error}") from error
        (of_baseline if is_baseline else own)[key] = value
    return own, of_baseline


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest, as the end of a sentence; nothing where none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _that_stays(settings: Mapping[str, Any], given: set[str], flags: Any) -> dict[str, Any]:
    """The experiment's settings without those that the user gave, or that mean nothing beside those."""
    dropped = set(given)
    if given & set(_TARGETS):
        dropped |= set(_TARGETS)
    if "selection" in given and flags.selection == "fast":
        dropped |= {"score", "selection_passes"}
    if "per_stage" in given and flags.per_stage:  # which trains the whole model anyway
        dropped |= {"auxiliary_trains"}
    if {"schedule", "aux_schedule"} & given:
        dropped |= {f"{p}boundaries" for p in ("", "aux_") if f"{p}schedule" in given}
    return {name: value for name, value in settings.items() if name not in dropped}


def _check_own_baseline(flags: Any) -> None:
    for name in _OF_MODELS:
        if flags[name].present:
            raise UsageError(f"--{name} is of a model that is there: give --model too, or leave it out")


def _baseline_config(settings: Mapping[str, Any], flags: Any) -> Any:
    """How the baseline is trained: `settings`, and what the flags on the command line say of all trainings."""
    from dcp_tf.tools import train

    common = {n: flags[n].value for n in ("max_steps_per_epoch", "mixed_precision", "batch_size") if flags[n].present}
    values = {name: train.PROGRAM.flags[name].default for name in train.PROGRAM.flags}
    values |= {**settings, **common, "seed": flags.seed}
    values["epochs"] = scaled(values["epochs"], flags.epochs_scale)
    return training_config(values, "epochs", "learning_rate")
