"""Flags of pruning, fine-tuning and deployment, and the settings they make."""

import dataclasses
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.artefacts import Deployment
from dcp_tf.tools.program import Program

METHODS = ("dcp", "adapt_dcp", "random", "l1")
LOSSES = {"joint": (1.0, 1.0), "reconstruction": (1.0, 0.0), "discrimination": (0.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class Defaults:
    """Defaults that differ between programs."""

    rate: float = 0.5
    round_to: int = 8
    aux_epochs: int = 3
    finetune_epochs: int = 10
    batch_size: int = 128
    selection_samples: int = 4096


def define_pruning(program: Program, defaults: Defaults) -> None:
    """Which channels go."""
    program.enum("method", "dcp", METHODS, "How channels are chosen.")
    program.float("rate", defaults.rate, "Share of channels to remove from each group; for adapt_dcp the least share.")
    program.float("epsilon", 1e-3, "adapt_dcp: relative fall of the loss at which a group has enough channels.")
    program.integer("round_to", defaults.round_to, "Kept counts are the nearest multiple of it.", lower=1)
    program.integer("min_channels", 1, "Fewest channels that a group keeps.", lower=1)
    program.boolean("prune_residual", False, "Prune residual streams too, over all layers that make or read them.")
    program.list("exclude", [], "Groups that keep all channels, as inspect_model names them.")
    program.enum("losses", "joint", LOSSES, "What guides the selection: both losses, or one of them.")
    program.integer("auxiliary_losses", 2, "Auxiliary classifiers to spread over the depth.")
    program.list("auxiliary_layers", [], "Layers to put them at instead.")
    program.boolean("per_stage", False, "Fine-tune before each stage (the NeurIPS variant), not once.")
    program.integer("per_step", 2, "Channels added per step of the selection.", lower=1)
    program.integer("selection_samples", defaults.selection_samples, "Training images for the selection.", lower=1)
    program.integer("selection_batch", 128, "Batch size in the selection.", lower=1)
    program.float("selection_lr", 0.01, "Learning rate in the selection.")
    program.float("cache_gib", 2.0, "Memory for cached layer inputs, GiB; what does not fit is computed again.")


def define_training(program: Program, defaults: Defaults) -> None:
    """How the model is fine-tuned."""
    program.integer("aux_epochs", defaults.aux_epochs, "Epochs with auxiliary losses before the selection.")
    program.float("aux_lr", 0.01, "Learning rate there.")
    define_finetuning(program, defaults)


def define_finetuning(program: Program, defaults: Defaults) -> None:
    """How the pruned model is trained on."""
    program.integer("finetune_epochs", defaults.finetune_epochs, "Epochs of the pruned model; 0: none.")
    program.float("finetune_lr", 0.01, "Learning rate there, falling to 0 along a cosine.")
    program.float("distillation", 0.0, "Weight of the baseline's soft predictions in the fine-tuning, 0 to 1.")
    program.float("weight_decay", 1e-4, "L2 coefficient on kernels.")
    program.integer("batch_size", defaults.batch_size, "Images per training step.", lower=1)


def define_deployment(program: Program) -> None:
    """Which files are made and how they are measured."""
    define_files(program)
    program.integer("threads", 1, "Threads of the latency benchmark.", lower=1)
    program.integer("benchmark_runs", 50, "Measured runs of each file; 0: no benchmark.")


def define_files(program: Program) -> None:
    """Which TFLite files are made."""
    program.list("quantization", ["float32", "int8"], "TFLite files to make: float32, int8; empty: none.")
    program.enum("int8_io", "float", ("float", "int8"), "Inputs and outputs of int8 files.")
    program.integer("calibration_samples", 200, "Training images that calibrate int8 files.", lower=1)


def read_method(flags: Any) -> Any:
    """The method with its settings."""
    from dcp_tf.pruning import METHODS as CLASSES

    method = CLASSES[flags.method]
    reconstruction, discrimination = LOSSES[flags.losses]
    given = {
        **{name: flags[name].value for name in flags},
        "exclude": tuple(flags.exclude),
        "auxiliary_layers": tuple(flags.auxiliary_layers),
        "reconstruction": reconstruction,
        "discrimination": discrimination,
    }
    return method(**{field.name: given[field.name] for field in dataclasses.fields(method) if field.name in given})


def read_training(flags: Any, epochs: int, learning_rate: float) -> Any:
    """How one phase trains."""
    from dcp_tf.training import TrainConfig

    return TrainConfig(
        epochs=epochs,
        batch_size=flags.batch_size,
        learning_rate=learning_rate,
        weight_decay=flags.weight_decay,
        seed=flags.seed,
    )


def read_deployment(flags: Any) -> Deployment:
    """Which files, and how they are measured.

    Raises:
        UsageError: an unknown mode.
    """
    from dcp_tf.tflite import Quantization

    known = [mode.value for mode in Quantization]
    modes = [mode for mode in flags.quantization if mode]
    for mode in modes:
        if mode not in known:
            raise UsageError(f"unknown quantization {mode!r}; choose among {', '.join(known)}")
    measured = {"threads": flags.threads, "runs": flags.benchmark_runs} if "benchmark_runs" in flags else {"runs": 0}
    return Deployment(modes, flags.int8_io, flags.calibration_samples, **measured)


def settings_of(flags: Any) -> dict[str, Any]:
    """All flags as they stand in summary.json."""
    return {name: flags[name].value for name in flags if name not in ("help", "debug")}
