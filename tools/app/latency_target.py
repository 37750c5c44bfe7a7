"""`--target_latency`: chooses widths by a table of measured latencies, and checks the latency of the result."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import DEVICES
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.cli.program import Program

_FILES = {"float32": ("float32",), "int8": ("int8", "qat")}  # the files whose latency a table predicts


@dataclasses.dataclass(frozen=True)
class LatencyTarget:
    """The value of `--target_latency`.

    Attributes:
        text: a fraction of the baseline's latency, such as "60%", or milliseconds, such as "4.5ms"; on an emulated Arm
            core of its instructions, or millions of them, such as "30M".
        quantization: "float32" or "int8".
        threads: of the kernels.
        mode: mode of the file that is measured at the end, one of the run's `--quantization`.
        path: of the table; None: the table is measured.
        table: the `LatencyTable`, once it exists.
        graph: of the baseline with fixed input sizes, then too.
        core: of the emulated Arm machine that counts instructions; None: this machine is measured.
    """

    text: str
    quantization: str
    threads: int
    mode: str
    path: str | None = None
    table: Any = None
    graph: Any = dataclasses.field(default=None, repr=False)
    core: str | None = None

    @property
    def measure(self) -> str:
        """What the method's target calls it."""
        return "latency" if self.core is None else "instructions"

    @property
    def unit(self) -> str:
        """Of absolute numbers."""
        return "ms" if self.core is None else "M instructions"


def define_latency_target(program: Program) -> None:
    """`--target_latency` and its companions."""
    program.string(
        "target_latency",
        None,
        "Measured latency of the pruned TFLite file at most, as a share of the baseline's (60%) or in milliseconds "
        "(4.5ms); sets the rate. The exported files are measured at the end; exit code 1 if it was missed.",
    )
    program.path(
        "latency_table",
        None,
        "For --target_latency: what tools/latency_table wrote. Without it the layers are measured first, on this "
        "machine, and kept as latency_table.json in --output_dir.",
    )
    program.enum(
        "latency_quantization", "float32", tuple(_FILES), "For --target_latency: the files whose latency counts."
    )
    program.enum(
        "latency_device",
        "host",
        DEVICES,
        "For --target_latency: what counts. arm: executed instructions on the emulated Arm core of --cpu (a share, or "
        "millions such as 30M). They are not time, but the same on every machine (run `dcp-tf setup arm` once).",
    )


def read_latency_target(flags: Any, method: Any, deployment: Any) -> LatencyTarget | None:
    """The target that the flags state, or None.

    Raises:
        UsageError: the value is invalid, there is another target, the method takes none, or no file is measured.
    """
    if flags.target_latency is None:
        for name in ("latency_table", "latency_quantization", "latency_device"):
            if flags[name].present:
                raise UsageError(f"--{name} goes with --target_latency")
        return None
    if method.target is not None:
        raise UsageError(f"give one target: --target_latency and --target_{method.target.measure} exclude each other")
    core = deployment.arm_core if flags.latency_device == "arm" else None
    if not deployment.runs and core is None:
        raise UsageError("--target_latency is checked by measuring: --benchmark_runs must be above 0")
    if core is not None:
        from dcp_tf.tflite.arm.cores import find_core
        from dcp_tf.tflite.arm.environment import ArmEnvironment

        find_core(core), ArmEnvironment.find()
        if deployment.threads > 1:
            raise UsageError("--latency_device=arm counts the instructions of one thread: leave out --threads")
    mode = next((mode for mode in _FILES[flags.latency_quantization] if mode in deployment.quantizations), None)
    if mode is None:
        raise UsageError(
            f"--target_latency is checked by measuring the {flags.latency_quantization} file: add it to "
            "--quantization, or choose another --latency_quantization"
        )
    quantization, path = flags.latency_quantization, flags.latency_table
    target = LatencyTarget(flags.target_latency, quantization, flags.threads, mode, path, core=core)
    _targeted(method, target, lambda widths: 1.0, "")
    return target


def bind_latency_table(job: Any, model_and_data: Any, folder: pathlib.Path | None = None) -> Any:
    """The job with a method that knows the latency of its widths.

    Args:
        job: a `pruning_flags.Job` with a latency target.
        model_and_data: the baseline and its data.
        folder: for the table if it is measured; an existing table of the same model, machine and settings is reused.

    Raises:
        UsageError: the table is for another model or other settings, or lacks a group that the method prunes.
        RunError: measuring failed.
    """
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite.latency.latency_table import LatencyTable, measure_latency_table

    target, method = job.latency, job.method
    fixed = tflite_files.fixed_size(model_and_data.model, model_and_data.dataset)
    if job.context is not None and fixed is job.context.model:
        graph = job.context.graph
    else:
        graph = ChannelGraph(fixed, ignore_statistics=method.ignore_statistics)
    if target.path is not None:
        path = pathlib.Path(target.path)
        table = LatencyTable.load(path, graph)
    else:
        path = folder / "latency_table.json"
        progress.say(f"measuring the layers at several widths, kept in {path}")
        table = measure_latency_table(
            graph,
            quantization=target.quantization,
            threads=target.threads,
            round_to=method.round_to,
            residual=method.offers_streams,
            timer=_timer(target),
            cache=path,
        )
    _check_table(table, path, target, method, graph)
    where = table.measurements.machine
    progress.say(
        f"the {target.quantization} baseline takes {table.baseline_ms:.3f} {target.unit} on {where}; the target is "
        f"{target.text}"
    )
    origin = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    method = _targeted(method, target, table.predict, f"latency table {origin}")
    return dataclasses.replace(job, method=method, latency=dataclasses.replace(target, table=table, graph=graph))


def measure_chosen_widths(job: Any, model_and_data: Any, folder: pathlib.Path, resume: bool) -> Any:
    """The job with a method that measures the chosen widths, if the table is from this machine.

    Args:
        job: what `bind_latency_table` returned.
        model_and_data: the baseline and its data.
        folder: of the run; it keeps the measurements.
        resume: whether to reuse the measurements of an earlier run.
    """
    from dcp_tf.tflite.latency.model_latency import ModelLatency

    table, method, timer = job.latency.table, job.method, _timer(job.latency)
    if not table.measurements.machine.startswith(_machine(job.latency)):
        progress.say(f"the widths are not measured before the selection: the table is of {table.measurements.machine}")
        return job
    cache = folder / "state" / "latency_checks.json"
    if not resume:
        cache.unlink(missing_ok=True)
    cache.parent.mkdir(exist_ok=True)
    target = dataclasses.replace(method.target, measured=ModelLatency(job.latency.graph, table, cache, timer))
    return dataclasses.replace(job, method=dataclasses.replace(method, target=target))


def _timer(target: LatencyTarget) -> Any:
    """What measures; None stands for this machine's own."""
    if target.core is None:
        return None
    from dcp_tf.tflite.arm.instructions import InstructionTimer

    return InstructionTimer(target.core)  # its process ends with this one


def _machine(target: LatencyTarget) -> str:
    """How the name of what is measured begins."""
    from dcp_tf.tflite.latency.stopwatch import machine_name

    return machine_name() if target.core is None else f"emulated Arm {target.core} "


def _targeted(method: Any, target: LatencyTarget, cost: Any, origin: str) -> Any:
    from dcp_tf.pruning import Target

    return dataclasses.replace(method, target=Target(target.measure, target.text, cost, origin))


def _check_table(table: Any, path: pathlib.Path, target: LatencyTarget, method: Any, graph: Any) -> None:
    """Raises UsageError unless the table fits the run."""
    from dcp_tf.pruning.context import choose_groups

    measurements = table.measurements
    for flag, value, required in (
        ("latency_quantization", measurements.quantization, target.quantization),
        ("threads", measurements.threads, target.threads),
    ):
        if value != required:
            raise UsageError(
                f"{path} was measured with --{flag}={value}, this run has --{flag}={required}: make them equal"
            )
    missing = [group.name for group in choose_groups(graph, method) if group.name not in measurements.groups]
    if missing:
        raise UsageError(
            f"{path} does not know {len(missing)} of the groups to prune: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; measure it again (with the same --prune_residual), or "
            "--exclude them"
        )


def judge(
    target: LatencyTarget, widths: Mapping[str, int], files: Mapping[str, dict], folder: pathlib.Path | None = None
) -> tuple[dict[str, Any], str]:
    """Whether the target was met, by the benchmark of the run.

    Latencies are compared relative to the baseline's, because milliseconds vary over time on the same machine.

    Args:
        target: with its table.
        widths: group -> kept channels.
        files: the `tflite` part of summary.json.
        folder: of these files, which an emulated core counts again.

    Returns:
        The `target_latency` part of summary.json, whose `met` is None if the measurement is inconclusive, and a line.
    """
    from dcp_tf.pruning import Target

    table = target.table
    limit = Target(target.measure, target.text, table.predict).limit(table.baseline_ms)
    predicted = table.predict(widths)
    record = {
        "asked": target.text,
        "asked_share": limit / table.baseline_ms,
        "asked_ms": limit,
        "predicted": predicted / table.baseline_ms,
        "predicted_ms": predicted,
        "quantization": target.mode,
        "machine": table.measurements.machine,
        "unit": target.unit,
    }
    names = {r["model"]: name for name, r in files.items() if r["quantization"] == target.mode}
    pruned = files.get(names.get("pruned"), {})
    if target.core is None and "speedup" in pruned:
        record |= _timed(pruned)
    if not table.measurements.machine.startswith(_machine(target)):
        verdict = f"the table is of {table.measurements.machine}, where this run measures nothing", None
    elif target.core is not None and len(names) == 2:
        record |= _counted(target, folder, names)
        is_share = target.text.strip().endswith("%")
        met = record["measured"] <= record["asked_share"] if is_share else record["measured_ms"] <= limit
        verdict = ("met", True) if met else ("missed", False)
    elif "measured" in record:
        verdict = _verdict(record, pruned["latency_ms"]["p10"])
    else:
        verdict = "not measured: the files are not there", None
    text, met = verdict
    measured = ""
    if "measured" in record:
        measured = f", measured {record['measured']:.1%} ({record['measured_ms']:.3f} {target.unit})"
    line = (
        f"target latency {target.text} of {target.mode}: predicted {record['predicted']:.1%} ({predicted:.3f} "
        f"{target.unit}){measured}: {text}"
    )
    return {"measured": None, **record, "met": met}, line


def _counted(target: LatencyTarget, folder: pathlib.Path, names: Mapping[str, str]) -> dict[str, Any]:
    """What an emulated core counts of the files of the baseline and of the pruned model."""
    from dcp_tf import tflite

    counts = tflite.count_instructions({model: folder / name for model, name in names.items()}, core=target.core).counts
    return {
        "measured": counts["pruned"] / counts["baseline"],
        "measured_ms": counts["pruned"] / 1e6,
        "instructions": counts,
    }


def _timed(pruned: Mapping[str, Any]) -> dict[str, Any]:
    """What the benchmark of the run measured of the pruned file."""
    from dcp_tf.report import table_rows

    speedup, (low, high) = table_rows.speedup_of(pruned)
    return {
        "measured": 1 / speedup,
        "measured_interval": [1 / high, 1 / low],
        "measured_ms": pruned["latency_ms"]["median"],
        "conclusive": pruned["conclusive"],
    }


def _verdict(record: Mapping[str, Any], quickest_ms: float) -> tuple[str, bool | None]:
    if not record["conclusive"]:
        return "too noisy to tell; measure the files again with the benchmark program", None
    if record["measured_interval"][0] > record["asked_share"]:
        return "missed", False
    if not record["asked"].strip().endswith("%") and quickest_ms > record["asked_ms"]:
        return f"missed, as now nine in ten runs take more than {quickest_ms:.3f} ms", False
    if record["measured"] > record["asked_share"]:
        low, high = record["measured_interval"]
        return f"too noisy to tell, as it lies in {low:.1%} to {high:.1%}", None
    return "met", True
