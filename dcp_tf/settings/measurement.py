"""How the latency of TFLite files is measured, here and on Android devices."""

import dataclasses
import os
import pathlib

from dcp_tf.errors import UsageError
from dcp_tf.settings.table import Settings, documented, setting

RUNTIMES = ("interpreter", "compiled")
# What runs the kernels, and how benchmark_model is told: the Interpreter's, and those of CompiledModel, which all fall
# back to the CPU, as in apps.
DELEGATES = {"cpu": "--use_xnnpack=true", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}
ACCELERATORS = {"cpu": "--use_cpu=true", "gpu": "--use_gpu=true", "npu": "--use_npu=true"}
# The Arm cores that can be emulated, and what they are.
ARM_CORES = {
    "cortex-a53": "old and small phone cores, no dot products",
    "cortex-a72": "old large phone cores and Raspberry Pi 4, no dot products",
    "cortex-a76": "phones since 2019 and Raspberry Pi 5, dot products",
    "neoverse-n1": "servers, dot products",
    "max": "all that the emulator knows but SME: i8mm, SVE",
}
ARM_CORE = "cortex-a76"
DEVICES = ("host", "arm")  # what files run on without a phone
LEAST_REPETITIONS = 5  # for a speedup; each is the median or mean of many inferences
DOWNLOAD = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
    "android_aarch64_benchmark_model"
)
COMPILED_DOWNLOAD = "https://storage.googleapis.com/litert/binaries/latest/android_arm64/benchmark_model"


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing(Settings):
    """How often a file is run."""

    threads: int = setting(1, "Threads of the kernels.", lower=1)
    runs: int = setting(50, "Measured runs of each file (on Android: inferences of each repetition).", lower=1)
    warmup: int = setting(10, "Inferences of each file before the first measured one.", lower=0)
    profile: bool = setting(False, "Measure every operation too.")
    runtime: str = setting(
        "interpreter",
        "What runs the files: LiteRT's Interpreter, or its CompiledModel, which new apps use; outputs are compared.",
        choices=RUNTIMES,
    )
    accelerators: tuple[str, ...] = setting(
        ("cpu",),
        "What CompiledModel runs on: cpu, gpu or npu; on Android also several of them, and npu there only.",
        choices=tuple(ACCELERATORS),
        flag="accelerator",
    )


@documented
@dataclasses.dataclass(frozen=True)
class AndroidSettings(Timing):
    """How to measure on Android."""

    benchmark_model: str | os.PathLike | None = setting(
        about="benchmark_model for the device: TFLite's, or LiteRT's for CompiledModel; without it an error says where."
    )
    serials: tuple[str, ...] = setting(
        (), "The devices, as `adb devices` calls them; by default the only one that is connected.", flag="serial"
    )
    adb: str | None = setting(None, "The adb program; by default the one on PATH or in the Android SDK.", is_path=True)
    cores: str = setting("big", "Where to run: big, little, all, or a mask of cores in hexadecimal, such as f0.")
    delegates: tuple[str, ...] = setting(
        ("cpu",), "What runs the kernels: cpu (XNNPACK), gpu, nnapi, or several of them.", choices=tuple(DELEGATES)
    )
    npu_libraries: str | os.PathLike | None = setting(
        None,
        "Folder with the libraries of the NPU (libLiteRtDispatch_*.so and what they need), for CompiledModel on it.",
        is_path=True,
    )
    least_seconds: float = setting(
        1.0, "Minimum duration of a repetition, in seconds.", above=0, python_only="the runs decide"
    )
    repetitions: int = setting(
        LEAST_REPETITIONS,
        f"Runs of benchmark_model for each file and delegate; a ratio needs {LEAST_REPETITIONS}.",
        lower=1,
    )
    cool_to: float = setting(35.0, "Wait until the device has at most this temperature (degrees Celsius).")
    cool_minutes: float = setting(10.0, "The longest wait; after it the measurement continues and says so.", lower=0)

    @property
    def targets(self) -> tuple[str, ...]:
        """What runs the kernels: the delegates of the Interpreter, or the accelerators of CompiledModel."""
        return tuple(dict.fromkeys(self.accelerators if self.runtime == "compiled" else self.delegates))

    def program(self) -> pathlib.Path:
        """The path of benchmark_model.

        Raises:
            UsageError: it is missing, nothing runs the kernels, or a setting is for the other runtime.
        """
        compiled = self.runtime == "compiled"
        whose, place = ("LiteRT's", COMPILED_DOWNLOAD) if compiled else ("TFLite's", DOWNLOAD)
        if self.benchmark_model is None:
            raise UsageError(
                f"say where {whose} benchmark_model for Android is: benchmark_model=PATH. Download the nightly build "
                f"for 64-bit phones from {place} (docs/guides/android.md tells more)",
                setting="benchmark_model",
            )
        path = pathlib.Path(self.benchmark_model)
        if not path.is_file():
            raise UsageError(f"there is no file {path}; benchmark_model for 64-bit phones is at {place}")
        name, other = ("accelerators", "delegates") if compiled else ("delegates", "accelerators")
        if getattr(self, other) != ("cpu",):
            raise UsageError(f"{other} is not for runtime={self.runtime}: give {name}", (other, "runtime", name))
        if not self.targets:
            some = ", ".join(ACCELERATORS if compiled else DELEGATES)
            raise UsageError(f"{name} must be some of {some}. Received: none", setting=name)
        if compiled and self.profile:
            raise UsageError(
                "profile shows the Interpreter's operations: leave it out with runtime=compiled", ("profile", "runtime")
            )
        return path

    def libraries(self) -> list[pathlib.Path]:
        """The libraries of the NPU.

        Raises:
            UsageError: there are none where the NPU needs them.
        """
        if "npu" not in self.targets:
            return []
        if self.npu_libraries is None:
            raise UsageError("the NPU needs its vendor's libraries: npu_libraries=FOLDER", setting="npu_libraries")
        found = sorted(pathlib.Path(self.npu_libraries).glob("*.so"))
        if not any(path.name.startswith("libLiteRtDispatch_") for path in found):
            raise UsageError(f"npu_libraries={self.npu_libraries} has no libLiteRtDispatch_*.so", "npu_libraries")
        return found
