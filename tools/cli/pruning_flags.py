"""Flags of pruning, fine-tuning and deployment, and the settings they make."""

import dataclasses
from typing import Any

from dcp_tf.defaults import ROUND_TO
from dcp_tf.errors import UsageError
from dcp_tf.tools.app.deployment import Deployment
from dcp_tf.tools.app.file_target import FileTarget, read_file_target
from dcp_tf.tools.app.latency_target import LatencyTarget, read_latency_target
from dcp_tf.tools.cli.flag_checks import check_given
from dcp_tf.tools.cli.plan_flag import given_plan
from dcp_tf.tools.cli.program import Program, read_share
from dcp_tf.tools.cli.qat_flags import define_qat, read_qat
from dcp_tf.tools.cli.training_flags import define_phase, define_recipe, read_training

METHODS = (
    *("dcp", "adapt_dcp", "dkp", "dcp_dkp", "adapt_dkp"),
    *("random", "l1", "l2", "fpgm", "bn_scale", "taylor", "apoz", "thinet", "lasso"),
    "width_multiplier",
)
TARGETS = {
    "macs": "Multiply-accumulates",
    "params": "Parameters",
    "bytes": "Bytes of the float32 weights, not of what is shipped",
}
SCORES = ("paper", "code", "reduction")
LOSSES = {"joint": (1.0, 1.0), "reconstruction": (1.0, 0.0), "discrimination": (0.0, 1.0)}


def define_pruning(program: Program) -> None:
    """Which channels go, and how they are chosen."""
    program.section("Which channels go")
    define_method(program)
    define_groups(program)


def define_method(program: Program) -> None:
    """How channels are chosen."""
    program.enum(
        "method",
        "dcp",
        METHODS,
        "How channels are chosen. dcp: those that the losses need most, at a fixed rate; adapt_dcp: the same, each "
        "group as wide as its loss needs; dkp, adapt_dkp: the same with single kernels (all weights between one "
        "channel and one filter), whose zeros make files smaller and few devices faster; dcp_dkp: channels first, then "
        "kernels of what is left; random: by chance; l1, l2: the filters with the largest weights; fpgm: the "
        "filters farthest from the others; bn_scale: the largest BatchNormalization scales; taylor: those without "
        "which the loss would change most, to first order; apoz: those that are zero least often; thinet, lasso: those "
        "from which the next layers' outputs can be made again; width_multiplier: none of these, a network of the "
        "same shape is trained from scratch with the schedule of the fine-tuning.",
    )


def define_groups(program: Program) -> None:
    """Which groups lose how many channels, and the settings of the methods."""
    _define_amounts(program)
    _define_exceptions(program)
    _define_targets(program)
    program.section("How dcp, dkp and their variants choose")
    _define_guides(program)
    _define_search(program)
    program.float(
        "recover",
        None,
        "Minutes, at most, in which all weights of the pruned model are fitted together to the outputs of the "
        "baseline's blocks, on the selection's images and without labels; 0: not at all. Without the flag as long as "
        "some passes over the images take, for --selection=exact not at all.",
    )
    _define_selection_data(program)


def _define_amounts(program: Program) -> None:
    """How many channels all groups lose."""
    program.share(
        "rate",
        program.defaults.get("rate", 0.5),
        "Share of channels to remove from each group, as 0.3 or 30%; for dkp share of kernels to remove from each "
        "layer; for adapt_dcp and adapt_dkp the least share.",
    )
    program.share("kernel_rate", 0.3, "For dcp_dkp: share of the remaining kernels to remove from each layer.")
    program.float(
        "epsilon",
        1e-4,
        "For adapt_dcp and adapt_dkp: relative fall of the loss, per step of the selection, at which a group has "
        "enough channels, or a layer enough kernels.",
    )
    program.enum(
        "allocation",
        None,
        ("uniform", "global"),
        "uniform: all groups lose the same share; global: the channels that are worth least go first, whatever group "
        "they are in, until the model costs as little as with --rate or --target_*. Without the flag global for dcp "
        "and adapt_dcp (the widest that its groups may stay) with --target_*, uniform for all else.",
    )
    program.integer(
        "round_to",
        program.defaults.get("round_to", ROUND_TO),
        "The channels that a group keeps are the nearest multiple of it, which suits hardware (on Arm 16 in int8, 8 in "
        "float32); 1: exactly the rate. Groups no wider than it follow the plain rate. Kernels are not rounded, and "
        "channels that no kernel reads any more all go.",
        lower=1,
    )
    program.integer("min_channels", 1, "Fewest channels that a group keeps.", lower=1)


def _define_exceptions(program: Program) -> None:
    """Which groups are pruned at all, and which in a way of their own."""
    program.boolean(
        "prune_residual",
        False,
        "Prune residual streams (sums of feature maps) too, over all layers that make or read them, and the units of "
        "recurrent layers.",
    )
    program.boolean(
        "ignore_statistics",
        False,
        "Remove channels also where LayerNormalization and its like take statistics over them; fine-tuning mends that.",
    )
    program.list(
        "exclude",
        [],
        "Groups that keep all channels (a,b,c), and layers that keep all kernels: regular expressions for whole names, "
        "as inspect_model lists them.",
    )
    program.list("rates", [], "Rates of single groups, as in stage1_.*=0.2,head=0.7; the first that matches counts.")


def _define_targets(program: Program) -> None:
    """What the pruned model may cost, in place of a rate."""
    for measure, about in TARGETS.items():
        program.string(
            f"target_{measure}",
            None,
            f"{about} of the pruned model at most, a number or a share as in 60%; sets the rate. Where kernels "
            "are pruned, zeros are not counted, and for dcp_dkp it sets the kernel rate.",
        )


def _define_guides(program: Program) -> None:
    """Which losses guide the choice, and where the auxiliary classifiers are."""
    program.boolean(
        "update",
        False,
        "For methods that only rank channels (random to apoz): fit the weights that read the remaining channels layer "
        "by layer as dcp does, with the settings below.",
    )
    program.enum(
        "losses",
        "joint",
        LOSSES,
        "What guides the choice: reconstruction of the layer's outputs, discrimination by a classifier behind it, or "
        "both (joint).",
    )
    program.integer(
        "auxiliary_losses",
        None,
        "Auxiliary classifiers, spread over the depth. Without the flag 2, for width_multiplier none.",
    )
    program.list(
        "auxiliary_layers", [], "Layers to put the auxiliary classifiers at instead; inspect_model --layers lists them."
    )
    program.boolean(
        "per_stage", False, "Fine-tune before the groups of each auxiliary classifier (the NeurIPS variant), not once."
    )


def _define_search(program: Program) -> None:
    """How the channels are found that the losses need."""
    program.enum(
        "selection",
        "fast",
        ("fast", "exact"),
        "fast: by elimination in a quadratic model of the losses, built in one pass over the images (as exact where "
        "the model does not cover a layer); exact: step by step over the images, as the paper.",
    )
    program.integer(
        "per_step",
        None,
        "Channels that each step of the selection adds to a group. Without the flag 2, and more in groups that keep "
        "over 64, so that none takes over 32 steps. Kernels come in by as many times the filters of the layer (without "
        "the flag 1, as far as it takes no more than 32 steps).",
        lower=1,
    )
    program.enum(
        "score",
        None,
        SCORES,
        "For --selection=exact, which come in first. paper: those with the largest gradient of the loss (Frobenius "
        "norm); code: the same, norms added up over the filters; reduction (without the flag): those that lower the "
        "loss most by its slope and curvature.",
    )
    program.integer(
        "selection_passes",
        None,
        "Passes of training over the selection's images, per step for exact, once per group or layer for fast. Without "
        "the flag 1 and 0.",
    )


def _define_selection_data(program: Program) -> None:
    """At which images the selection looks, and how many of their layer inputs are kept."""
    program.integer(
        "selection_samples",
        program.defaults.get("selection_samples", 4096),
        "Training images that the selection looks at.",
        lower=1,
    )
    program.integer("selection_batch", 128, "Images per training step of the selection.", lower=1)
    program.float("selection_lr", 0.01, "Learning rate of the selection.")
    program.float("cache_gib", 2.0, "Memory that the selection takes beside model and images, GiB.")
    program.float(
        "cache_disk_gib",
        8.0,
        "Temporary files for what does not fit there, GiB (at most half of the free space; 0: none); what does not fit "
        "either is computed again.",
    )


def define_training(program: Program) -> None:
    """How the model is fine-tuned."""
    program.section("Fine-tuning")
    define_phase(program, "auxiliary")
    program.enum(
        "auxiliary_trains",
        None,
        ("all", "heads"),
        "What those epochs train: all: the whole model, as the paper; heads (without the flag): the auxiliary "
        "classifiers alone, which takes a third of the time, leaves the model as it is, and measures better where "
        "training is short.",
    )
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
    program.integer("threads", 1, "Threads of the latency benchmark.", lower=1)
    program.integer("benchmark_runs", 50, "Measured runs of each file; 0: no benchmark.")


def define_files(program: Program) -> None:
    """Which TFLite files are made."""
    program.section("TFLite files")
    program.list(
        "quantization",
        ["float32", "int8"],
        "Files to make, with commas between them: float32, float16 (for GPUs), dynamic (int8 weights, no calibration), "
        "int8, qat (int8 after training for it), int16x8, sparse (kernel-pruned weights without their zeros), "
        "weight_only_int4, weight_only_int8 (small files; need pip install 'dcp_tf[edge]'); empty: none.",
    )
    program.enum("int8_io", "float", ("float", "int8"), "Inputs and outputs of int8 and qat files.")
    program.integer(
        "calibration_samples",
        200,
        "Training images, drawn evenly of all classes, that calibrate integer files.",
        lower=1,
    )
    define_qat(program)


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
    """

    method: Any
    auxiliary: Any
    finetuning: Any
    distillation: float | None
    deployment: Deployment
    latency: LatencyTarget | None = None
    file: FileTarget | None = None


def read_job(flags: Any) -> Job:
    """Everything that the flags alone say.

    Raises:
        UsageError: a value that cannot be, or a setting that `check_given` refuses.
    """
    method = given_plan(flags) or read_method(flags)
    check_given(flags, method)
    deployment = read_deployment(flags)
    latency = read_latency_target(flags, method, deployment) if "target_latency" in flags else None
    return Job(
        method,
        read_training(flags, "auxiliary"),
        read_training(flags, "finetuning"),
        flags.distillation,
        deployment,
        latency,
        read_file_target(flags, method, deployment) if "target_file" in flags else None,
    )


def read_method(flags: Any) -> Any:
    """The method with its settings."""
    from dcp_tf.pruning import METHODS as CLASSES

    method = CLASSES[flags.method]
    target = read_target(flags)
    reconstruction, discrimination = LOSSES[flags.losses]
    given = {
        **{name: flags[name].value for name in flags},
        "exclude": tuple(flags.exclude),
        "rates": read_rates(flags.rates),
        "target": target,
        "auxiliary_layers": tuple(flags.auxiliary_layers),
        "reconstruction": reconstruction,
        "discrimination": discrimination,
    }
    taken = [field.name for field in dataclasses.fields(method) if field.init and given.get(field.name) is not None]
    return method(**{name: given[name] for name in taken})


def read_target(flags: Any) -> Any:
    """The target that the flags name, or None.

    Raises:
        UsageError: there are several.
    """
    from dcp_tf.pruning import Target

    given = {measure: flags[f"target_{measure}"].value for measure in TARGETS}
    targets = [Target(measure, text) for measure, text in given.items() if text is not None]
    if len(targets) > 1:
        raise UsageError(
            "give one target: --target_" + ", --target_".join(t.measure for t in targets) + " exclude each other"
        )
    return targets[0] if targets else None


def read_rates(entries: list[str]) -> tuple[tuple[str, float], ...]:
    """`PATTERN=RATE` entries as pairs.

    Raises:
        UsageError: an entry has another form.
    """
    pairs = []
    for entry in entries:
        pattern, equals, rate = entry.rpartition("=")
        try:
            pairs.append((pattern, float(read_share(rate))))
        except ValueError:
            equals = ""
        if not equals or not pattern:
            raise UsageError(f"--rates takes PATTERN=RATE with commas between them, received {entry!r}")
    return tuple(pairs)


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
    measured = {"threads": flags.threads, "runs": flags.benchmark_runs} if "benchmark_runs" in flags else {"runs": 0}
    strict = "strict" in flags and flags.strict
    return Deployment(
        list(dict.fromkeys(modes)),
        flags.int8_io,
        flags.calibration_samples,
        strict=strict,
        debug=flags.debug,
        qat=read_qat(flags),
        **measured,
    )
