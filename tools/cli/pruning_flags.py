"""Flags of pruning, fine-tuning and deployment, and the settings they make."""

import dataclasses
from typing import Any

from dcp_tf.errors import UsageError, did_you_mean
from dcp_tf.settings.budget import MEASURES, Adaptive, Budget, KernelRate, Rounds, Target
from dcp_tf.settings.deployment import Deployment, QatSettings
from dcp_tf.settings.importance import Choice, Refit
from dcp_tf.settings.scope import Scope, WidthSettings
from dcp_tf.settings.selection import LOSSES, Heads, Images, Search
from dcp_tf.settings.table import rules
from dcp_tf.tools.app.file_target import FileTarget, read_file_target
from dcp_tf.tools.app.latency_target import LatencyTarget, read_latency_target
from dcp_tf.tools.cli.flag_checks import check_given
from dcp_tf.tools.cli.flags_from_settings import define, read, values_of
from dcp_tf.tools.cli.plan_flag import given_plan
from dcp_tf.tools.cli.program import FLAG_OF, Program
from dcp_tf.tools.cli.training_flags import define_phase, define_recipe, read_training

FLAG_OF |= dict.fromkeys(("reconstruction", "discrimination"), "losses")


def define_pruning(program: Program) -> None:
    """Which channels go, and how they are chosen."""
    program.section("Which channels go")
    define(program, Choice)
    define_groups(program)


def define_groups(program: Program) -> None:
    """Which groups lose how many channels, and the settings of the methods."""
    define(program, Budget)
    define_targets(program)
    for settings in (KernelRate, Adaptive, WidthSettings, Scope):
        define(program, settings)
    program.section("How dcp, dkp and their variants choose")
    define(program, Refit)
    program.enum(
        "losses",
        next(iter(LOSSES)),
        LOSSES,
        "What guides the choice: reconstruction of the layer's outputs, discrimination by a classifier behind it, or "
        "both (joint).",
    )
    define(
        program, Heads, ["auxiliary_losses", "auxiliary_layers", "per_stage"], {"auxiliary_losses": {"default": None}}
    )
    define(program, Search)
    define(program, Images)


def define_targets(program: Program) -> None:
    """What the pruned model may cost, in place of a rate."""
    for measure, about in MEASURES.items():
        program.string(
            f"target_{measure}",
            None,
            f"{about}: at most so many in the pruned model, a number or a share as in 60%; sets the rate. Where "
            "kernels are pruned, zeros are not counted, and for dcp_dkp it sets the kernel rate.",
        )


def define_training(program: Program) -> None:
    """How the model is fine-tuned."""
    program.section("Fine-tuning")
    define_phase(program, "auxiliary")
    define(program, Heads, ["auxiliary_trains"])
    define_finetuning(program)


def define_finetuning(program: Program) -> None:
    """How the pruned model is trained on."""
    define_phase(program, "finetuning")
    program.share(
        "distillation",
        None,
        "Share of the baseline's soft predictions in the loss of the pruned model, 0 to 1; without the flag 0.5, for "
        "losses that cannot be compared with predictions 0.",
    )
    program.boolean(
        "unfreeze", False, "Train layers that the model holds frozen (trainable=False), such as a borrowed base, too."
    )
    define_recipe(program)


def define_deployment(program: Program) -> None:
    """Which files are made and how they are measured."""
    define_files(program)
    program.section("Latency")
    define(program, Deployment, ["threads", "runs"])


def define_files(program: Program) -> None:
    """Which TFLite files are made."""
    program.section("TFLite files")
    names = ["quantizations", "io", "calibration_samples", "bias_correction", "replace_prelu", "check_on", "arm_core"]
    define(program, Deployment, names)
    define(program, QatSettings)


@dataclasses.dataclass(frozen=True)
class Job:
    """What `prune` and `quickstart` shall do with a model.

    Attributes:
        method: which channels go, such as `dcp_tf.DCP`.
        auxiliary: the training with auxiliary losses.
        finetuning: the training of the pruned model.
        distillation: share of the baseline's predictions in that, None as in `dcp_tf.prune`.
        deployment: the files.
        latency: what the files may take, if that is asked for.
        file: how large one of them may be, if that is asked for.
        steps: in how many steps the model is pruned.
        context: model, data and settings as `dcp_tf.pruning.prepare` resolved them; `preflight.check_job` sets it.
    """

    method: Any
    auxiliary: Any
    finetuning: Any
    distillation: float | None
    deployment: Deployment
    latency: LatencyTarget | None = None
    file: FileTarget | None = None
    steps: int = 1
    context: Any = None


def read_job(flags: Any) -> Job:
    """Everything that the flags alone say.

    Raises:
        UsageError: a value that cannot be, or a setting that `check_given` refuses.
    """
    method = given_plan(flags) or read_method(flags)
    check_given(flags, method)
    deployment = read_deployment(flags)
    latency = read_latency_target(flags, method, deployment) if "target_latency" in flags else None
    file = read_file_target(flags, method, deployment) if "target_file" in flags else None
    return Job(
        method,
        read_training(flags, "auxiliary"),
        read_training(flags, "finetuning"),
        flags.distillation,
        deployment,
        latency,
        file,
        _read_steps(flags, method, latency or file),
    )


def _read_steps(flags: Any, method: Any, measured_target: Any) -> int:
    """In how many steps the model is pruned; raises UsageError where that cannot be."""
    from dcp_tf.pruning.steps import check_steps

    steps = read(values_of(flags), Rounds).steps if "steps" in flags else 1
    check_steps(method, steps)
    if steps > 1 and measured_target:
        raise UsageError(
            "--steps needs a --rate, or a target of macs, params or bytes: others are measured on one model"
        )
    return steps


def read_method(flags: Any) -> Any:
    """The method with its settings.

    Raises:
        UsageError: a value that cannot be, or an unknown method.
    """
    method, given = find_method(flags.method, flags), {"target": read_target(flags)}
    if {"reconstruction", "discrimination"} <= rules(method).keys():
        given["reconstruction"], given["discrimination"] = LOSSES[flags.losses]
    return read(values_of(flags), method, **given)


def find_method(name: str, flags: Any) -> type:
    """The class of a method, which the file of `--custom_objects` may register.

    Raises:
        UsageError: there is none of that name.
    """
    from dcp_tf.models.load import run_custom_objects
    from dcp_tf.pruning import METHODS

    if name not in METHODS and "custom_objects" in flags and flags.custom_objects:
        run_custom_objects(flags.custom_objects)
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; {did_you_mean(name, list(METHODS))}")
    return METHODS[name]


def read_target(flags: Any) -> Target | None:
    """The target that the flags name, or None.

    Raises:
        UsageError: there are several.
    """
    given = {measure: flags[f"target_{measure}"].value for measure in MEASURES}
    targets = [Target(measure, text) for measure, text in given.items() if text is not None]
    if len(targets) > 1:
        raise UsageError(
            "give one target: --target_" + ", --target_".join(t.measure for t in targets) + " exclude each other"
        )
    return targets[0] if targets else None


def read_deployment(flags: Any) -> Deployment:
    """Which files, and how they are measured.

    Raises:
        UsageError: an unknown mode, or one for which a package is not installed.
    """
    from dcp_tf.tflite import Quantization, require_quantizer

    known = [mode.value for mode in Quantization]
    modes = [mode for mode in flags.quantization if mode]
    for mode in modes:
        if mode not in known:
            raise UsageError(f"unknown quantization {mode!r}; choose among {', '.join(known)}")
        if Quantization(mode).weight_bits:
            require_quantizer()
    if "check_on" in flags and flags.check_on == "arm":
        from dcp_tf.tflite.arm.environment import ArmEnvironment

        ArmEnvironment.find()  # before anything runs
    if "check_on" in flags and flags.check_on == "micro":
        from dcp_tf.tflite.micro.interpreter import require_micro

        require_micro()
    values = {"benchmark_runs": 0} | values_of(flags) | {"quantization": list(dict.fromkeys(modes))}
    return read(values, Deployment, debug=flags.debug, qat=read(values, QatSettings))
