"""Measures the latency of TFLite files against each other on this machine.

    python -m dcp_tf.tools.benchmark --models=runs/mine/baseline_int8.tflite,runs/mine/pruned_int8.tflite

The files take turns, so that whatever else the machine does slows all of them. Where the machine is too noisy to tell
which one is faster, the table says so in place of a ratio.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import pathlib

from dcp_tf.errors import UsageError
from dcp_tf.tools import common_flags
from dcp_tf.tools.program import Program

PROGRAM = Program("benchmark", __doc__)
PROGRAM.list("models", [], "The .tflite files; ratios are to the first.")
PROGRAM.integer("threads", 1, "Threads of the kernels.", lower=1)
PROGRAM.integer("runs", 50, "Measured runs of each file.", lower=1)
PROGRAM.integer("warmup", 10, "Inferences of each file before the first measured one.")
PROGRAM.list("cpu", [], "Pin the measuring processes to these processors, such as 1 or 2,3; by default to none.")
PROGRAM.boolean("profile", False, "Measure how long every operation takes too.")
common_flags.define_seed(PROGRAM, "Of the inputs and the bootstrap.")
PROGRAM.string("output_dir", None, "Where to write benchmark.json; by default nowhere.")


def main(flags) -> None:
    """Prints the table and writes benchmark.json."""
    if not flags.models:
        raise UsageError("say which files: --models=A.tflite,B.tflite")
    from rich.console import Console

    from dcp_tf import progress, tflite
    from dcp_tf.files import writable_folder, write_json
    from dcp_tf.tflite.operation_times import operations_table

    names = _short_names(flags.models)
    result = tflite.benchmark(
        dict(zip(names, flags.models, strict=True)),
        threads=flags.threads,
        runs=flags.runs,
        warmup=flags.warmup,
        seed=flags.seed,
        cpus=_numbers("cpu", flags.cpu),
        profile=flags.profile,
    )
    console = Console(highlight=False)
    console.print(result.table())
    for name, operations in (result.operations or {}).items():
        console.print(operations_table(operations, name))
    if flags.output_dir:
        path = write_json(writable_folder(flags.output_dir) / "benchmark.json", result.to_json())
        progress.say(f"written: {path}")


def _short_names(paths: list[str]) -> list[str]:
    """File names where they are all different, else the paths."""
    if len(set(paths)) < len(paths):
        raise UsageError("a file is named twice in --models")
    short = [pathlib.Path(path).name for path in paths]
    return short if len(set(short)) == len(short) else list(paths)


def _numbers(flag: str, texts: list[str]) -> tuple[int, ...]:
    if not all(text.isdecimal() for text in texts):
        raise UsageError(f"--{flag} takes numbers with commas between them. Received: {','.join(texts)}")
    return tuple(int(text) for text in texts)


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
