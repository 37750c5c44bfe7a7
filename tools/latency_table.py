"""Measures how the latency of a model depends on the widths of its layers, and writes a table.

    dcp-tf latency_table --model=zoo:mobilenet_v2 --output_dir=runs/mine
    dcp-tf latency_table --model=mine.keras --quantization=int8 --device=android --benchmark_model=PATH
    dcp-tf latency_table --model=mine.keras --quantization=int8 --device=arm --cpu=cortex-a76

latency_table.json predicts the latency of the model at any widths of its channel groups, so that prune can choose
widths for a target latency. An existing table of the same model and machine is not measured again.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import contextlib

from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import DELEGATES, Timing
from dcp_tf.settings.scope import Scope, WidthSettings
from dcp_tf.tools.cli import android_flags, data_flags, model_flags
from dcp_tf.tools.cli.flags_from_settings import define, read_numbers
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("latency_table", __doc__)
data_flags.define_model(PROGRAM)
PROGRAM.list("input_shape", [], "Height, width and channels of the images, if the model leaves them open.")
PROGRAM.section("Measurement")
PROGRAM.path("output_dir", None, "Where to write latency_table.json.")
android_flags.define_device(PROGRAM)
PROGRAM.string("quantization", "float32", "Mode of the files: float32, float16, dynamic, int8, int16x8.")
define(PROGRAM, Timing, ["threads"])
PROGRAM.list("levels", ["0.25", "0.5", "0.75"], "Fractions of each group's channels to measure; 1 is always added.")
define(PROGRAM, WidthSettings, ["round_to"])
define(PROGRAM, Scope, ["prune_residual"])
android_flags.define_android(PROGRAM)
PROGRAM.enum("delegate", "cpu", DELEGATES, "The delegate.")


def main(flags) -> None:
    """Measures and writes latency_table.json; prints the measured whole models with their predictions."""
    if not flags.model:
        raise UsageError("say which model: --model=zoo:NAME, keras:NAME or a path to a .keras file")
    if not flags.output_dir:
        raise UsageError("say where to write the table: --output_dir=DIR")
    from rich.console import Console

    from dcp_tf import models, progress
    from dcp_tf.files import writable_folder
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite.latency.latency_table import measure_latency_table

    path = writable_folder(flags.output_dir) / "latency_table.json"
    shape = {"input_shape": read_numbers("input_shape", flags.input_shape, int)} if flags.input_shape else {}
    graph = ChannelGraph(
        models.load(flags.model, weights=flags.weights, **shape, **model_flags.loading_of(flags)).model
    )
    with _timer(flags) as timer:
        table = measure_latency_table(
            graph,
            levels=read_numbers("levels", flags.levels, float),
            quantization=flags.quantization,
            threads=flags.threads,
            round_to=flags.round_to,
            residual=flags.prune_residual,
            timer=timer,
            cache=path,
        )
    Console(highlight=False).print(_table(table))
    progress.say(f"written: {path}")


@contextlib.contextmanager
def _timer(flags):
    from dcp_tf.tflite.latency.timers import DeviceTimer, HostTimer, open_device

    if flags.device == "host":
        with HostTimer(flags.threads, cpus=read_numbers("cpu", flags.cpu, int)) as timer:
            yield timer
    elif flags.device == "arm":
        from dcp_tf.tflite.arm.instructions import InstructionTimer

        if flags.threads > 1:
            raise UsageError("--device=arm counts the instructions of one thread: leave out --threads")
        with InstructionTimer(android_flags.read_arm_core(flags)) as timer:
            yield timer
    else:
        with open_device(android_flags.read_android(flags)) as session:
            yield DeviceTimer(session, flags.delegate)


def _table(table):
    from rich.table import Table

    measurements = table.measurements
    threads, layers = measurements.threads, len(measurements.layers)
    shown = Table(
        title=f"Whole models, {measurements.quantization}, {threads} thread{'s' * (threads > 1)}",
        caption=f"{measurements.machine}; {layers} layers measured; the prediction is fitted to these models",
    )
    unit = measurements.unit
    for column in ("channels kept", f"measured {unit}", f"predicted {unit}", "error"):
        shown.add_column(column, justify="right")
    for anchor in measurements.anchors:
        predicted = table.predict(anchor.widths)
        row = (f"{anchor.level:.0%}", f"{anchor.ms:.3f}", f"{predicted:.3f}", f"{predicted / anchor.ms - 1:+.1%}")
        shown.add_row(*row)
    return shown


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
