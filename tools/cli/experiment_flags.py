"""`--experiment` and what goes with it, and `--strategy`: which flags have which values in the end."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.budget import MEASURES
from dcp_tf.settings.data import STRATEGIES
from dcp_tf.settings.training import TrainConfig
from dcp_tf.tools.cli.flags_from_settings import flag_names, read_numbers
from dcp_tf.tools.cli.program import Program
from dcp_tf.tools.cli.training_flags import PHASES, training_config, unchosen

_TARGETS = ("rate", *(f"target_{measure}" for measure in (*MEASURES, "file", "ram", "latency")))
# These are read before overrides.
_OF_THE_RUN = (
    *("experiment", "list_experiments", "override", "output_dir", "overwrite", "strategy"),
    *("help", "helpfull", "debug", "flagfile"),
)
# What of the flags of train the baseline of an experiment has for itself; its data, loss and seed are those of the run.
_OF_BASELINES = tuple(flag for flag in flag_names(TrainConfig).values() if flag not in ("held_out", "seed"))
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
        "training (as in train). A semicolon stands for a comma inside a value.",
    )
    program.float("epochs_scale", 1.0, "What all numbers of epochs are multiplied by (at least 1 stays), as in 0.01.")
    define_image_size(program)
    program.boolean("list_experiments", False, "Print the experiments, what the paper reports, and how long they take.")


def define_image_size(program: Program) -> None:
    """`--image_size`."""
    program.integer(
        "image_size",
        None,
        "Height and width at which a zoo: network, which is built here, sees the images. Without the flag those of the "
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
        for name in ("override", "epochs_scale"):
            if flags[name].present:
                raise UsageError(f"--{name} changes an experiment; name one with --experiment")
        _check_image_size(flags)
        return None
    from dcp_tf.experiments import EXPERIMENTS

    if flags.experiment not in EXPERIMENTS:
        hint = _did_you_mean(flags.experiment, EXPERIMENTS)
        raise UsageError(f"unknown experiment {flags.experiment!r}{hint}; --list_experiments shows them all")
    experiment = EXPERIMENTS[flags.experiment]()
    overrides, of_baseline = _read_overrides(flags)
    given = {name for name in flags if flags[name].present} | overrides.keys()
    for name, value in overrides.items():
        if not flags[name].present:
            flags[name].value = value
    for name, value in _that_stays(experiment.flags, given, flags).items():
        flags[name].value = value
    _scale(flags)
    if flags.model is None:
        _check_own_baseline(flags)
    elif of_baseline:
        raise UsageError(f"--override=baseline.{next(iter(of_baseline))}: the baseline is {flags.model}, it is trained")
    _check_image_size(flags)
    flags["image_size"].value = flags.image_size or experiment.image_size
    if not flags["dataset"].present and not {"dataset"} & (experiment.flags.keys() | overrides.keys()):
        raise UsageError(f"say which data: {flags.experiment} needs --dataset=faces:DIR")
    baseline = {**experiment.baseline, **of_baseline}
    config = None if flags.model else _baseline_config(baseline, flags)
    return Chosen(flags.experiment, experiment.model, flags.image_size, config)


def scaled(epochs: int, scale: float) -> int:
    """A number of epochs times the scale; a training that there is keeps one epoch at least."""
    return max(1, round(epochs * scale)) if epochs else 0


def _scale(flags: Any) -> None:
    """Makes all trainings of `prune` as long as `--epochs_scale` says."""
    if not flags.epochs_scale:
        raise UsageError("--epochs_scale must be above 0")
    flags["qat_epochs"].value = scaled(flags.qat_epochs, flags.epochs_scale)
    for epochs, prefix in (("aux_epochs", "aux_"), ("finetune_epochs", "")):
        values = {name: flags[name].value for name in flags}
        for name, value in _shortened(values, flags.epochs_scale, epochs, prefix).items():
            flags[name].value = value


def _shortened(values: Mapping[str, Any], scale: float, epochs: str, prefix: str) -> dict[str, Any]:
    """The settings of a training `scale` times as long, whose learning rate changes at the same shares of it."""
    before, after = values[epochs], scaled(values[epochs], scale)
    if before == after:
        return {}
    boundaries = read_numbers(f"{prefix}boundaries", values[f"{prefix}boundaries"])
    # As shares: an epoch times the scale may fall below 1, where it would be taken for one.
    shares = [str(b if b < 1 else b / before) for b in boundaries if b < before]
    warmup = {} if prefix else {"warmup": values["warmup"] * after / before}  # there is none with auxiliary losses
    return {epochs: after, f"{prefix}boundaries": shares, **warmup}


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
        if is_baseline and key not in _OF_BASELINES:
            raise UsageError(
                f"--override={entry}: the baseline has no {key} of its own, only {', '.join(_OF_BASELINES)}; all else "
                "is said for the whole run"
            )
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


def _check_image_size(flags: Any) -> None:
    if flags["image_size"].present and not (flags.model or "zoo:").startswith("zoo:"):
        raise UsageError(f"--image_size is for zoo: networks, which are built here; {flags.model} has a size already")


def _baseline_config(settings: Mapping[str, Any], flags: Any) -> Any:
    """How the baseline is trained: `settings`, and what the flags on the command line say of all trainings."""
    from dcp_tf.tools import train

    common = {n: flags[n].value for n in ("max_steps_per_epoch", "mixed_precision", "batch_size") if flags[n].present}
    values = {name: train.PROGRAM.flags[name].default for name in train.PROGRAM.flags}
    values |= {**settings, **common, "seed": flags.seed}
    values |= _shortened(values, flags.epochs_scale, "epochs", "")
    for name in unchosen(PHASES["baseline"], settings.keys() | common.keys(), values):
        del values[name]
    return training_config(values, "baseline")
