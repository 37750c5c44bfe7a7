"""Latency of TFLite files against each other, on this machine.

Files are measured in turns (A B C, B C A, C A B, ...), so that a change of the machine's speed meets all of them, and
each in a process of its own, so that none profits from the memory and caches of another.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import dcp_tf
from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.types import Latency, TFLiteFile, read_content

SAMPLE_MS = 5.0  # a sample lasts at least this long: a timer and a scheduler are too coarse for less
RESAMPLES = 2000  # of the bootstrap
MIN_RUNS = 10  # fewer paired runs say nothing about a ratio
MAX_INTERVAL = 0.25  # a 95 % interval wider than this fraction of its ratio says nothing either


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """What was measured, and how.

    Attributes:
        latencies: per candidate, in the order given; ratios are to the first.
        threads: threads of the kernels.
        warmup: inferences of each candidate before the first measured one.
        seed: of the inputs and the bootstrap.
        machine: processor and system that it ran on.
    """

    latencies: dict[str, Latency]
    threads: int
    warmup: int
    seed: int
    machine: str

    def to_json(self) -> dict[str, Any]:
        """The content of benchmark.json."""
        return {
            "device": self.machine,
            "threads": self.threads,
            "warmup": self.warmup,
            "seed": self.seed,
            "interleaved": True,
            "baseline": next(iter(self.latencies)),
            "candidates": {name: dataclasses.asdict(latency) for name, latency in self.latencies.items()},
        }

    def table(self):
        """A `rich.table.Table` for the terminal."""
        from rich.table import Table

        first = next(iter(self.latencies.values()))
        table = Table(
            title=f"Latency, batch 1, {self.threads} thread{'s' * (self.threads > 1)}",
            caption=f"{self.machine}; {first.runs} interleaved runs after {self.warmup} warm-up inferences; "
            f"speedup over {next(iter(self.latencies))!r} with its 95 % interval",
        )
        for column in ("model", "median ms", "p10", "p90", "speedup", "delegate"):
            table.add_column(column, justify="left" if column in ("model", "delegate") else "right")
        for name, latency in self.latencies.items():
            times = (f"{value:.3f}" for value in (latency.median_ms, latency.p10_ms, latency.p90_ms))
            table.add_row(name, *times, _ratio_text(latency, latency is first), latency.delegate or "none")
        return table


def benchmark(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike],
    *,
    threads: int = 1,
    runs: int = 50,
    warmup: int = 10,
    seed: int = 0,
) -> BenchmarkResult:
    """Measures files against each other.

    Args:
        candidates: name -> converted model or path of a .tflite file. The first is what the others are compared with.
        threads: threads of the kernels.
        runs: measured samples of each candidate; a sample of a very small model is the mean of several inferences.
        warmup: inferences of each candidate that are not measured.
        seed: of the inputs' noise and of the bootstrap.

    Raises:
        UsageError: a number is out of range, a file is missing, or it holds no TFLite model.
        RunError: a measuring process died.
    """
    for name, value, least in (("threads", threads, 1), ("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}. Received: {value}")
    if not candidates:
        raise UsageError("there is nothing to measure; give at least one file")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dcp_tf-benchmark-"))
        paths = {
            name: _placed(source, pathlib.Path(folder, f"{number}.tflite"))
            for number, (name, source) in enumerate(candidates.items())
        }
        workers = [stack.enter_context(_Worker(name, path, threads, seed)) for name, path in paths.items()]
        repeats = [_settle(worker, warmup) for worker in workers]
        times = list(_measure_in_turns(workers, repeats, runs))
    random = np.random.default_rng(seed)
    return BenchmarkResult(
        latencies={
            worker.name: _summarize(times[0], row, repeat, worker.delegate, random)
            for worker, row, repeat in zip(workers, times, repeats, strict=True)
        },
        threads=threads,
        warmup=warmup,
        seed=seed,
        machine=_machine(),
    )


def _placed(source: TFLiteFile | str | os.PathLike, spare: pathlib.Path) -> pathlib.Path:
    """A file with the source's content: its own, or `spare` for a model that is only in memory."""
    content = read_content(source)
    if not isinstance(source, TFLiteFile):
        return pathlib.Path(source).resolve()
    spare.write_bytes(content)
    return spare


def _settle(worker: "_Worker", warmup: int) -> int:
    """Warms a candidate up; returns how many inferences in a row make a sample long enough."""
    if warmup:
        worker.measure(warmup)
    invocations = 1
    # The least of three: one that was interrupted must not pass for a long inference.
    while (elapsed := min(worker.measure(invocations) for _ in range(3)) * invocations) < SAMPLE_MS:
        growth = min(10.0, 1.2 * SAMPLE_MS / max(elapsed, 1e-6))
        invocations = max(invocations + 1, math.ceil(invocations * growth))
    return invocations


def _measure_in_turns(workers: Sequence["_Worker"], repeats: Sequence[int], runs: int) -> np.ndarray:
    """Milliseconds (candidate, run); every run measures all candidates, each time starting with the next one."""
    times = np.empty((len(workers), runs))
    for run in progress.bar(range(runs), what="Benchmark", unit=" runs"):
        for turn in range(len(workers)):
            number = (run + turn) % len(workers)
            times[number, run] = workers[number].measure(repeats[number])
    return times


def _summarize(
    baseline: np.ndarray, times: np.ndarray, repeats: int, delegate: str | None, random: np.random.Generator
) -> Latency:
    """Percentiles of a candidate's times, and its ratio to the baseline (which may be the candidate itself)."""
    ratios = baseline / times
    speedup = float(np.median(ratios))
    resampled = np.median(ratios[random.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    low, high = (float(value) for value in np.percentile(resampled, (2.5, 97.5)))
    decided = (low > 1 or high < 1) and high - low <= MAX_INTERVAL * speedup and len(times) >= MIN_RUNS
    p10, median, p90 = (float(value) for value in np.percentile(times, (10, 50, 90)))
    return Latency(
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        runs=len(times),
        invocations_per_run=repeats,
        delegate=delegate,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        conclusive=times is baseline or decided,
    )


def _ratio_text(latency: Latency, first: bool) -> str:
    if first:
        return "1"
    interval = f"{latency.speedup:.2f} ({latency.speedup_low:.2f} to {latency.speedup_high:.2f})"
    return interval if latency.conclusive else f"{interval}, not conclusive"


def _machine() -> str:
    """Such as "AMD EPYC, 2 cores, Linux x86_64"; platform.processor() is empty on most Linux systems."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


class _Worker(contextlib.AbstractContextManager):
    """A process that holds one candidate; see worker.py for what passes through the pipes."""

    def __init__(self, name: str, path: pathlib.Path, threads: int, seed: int):
        self.name = name
        # The folder that holds the package is the working directory, where Python looks first: this works in a
        # checkout and when installed, and nothing that lies in the user's own folder can get in the way.
        root = pathlib.Path(dcp_tf.__file__).resolve().parent.parent
        places = [str(root), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dcp_tf.tflite.worker", str(path), str(threads), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=root,
            env=environment,
        )
        try:
            hello = self._read()
            if "error" in hello:
                raise UsageError(f"{name!r} cannot be run as a TFLite model: {hello['error']}")
        except BaseException:
            self.__exit__()
            raise
        self.delegate: str | None = hello["delegate"]

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def measure(self, invocations: int) -> float:
        """Mean milliseconds of one inference."""
        with contextlib.suppress(BrokenPipeError):  # a dead process gives no answer: _read says so
            self._process.stdin.write(f"{invocations}\n")
            self._process.stdin.flush()
        return self._read()["ms"]

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()[-1:]
            raise RunError(
                f"the process measuring {self.name!r} died (exit code {self._process.wait()})"
                + (f": {said[0]}" if said else "")
            )
        return json.loads(line)
