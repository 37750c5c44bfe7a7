"""Latency of TFLite files against each other, on this machine.

Runs are interleaved (A B C, B C A, C A B, ...), so that a change of the machine's speed meets all of them, and
each in a process of its own, so that none profits from the memory and caches of another.
"""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import ACCELERATORS, RUNTIMES, Timing
from dcp_tf.text_table import ShownAsTables, print_tables
from dcp_tf.text_table import Table as TextTable
from dcp_tf.tflite.latency.operation_times import OperationTime, time_operations
from dcp_tf.tflite.latency.speedup import Speedup, compare
from dcp_tf.tflite.latency.stopwatch import Stopwatch, check_cpus, machine_name, measure_interleaved
from dcp_tf.tflite.types import Latency, TFLiteFile, read_content

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_RUNS = 10  # fewer paired runs are inconclusive


@dataclasses.dataclass(frozen=True)
class BenchmarkResult(ShownAsTables):
    """Measured latencies and memory, and the conditions of the measurement.

    Attributes:
        latencies: per candidate, in the given order.
        ratios: per candidate, the speedup over the first one, and whether it is conclusive.
        memory: per candidate the peak memory of its process, and the part of it that the model takes (MiB); None if the
            system does not report it.
        operations: per candidate the times of its operations; None without a profile.
        threads: threads of the kernels.
        cpus: the processors that the processes were pinned to; empty: all.
        warmup: inferences of each candidate before the first measured one.
        seed: of the inputs and the bootstrap.
        machine: processor and system.
        runtime: "interpreter" or "compiled".
        accelerator: what CompiledModel runs on.
        differences: per candidate the largest difference of an output of CompiledModel to the Interpreter's on the same
            noise, relative to the largest output; None for the Interpreter.
    """

    latencies: dict[str, Latency]
    ratios: dict[str, Speedup]
    memory: dict[str, tuple[float, float] | None]
    operations: dict[str, list[OperationTime]] | None
    threads: int
    cpus: tuple[int, ...]
    warmup: int
    seed: int
    machine: str
    runtime: str
    accelerator: str
    differences: dict[str, float] | None

    def to_json(self) -> dict[str, Any]:
        """The content of benchmark.json."""
        return {
            "device": self.machine,
            "threads": self.threads,
            "cpus": list(self.cpus) or None,
            "warmup": self.warmup,
            "seed": self.seed,
            "runtime": self.runtime,
            "accelerator": self.accelerator,
            "interleaved": True,
            "baseline": next(iter(self.latencies)),
            "candidates": {name: self._candidate(name) for name in self.latencies},
        }

    def _candidate(self, name: str) -> dict[str, Any]:
        figures = dataclasses.asdict(self.latencies[name]) | {"too_noisy": self.ratios[name].too_noisy}
        peak, model = self.memory[name] or (None, None)
        figures |= {"peak_memory_mib": peak, "model_memory_mib": model}
        if self.differences is not None:
            figures["difference_to_interpreter"] = self.differences[name]
        if self.operations is not None:
            figures["operations"] = [dataclasses.asdict(operation) for operation in self.operations[name]]
        return figures

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints median and percentiles, and the speedup over the first with its 95% interval."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[TextTable]:
        first = next(iter(self.latencies))
        rows = [
            (name, x.median_ms, x.p10_ms, x.p90_ms, "1" if name == first else self.ratios[name].text())
            for name, x in self.latencies.items()
        ]
        title = f"latency on {self.machine}, batch 1, {self.threads} thread{'s' * (self.threads > 1)}"
        longest = max(x.median_ms for x in self.latencies.values())
        bars = [x.median_ms / longest for x in self.latencies.values()]
        return [TextTable(title, ("model", "median ms", "p10", "p90", "speedup"), rows, (), bars)]

    def plot(self) -> "Figure":
        """The median latency of each candidate with its 10th and 90th percentile, as a matplotlib figure."""
        from dcp_tf import drawing

        return drawing.latency_figure({n: (x.median_ms, x.p10_ms, x.p90_ms) for n, x in self.latencies.items()})

    def table(self):
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table

        first = next(iter(self.latencies))
        pinned = f", pinned to processor {', '.join(map(str, self.cpus))}" if self.cpus else ""
        caption = (
            f"{self.machine}; {self.latencies[first].runs} interleaved runs after {self.warmup} warm-up inferences; "
            f"speedup over {first!r} with its 95% interval; MiB: peak memory of the process (and the "
            "part that the model takes)"
        )
        if any(ratio.by_quietest for ratio in self.ratios.values()):
            caption += "; quietest runs: the medians are too noisy"
        if any(ratio.too_noisy and not ratio.by_quietest for ratio in self.ratios.values()):
            caption += "; too noisy: measure again when the machine is idle"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        runtime = ""
        if self.differences is not None:
            runtime = f", CompiledModel on the {self.accelerator.upper()}"
            names = {latency.delegate.partition(": ")[2] for latency in self.latencies.values()}
            caption += "".join(f"; {name}" for name in sorted(names - {""}))
            caption += "; differs: the outputs from the Interpreter's on the same noise, relative to the largest output"
        table = Table(title=f"Latency, batch 1, {threads}{pinned}{runtime}", caption=caption)
        table.add_column("model", overflow="fold")
        for column in ("median ms", "p10", "p90", "speedup", "MiB"):
            table.add_column(column, justify="right")
        table.add_column("delegate")
        if self.differences is not None:
            table.add_column("differs", justify="right")
        for name, latency in self.latencies.items():
            times = (f"{value:.3f}" for value in (latency.median_ms, latency.p10_ms, latency.p90_ms))
            ratio = "1" if name == first else self.ratios[name].text()
            memory = "unknown" if self.memory[name] is None else "{:.0f} (+{:.1f})".format(*self.memory[name])
            table.add_row(
                name, *times, ratio, memory, (latency.delegate or "none").partition(":")[0], *self._difference(name)
            )
        return table

    def _difference(self, name: str) -> list[str]:
        return [] if self.differences is None else [f"{self.differences[name]:.1g}"]


def benchmark(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike],
    *,
    threads: int = Timing.threads,
    runs: int = Timing.runs,
    warmup: int = Timing.warmup,
    seed: int = 0,
    cpus: Sequence[int] = (),
    profile: bool = False,
    runtime: str = Timing.runtime,
    accelerator: str = Timing.accelerators[0],
) -> BenchmarkResult:
    """Measures files against each other.

    Args:
        candidates: name -> converted model or path of a .tflite file. The others are compared with the first.
        threads: threads of the kernels.
        runs: measured samples of each candidate; a sample of a very small model is the mean of several inferences.
        warmup: inferences of each candidate that are not measured.
        seed: of the inputs' noise and of the bootstrap.
        cpus: processors to pin the measuring processes to; empty: all.
        profile: whether to measure the time of every operation too.
        runtime: "interpreter", or "compiled" for LiteRT's CompiledModel, whose outputs are compared with the
            Interpreter's.
        accelerator: what CompiledModel runs on: "cpu" or "gpu". It never falls back from one to the other.

    Raises:
        UsageError: a number is out of range, a file is missing or not a TFLite model, or a processor or an accelerator
            cannot be used.
        RunError: a measuring process died.
    """
    for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}. Received: {value}")
    if not candidates:
        raise UsageError("there is nothing to measure; give at least one file")
    check_runtime(runtime, accelerator)
    compiled = accelerator if runtime == "compiled" else None
    cpus = tuple(cpus)
    check_cpus(cpus, threads)
    names = list(candidates)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dcp_tf-benchmark-"))
        paths = [
            _placed(source, pathlib.Path(folder, f"{number}.tflite"))
            for number, source in enumerate(candidates.values())
        ]
        stopwatches = [stack.enter_context(Stopwatch(threads, seed, cpus, compiled)) for _ in names]
        delegates = [watch.load(*place) for watch, *place in zip(stopwatches, names, paths, strict=True)]
        differences = _differences(stopwatches, names, paths, seed) if compiled else None
        repeats = [watch.settle(name, warmup) for watch, name in zip(stopwatches, names, strict=True)]
        times = measure_interleaved(stopwatches, names, repeats, runs, what="Benchmark")
        memory = [_model_share(watch.memory()) for watch in stopwatches]
    random = np.random.default_rng(seed)
    ratios = [compare(times[0], row, MIN_RUNS, random) for row in times]
    latencies = [_latency(*measured) for measured in zip(times, ratios, repeats, delegates, strict=True)]
    # The baseline itself: there is nothing to decide.
    latencies[0] = dataclasses.replace(latencies[0], conclusive=True)
    return BenchmarkResult(
        latencies=dict(zip(names, latencies, strict=True)),
        ratios=dict(zip(names, ratios, strict=True)),
        memory=dict(zip(names, memory, strict=True)),
        operations=_profile(candidates, threads, cpus, seed, compiled) if profile else None,
        threads=threads,
        cpus=cpus,
        warmup=warmup,
        seed=seed,
        machine=machine_name(),
        runtime=runtime,
        accelerator=accelerator,
        differences=differences,
    )


def check_runtime(runtime: str, accelerator: str) -> None:
    """Raises UsageError where this machine has no such runtime or accelerator."""
    for name, value, known in (("runtime", runtime, RUNTIMES), ("accelerator", accelerator, ACCELERATORS)):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}. Received: {value!r}", name)
    if runtime == "interpreter" and accelerator != "cpu":
        raise UsageError(f"the Interpreter runs on the CPU here: accelerator={accelerator} is for runtime=compiled")
    if accelerator == "npu":
        raise UsageError("accelerator=npu is measured on phones only: device=android", "accelerator")


def _differences(
    stopwatches: Sequence[Stopwatch], names: Sequence[str], paths: Sequence[pathlib.Path], seed: int
) -> dict[str, float]:
    """Largest difference of the outputs to the Interpreter's, relative to the largest output, by file."""
    differences = {}
    with Stopwatch(1, seed) as reference:
        for stopwatch, name, path in zip(stopwatches, names, paths, strict=True):
            reference.load(name, path)
            pairs = list(zip(stopwatch.outputs(name), reference.outputs(name), strict=True))
            reference.unload(name)
            largest = max(float(np.abs(theirs.astype(float)).max(initial=0.0)) for _, theirs in pairs) or 1.0
            differences[name] = max(
                float(np.abs(ours.astype(float) - theirs).max(initial=0.0)) / largest for ours, theirs in pairs
            )
    return differences


def _profile(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike],
    threads: int,
    cpus: tuple[int, ...],
    seed: int,
    compiled: str | None,
) -> dict[str, list[OperationTime]]:
    return {
        name: time_operations(
            read_content(source), threads=threads, cpus=cpus, seed=seed, what=f"Profile of {name}", compiled=compiled
        )
        for name, source in candidates.items()
    }


def _placed(source: TFLiteFile | str | os.PathLike, spare: pathlib.Path) -> pathlib.Path:
    """A file with the source's content: its own, or `spare` for a model that is only in memory."""
    content = read_content(source)
    if not isinstance(source, TFLiteFile):
        return pathlib.Path(source).resolve()
    spare.write_bytes(content)
    return spare


def _model_share(memory: tuple[float, float] | None) -> tuple[float, float] | None:
    """(peak, without a model) as (peak, what came with the model)."""
    return None if memory is None else (memory[0], memory[0] - memory[1])


def _latency(times: np.ndarray, ratio: Speedup, repeats: int, delegate: str | None) -> Latency:
    p10, median, p90 = (float(value) for value in np.percentile(times, (10, 50, 90)))
    return Latency(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        runs=len(times),
        invocations_per_run=repeats,
        delegate=delegate,
        **ratio.to_json(),
    )
