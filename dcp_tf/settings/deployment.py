"""Which TFLite files are made of a model, and how they are measured."""

import dataclasses
from typing import ClassVar

from dcp_tf.settings.measurement import ARM_CORE, ARM_CORES, DEVICES
from dcp_tf.settings.table import Settings, documented, setting

IO = ("float", "int8")  # what goes into an integer file and comes out of it


@documented
@dataclasses.dataclass(frozen=True)
class QatSettings(Settings):
    """How a model is trained before it becomes a qat file."""

    PART: ClassVar[str] = "qat."

    epochs: int = setting(
        1, "qat: epochs of training with rounded weights and activations.", lower=0, flag="qat_epochs"
    )
    learning_rate: float = setting(
        1e-3,
        "qat: the highest learning rate; it falls along a cosine.",
        above=0,
        hint="; {epochs}=0 leaves the training out",
        flag="qat_lr",
    )
    batch_size: int = setting(64, "qat: images per step.", lower=1, flag="qat_batch_size")
    distillation: float = setting(
        0.5,
        "qat: share of the float model's predictions in the loss, 0 to 1. Embeddings learn from those alone.",
        lower=0,
        upper=1,
        flag="qat_distillation",
    )


@documented
@dataclasses.dataclass(frozen=True)
class Deployment(Settings):
    """How the TFLite files are made and measured."""

    PART: ClassVar[str] = "deployment."

    quantizations: tuple[str, ...] = setting(
        ("float32", "int8"),
        "Files to make, with commas between them: float32, float16 (for GPUs), dynamic (int8 weights, no calibration), "
        "int8, qat (int8 after training for it), int16x8, sparse (kernel-pruned weights without their zeros), "
        "dynamic_int4, weight_only_int4, weight_only_int8 (small files; need pip install 'dcp_tf[edge]'); empty: none.",
        flag="quantization",
    )
    io: str = setting("float", "Inputs and outputs of int8 and qat files.", choices=IO, flag="int8_io")
    calibration_samples: int = setting(
        200, "Training images, drawn evenly of all classes, that calibrate integer files.", lower=1
    )
    bias_correction: bool = setting(
        True,
        "Biases of int8, int16x8 and weight-only files make up for the shift of each channel's mean that rounded "
        "weights cause, measured on up to 100 of the calibration images.",
    )
    replace_prelu: bool = setting(
        False,
        "int8 and qat: write PReLU as the larger of x and alpha * x, the same function, which is fast in 8 bits (PRELU "
        "is slower there than in float32).",
    )
    threads: int = setting(1, "Threads of the latency benchmark.", lower=1)
    runs: int = setting(50, "Measured runs of each file; 0: no benchmark.", lower=0, flag="benchmark_runs")
    strict: bool = setting(False, "Operations left in float in an int8 or int16x8 file are an error (exit code 1).")
    check_on: str = setting(
        "host",
        "Where files are compared with their Keras models, beside this machine, on the first 100 test images: arm: an "
        "emulated Arm core (run `dcp-tf setup arm` once); micro: TFLite Micro's interpreter, which also says how much "
        "RAM the file takes (needs pip install 'dcp_tf[micro]').",
        choices=(*DEVICES, "micro"),
    )
    arm_core: str = setting(
        ARM_CORE, f"The emulated Arm core: {', '.join(ARM_CORES)}.", flag="cpu", choices=tuple(ARM_CORES)
    )
    debug: bool = False  # end at an unexpected error, with its traceback; every program has this flag
    qat: QatSettings = dataclasses.field(default_factory=QatSettings)
