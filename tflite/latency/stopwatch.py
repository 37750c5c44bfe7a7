"""Times TFLite files on this machine, each in its own process."""

import contextlib
import math
import os
import pathlib
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

import dcp_tf
from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.tflite.latency.line_process import LineProcess

SAMPLE_MS = 5.0  # shortest sample: timer and scheduler are too coarse for shorter ones


class Stopwatch(LineProcess):
    """A process that loads files and times them; worker.py describes the protocol.

    Args:
        threads: threads of the kernels.
        seed: of the inputs.
        cpus: the processors that it may run on; empty: all.
        compiled: the accelerator of CompiledModel that runs the files, "cpu" or "gpu"; None: the Interpreter.

    Raises:
        RunError: (any method) the process died.
    """

    def __init__(self, threads: int, seed: int = 0, cpus: Sequence[int] = (), compiled: str | None = None):
        self._compiled = compiled
        # The package's parent folder is the working directory, which Python searches first. This works in a checkout
        # and when installed, and files in the user's folder cannot shadow modules.
        root = pathlib.Path(dcp_tf.__file__).resolve().parent.parent
        paths = [str(root), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        arguments = [str(threads), str(seed), *([",".join(map(str, cpus))] if cpus else [])]
        command = [sys.executable, "-m", "dcp_tf.tflite.latency.worker", *arguments]
        super().__init__("the process measuring", command, environment, root)

    def load(self, name: str, path: pathlib.Path) -> str | None:
        """Loads a file; returns the delegate that runs it, or None for the built-in kernels.

        Raises:
            UsageError: the file cannot be run.
        """
        answer = self._ask(name, {"load": name, "path": str(path), "compiled": self._compiled})
        if "error" in answer:
            where = f"with accelerator={self._compiled} here" if self._compiled else "as a TFLite model"
            raise UsageError(f"{name!r} cannot be run {where}: {answer['error']}")
        return f"GPU: {adapter(self.errors())}" if answer["delegate"] == "GPU" else answer["delegate"]

    def outputs(self, name: str) -> list[np.ndarray]:
        """The outputs of one inference of a loaded file, in the order of the tensors in the file."""
        with tempfile.TemporaryDirectory(prefix="dcp_tf-outputs-") as folder:
            path = pathlib.Path(folder, "outputs.npz")
            self._ask(name, {"outputs": name, "path": str(path)})
            with np.load(path) as arrays:
                return [arrays[key] for key in arrays]

    def measure(self, name: str, invocations: int) -> float:
        """Mean milliseconds of one inference."""
        return self._ask(name, {"measure": name, "invocations": invocations})["ms"]

    def settle(self, name: str, warmup: int, sample_ms: float = SAMPLE_MS) -> int:
        """Warms a file up; returns the number of inferences that make a sample long enough."""
        if warmup:
            self.measure(name, warmup)
        invocations = 1
        # The minimum of three: an interruption must not pass for a long inference.
        while (elapsed := min(self.measure(name, invocations) for _ in range(3)) * invocations) < sample_ms:
            growth = min(10.0, 1.2 * sample_ms / max(elapsed, 1e-6))
            invocations = max(invocations + 1, math.ceil(invocations * growth))
        return invocations

    def memory(self) -> tuple[float, float] | None:
        """Peak memory of the process, and its memory without a model (MiB); None if unknown."""
        answer = self._ask("a model", {"memory": True})
        return None if answer["peak_mib"] is None else (answer["peak_mib"], answer["idle_mib"])


def adapter(log: str) -> str:
    """The GPU that LiteRT's log names, and whether it is software, which runs on the CPU."""
    match = re.search(r"Selected adapter: (.+?), arch=.*adapterType=(\w+)", log)
    if match is None:
        return "unnamed"
    return f"{match[1]}, software: it runs on the CPU" if match[2] == "CPU" else match[1]


def interleaved(candidates: Sequence[Any], run: int) -> list[Any]:
    """The order of one run of several: A B C, B C A, C A B, ..., so that a drift of the clock speed meets them all."""
    start = run % len(candidates)
    return [*candidates[start:], *candidates[:start]]


def measure_interleaved(
    stopwatches: Sequence[Stopwatch], names: Sequence[str], repeats: Sequence[int], runs: int, what: str | None = None
) -> np.ndarray:
    """Measures files so that a change of the machine's speed meets all of them: A B C, B C A, C A B, ...

    Args:
        stopwatches: the process of each file (files may share one).
        names: the name of each file in its process.
        repeats: inferences per sample of each file.
        runs: samples of each file.
        what: the progress bar's name; None: no bar.

    Returns:
        Milliseconds of one inference, shape (file, run).
    """
    times = np.empty((len(names), runs))
    for run in progress.bar(range(runs), what=what, unit=" runs") if what else range(runs):
        for number in interleaved(range(len(names)), run):
            times[number, run] = stopwatches[number].measure(names[number], repeats[number])
    return times


def check_cpus(cpus: Sequence[int], threads: int) -> None:
    """Raises UsageError where a process cannot be pinned to these processors."""
    if not cpus:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(f"{platform.system()} cannot pin a process to processors; leave out cpus", "cpus")
    allowed = sorted(os.sched_getaffinity(0))
    if missing := sorted(set(cpus) - set(allowed)):
        raise UsageError(f"processor {missing[0]} is not among those that can be used here: {_ranges(allowed)}")
    if len(set(cpus)) < threads:
        raise UsageError(f"{threads} threads need as many processors. Received: {','.join(map(str, cpus))}")


def machine_name() -> str:
    """Such as "AMD EPYC, 2 cores, Linux x86_64"; platform.processor() is empty on most Linux systems."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as "0-2, 5"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
