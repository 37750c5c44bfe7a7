"""Measures TFLite files against each other, on this machine, on Android devices or on an emulated Arm core.

    dcp-tf benchmark --models=runs/mine/baseline_int8.tflite,runs/mine/pruned_int8.tflite
    dcp-tf benchmark --models=A.tflite,B.tflite --runtime=compiled --accelerator=gpu
    dcp-tf benchmark --models=A.tflite,B.tflite --device=android --benchmark_model=PATH
    dcp-tf benchmark --models=A.tflite,B.tflite --device=arm --cpu=cortex-a53

The runs are interleaved, so that other load slows all files alike. If the measurement is too noisy, the table says so
in place of a speedup. docs/guides/android.md describes how to measure on a phone.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import pathlib

from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import readable_name
from dcp_tf.settings.measurement import AndroidSettings, Timing
from dcp_tf.tools.cli import android_flags, data_flags
from dcp_tf.tools.cli.flags_from_settings import define, flag_names, read_numbers
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("benchmark", __doc__)
PROGRAM.section("Measurement")
PROGRAM.paths("models", [], "The .tflite files; speedups are over the first.")
android_flags.define_device(PROGRAM)
define(PROGRAM, Timing)
data_flags.define_seed(PROGRAM, "Of the inputs and the bootstrap.")
PROGRAM.path("output_dir", None, "Where to write benchmark.json; by default it is not written.")


android_flags.define_android(PROGRAM)
define(PROGRAM, AndroidSettings, ["delegates", "npu_libraries", "repetitions"])

_ANDROID_ONLY = set(flag_names(AndroidSettings).values()) - set(flag_names(Timing).values())


def main(flags) -> None:
    """Prints the tables and writes benchmark.json."""
    if not flags.models:
        raise UsageError("say which files: --models=A.tflite,B.tflite")
    if not all(flags.models):
        raise UsageError(f"--models has an extra comma, which names an empty file. Received: {','.join(flags.models)}")
    for path in flags.models:
        if path != readable_name(path):  # the interpreter takes names in UTF-8 only
            raise UsageError(f"the name {readable_name(path)} is not UTF-8 here: rename the file, or set PYTHONUTF8=1")
    names = _short_names(flags.models)
    candidates = dict(zip(names, flags.models, strict=True))
    if flags.device != "android" and (given := [name for name in _ANDROID_ONLY if flags[name].present]):
        raise UsageError(f"--{given[0]} is for --device=android")
    {"android": _android, "arm": _arm, "host": _host}[flags.device](flags, candidates)


def _arm(flags, candidates: dict[str, str]) -> None:
    timing = set(flag_names(Timing).values()) - {"profile"}
    if given := [name for name in timing if flags[name].present]:
        counted = "one inference of the Interpreter on one thread is counted"
        raise UsageError(f"--{given[0]} has no effect with --device=arm: {counted}")
    from dcp_tf import tflite

    result = tflite.count_instructions(
        candidates, core=android_flags.read_arm_core(flags), seed=flags.seed, profile=flags.profile
    )
    _write(flags, result)
    _print([result.table()], result.operations or {}, "M instructions")


def _host(flags, candidates: dict[str, str]) -> None:
    from dcp_tf import tflite

    result = tflite.benchmark(
        candidates,
        threads=flags.threads,
        runs=flags.runs,
        warmup=flags.warmup,
        seed=flags.seed,
        cpus=read_numbers("cpu", flags.cpu, int),
        profile=flags.profile,
        runtime=flags.runtime,
        accelerator=_one_accelerator(flags),
    )
    _write(flags, result)
    _print([result.table()], result.operations or {})


def _one_accelerator(flags) -> str:
    if len(flags.accelerator) != 1:
        raise UsageError("this machine is measured with one accelerator at a time: --accelerator=cpu or gpu")
    return flags.accelerator[0]


def _android(flags, candidates: dict[str, str]) -> None:
    if flags.cpu:
        raise UsageError("--cpu pins processes of this machine; on a device use --cores=big, little or a mask")
    from dcp_tf.tflite.android.session import benchmark_android

    result = benchmark_android(candidates, android_flags.read_android(flags), seed=flags.seed)
    _write(flags, result)
    operations = {
        f"{name} ({delegate}, {device.device.model})": latency.operations
        for device in result.devices
        for delegate, latencies in device.latencies.items()
        for name, latency in latencies.items()
        if latency.operations
    }
    _print(result.tables(), operations)
    if result.failures:
        raise RunError("; ".join(result.failures))


def _print(tables: list, operations: dict, unit: str = "ms") -> None:
    from rich.console import Console

    from dcp_tf.tflite.latency.operation_times import operations_table

    console = Console(highlight=False)
    for table in [*tables, *(operations_table(times, name, unit=unit) for name, times in operations.items())]:
        console.print(table)


def _write(flags, result) -> None:
    from dcp_tf import progress
    from dcp_tf.files import writable_folder, write_json

    if flags.output_dir:
        path = write_json(writable_folder(flags.output_dir) / "benchmark.json", result.to_json())
        progress.say(f"written: {path}")


def _short_names(paths: list[str]) -> list[str]:
    """File names where they are all different, else the paths."""
    if len(set(paths)) < len(paths):
        raise UsageError("a file is named twice in --models")
    short = [pathlib.Path(path).name for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
