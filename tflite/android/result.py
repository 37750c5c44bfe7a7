"""Results of measurements on Android devices, as JSON and as tables."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf.tflite.android.device import Device, describe_cores
from dcp_tf.tflite.android.log import BenchmarkLog
from dcp_tf.tflite.latency.operation_times import OperationTime
from dcp_tf.tflite.latency.speedup import Speedup


@dataclasses.dataclass(frozen=True)
class AndroidLatency:
    """Results of one file with one delegate on one device.

    Attributes:
        repetitions: the log of each run of benchmark_model.
        ratio: speedup over the baseline, the first file that the delegate runs, from paired repetitions.
        operations: from a separate run with the profiler; empty without a profile.
        memory_peak: the largest footprint of that run (MB), or None.
    """

    repetitions: tuple[BenchmarkLog, ...]
    ratio: Speedup
    operations: tuple[OperationTime, ...] = ()
    memory_peak: float | None = None

    @property
    def applied(self) -> str | None:
        """The part of the graph that the delegate runs."""
        return self.repetitions[-1].applied

    def to_json(self, threads: int) -> dict[str, Any]:
        """All figures; times in milliseconds, memory in MB."""
        figures = ("average", "deviation", "least", "most", "p5", "median", "p95", "init", "first", "warmup")
        return {
            **{f"{name}_ms": middle(self.repetitions, name) for name in figures},
            "latency_ms": float(np.median(times(self.repetitions))),
            "threads": threads,
            "applied": self.applied,
            "memory_init_mb": middle(self.repetitions, "memory_init"),
            "memory_overall_mb": middle(self.repetitions, "memory_overall"),
            "memory_peak_mb": self.memory_peak,
            **self.ratio.to_json(),
            "too_noisy": self.ratio.too_noisy,
            "operations": [{"kind": op.kind, "name": op.name, "ms": op.ms} for op in self.operations],
            "repetitions": [
                {key: value for key, value in dataclasses.asdict(log).items() if key != "operations"}
                for log in self.repetitions
            ],
        }


def times(repetitions: tuple[BenchmarkLog, ...]) -> np.ndarray:
    """One time for each repetition (ms): the median if the tool prints it, else the mean."""
    return np.array([log.average if log.median is None else log.median for log in repetitions])


def middle(repetitions: tuple[BenchmarkLog, ...], name: str) -> float | None:
    """The median of a figure over the repetitions; None if one of them lacks it."""
    values = [getattr(log, name) for log in repetitions]
    return None if None in values else float(np.median(values))


@dataclasses.dataclass(frozen=True)
class DeviceResult:
    """Results of one device.

    Attributes:
        device: the device.
        mask: the cores that the tool was pinned to; None: all.
        temperatures: degrees Celsius at the start of each repetition; None if unknown.
        cool: whether all temperatures were within the limit.
        latencies: delegate -> file -> result.
        refused: delegate -> file -> why the delegate rejects it.
    """

    device: Device
    mask: int | None
    temperatures: tuple[float | None, ...]
    cool: bool
    latencies: dict[str, dict[str, AndroidLatency]]
    refused: dict[str, dict[str, str]]

    def to_json(self, threads: int) -> dict[str, Any]:
        """All figures of this device."""
        return {
            **dataclasses.asdict(self.device),
            "core_mask": None if self.mask is None else f"{self.mask:x}",
            "temperatures_c": list(self.temperatures),
            "cool": self.cool,
            "delegates": {
                delegate: {
                    "baseline": next(iter(files), None),
                    "candidates": {name: latency.to_json(threads) for name, latency in files.items()},
                    "refused": self.refused[delegate],
                }
                for delegate, files in self.latencies.items()
            },
        }


@dataclasses.dataclass(frozen=True)
class AndroidResult:
    """Results of all devices.

    Attributes:
        devices: those that finished.
        failures: a line for each device that failed, and for each delegate that rejected a file.
        files: the names, in the given order.
        threads: of the kernels.
        runs: inferences of each repetition, at least.
        repetitions: runs of benchmark_model for each file and delegate.
        warmup: inferences before the measured ones, at least.
        runtime: "interpreter" or "compiled"; the delegates are accelerators then.
    """

    devices: tuple[DeviceResult, ...]
    failures: tuple[str, ...]
    files: tuple[str, ...]
    threads: int
    runs: int
    repetitions: int
    warmup: int
    runtime: str

    def to_json(self) -> dict[str, Any]:
        """The content of benchmark.json."""
        return {
            "device": "android",
            "runtime": self.runtime,
            "threads": self.threads,
            "runs": self.runs,
            "repetitions": self.repetitions,
            "warmup": self.warmup,
            "interleaved": True,
            "devices": [result.to_json(self.threads) for result in self.devices],
            "failures": list(self.failures),
        }

    def tables(self) -> list:
        """A `rich.table.Table` for each device."""
        return [self._table(result) for result in self.devices]

    def _table(self, result: DeviceResult):
        from rich.table import Table

        device = result.device
        known = [value for value in result.temperatures if value is not None]
        degrees = dict.fromkeys(f"{value:.1f}" for value in (min(known, default=0.0), max(known, default=0.0)))
        warmth = f"{' to '.join(degrees)} °C" if known else "temperature unknown"
        hot = "" if result.cool or not known else ", warmer than asked for: it may have been throttled"
        table = Table(
            title=f"Latency on {device.model} ({device.soc}, Android {device.android}), batch 1, {self.threads} "
            f"thread{'s' * (self.threads > 1)}, {describe_cores(device, result.mask)}"
            + ", CompiledModel"
            * (self.runtime == "compiled"),
            caption=f"{self.repetitions} interleaved repetitions of at least {self.runs} inferences; {warmth}{hot}; "
            "speedup over the first file that the delegate runs, with its 95% interval",
        )
        table.add_column("model", overflow="fold")
        table.add_column("delegate")
        for column in ("ms", "p5", "p95", "speedup", "MB"):
            table.add_column(column, justify="right")
        for delegate in result.latencies:
            for name in self.files:
                table.add_row(name, *self._row(result, delegate, name))
        return table

    def _row(self, result: DeviceResult, delegate: str, name: str) -> list[str]:
        latency = result.latencies[delegate].get(name)
        if latency is None:
            return [delegate, "refused", "", "", "", ""]
        whole = latency.applied == "completely" or (latency.applied is None and self.runtime == "interpreter")
        p5, p95 = (middle(latency.repetitions, figure) for figure in ("p5", "p95"))
        memory = middle(latency.repetitions, "memory_overall")
        baseline = next(iter(result.latencies[delegate]))
        speedup = "1" if name == baseline else latency.ratio.text()
        return [
            delegate if whole else f"{delegate}, {latency.applied or 'how much is unknown'}",
            f"{np.median(times(latency.repetitions)):.3f}",
            "" if p5 is None else f"{p5:.3f}",
            "" if p95 is None else f"{p95:.3f}",
            speedup,
            "" if memory is None else f"{memory:.1f}",
        ]
