"""Parses the output of TFLite's benchmark_model.

The relevant lines, as the tool has printed them since 2020 (with or without "INFO: " before them):

    count=50 first=14941 curr=14066 min=13728 max=16145 avg=14290.9 std=452 p5=13800 median=14250 p95=15100
    Inference timings in us: Init: 52687, First inference: 19105, Warmup (avg): 14452.5, Inference (avg): 14290.9
    Memory footprint delta from the start of the tool (MB): init=21.9492 overall=34.5234
    Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.

LiteRT's tool for CompiledModel has lines such as "Inference (avg): 14.29 ms (70 runs)" in place of the last three.

Percentiles are only printed since 2025. The profile has a table for each part of the graph; its [avg ms] is the mean of
one call, so an operation takes [avg ms] times [times called].
"""

import dataclasses
import math
import re

from dcp_tf.errors import RunError
from dcp_tf.tflite.latency.operation_times import OperationTime

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_STATISTICS = re.compile(rf"(\w+)={_NUMBER}")
_IN_MS = {
    name: re.compile(rf"{re.escape(name)}: +{_NUMBER} ms")
    for name in ("Model initialization", "Warmup (first)", "Warmup (avg)", "Inference (avg)")
}
_IN_MB = {
    name: re.compile(rf"{name}: +{_NUMBER} MB") for name in ("Init footprint", "Overall footprint", "Peak memory")
}
_MEMORY = re.compile(rf"emory footprint.*\(MB\): init={_NUMBER} overall={_NUMBER}")
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}")
_APPLIED = re.compile(
    r"Explicitly applied (\w+) delegate, and the model graph will be (completely|partially) executed by the delegate"
    r"(?: w/ (\d+) delegate kernels)?"
)
_NOT_EXECUTED = re.compile(r"Though (\w+) delegate is explicitly applied, the model graph will not be executed")
_UNSUPPORTED = re.compile(r"(\w+) acceleration is unsupported on this platform")
_FAILED = re.compile(r"Failed to apply (\w+) delegate")
_UNKNOWN_FLAGS = re.compile(r"Unconsumed cmdline flags: (.*)")
_PROFILE = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_TITLE = re.compile(r"=+ (.+?) =+$")
# node type, [start] (not in newer tools), first, avg ms, %, cdf%, mem KB, times called, name
_ROW = re.compile(
    r"^\s*(\S.*?)\s+(?:\d+\.\d{3}\s+){1,2}(\d+\.\d{3})\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+(\d+)\s+(\S.*?)\s*$", re.ASCII
)
_DELEGATE_NODE = re.compile(r"TfLite\w*Delegate(V2)?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class BenchmarkLog:
    """Measurements of one run of benchmark_model; times in milliseconds, memory in MB as the tool counts it.

    Attributes:
        count: number of inferences.
        average: mean of the inferences.
        deviation: standard deviation; None for a single inference.
        least: the fastest inference.
        most: the slowest inference.
        p5: fifth percentile; None in the output of older tools.
        median: likewise.
        p95: likewise.
        init: time to load the model and apply the delegate.
        first: the first inference.
        warmup: mean of the warm-up.
        memory_init: growth of the process during loading; None if unknown.
        memory_overall: growth until the end.
        memory_peak: peak footprint; None without a profile.
        applied: the part of the graph that the delegate runs: "completely", "partially (3 parts)" or "not applied";
            None if unknown.
        operations: of the profile, empty without one.
    """

    count: int
    average: float
    deviation: float | None
    least: float
    most: float
    p5: float | None
    median: float | None
    p95: float | None
    init: float
    first: float
    warmup: float
    memory_init: float | None
    memory_overall: float | None
    memory_peak: float | None
    applied: str | None
    operations: tuple[OperationTime, ...]


def refusal(text: str) -> str | None:
    """The reason why a requested delegate does not run the model, or None."""
    errors = [line for line in _lines(text, "ERROR") if not _FAILED.search(line)]
    if match := _UNSUPPORTED.search(text):
        return f"{match[1]} acceleration is not supported by this device or this benchmark_model"
    if match := _FAILED.search(text):
        return f"the {match[1]} delegate cannot be applied" + (f": {errors[0]}" if errors else "")
    if match := _NOT_EXECUTED.search(text):
        return f"the {match[1]} delegate runs no part of the graph: all of it would run on the CPU"
    return None


def unknown_flags(text: str) -> str | None:
    """The flags that the tool rejected, or None."""
    match = _UNKNOWN_FLAGS.search(text)
    return match[1].strip() if match else None


def complaint(text: str) -> str:
    """The most informative line about a failure of the tool."""
    errors = [line for line in _lines(text, "ERROR") if line]
    others = [line.strip() for line in text.splitlines() if line.strip()]
    return (errors or others or ["it printed nothing"])[-1][:300]


def parse(text: str) -> BenchmarkLog:
    """Parses the log of a successful run.

    Raises:
        RunError: the log lacks the final lines of benchmark_model, or an inference took no time.
    """
    (init, first, warmup, average), printed = _timings(text)
    measured = [line for line in _lines(text[: text.index(printed)]) if line.startswith("count=")]
    figures = _STATISTICS.findall(measured[-1]) if measured else []
    statistics = {name: _number(value, measured[-1]) for name, value in figures}
    for time, line in ((average, printed), (statistics.get("median", average), measured[-1] if measured else "")):
        if not time:
            raise RunError(
                f"benchmark_model measured an inference of 0 us, too short for its clock, in the line {line!r}: "
                "measure a larger model"
            )
    memory_init, memory_overall, memory_peak = _memory(text)
    least, most = _ms(statistics, "min", "curr"), _ms(statistics, "max", "curr")
    return BenchmarkLog(
        count=round(statistics.get("count", 1)),
        average=average,
        deviation=_ms(statistics, "std"),
        least=average if least is None else least,
        most=average if most is None else most,
        p5=_ms(statistics, "p5"),
        median=_ms(statistics, "median"),
        p95=_ms(statistics, "p95"),
        init=init,
        first=first,
        warmup=warmup,
        memory_init=memory_init,
        memory_overall=memory_overall,
        memory_peak=memory_peak,
        applied=_share(text),
        operations=tuple(_operations(text)),
    )


def _timings(text: str) -> tuple[list[float], str]:
    """Initialization, first inference, mean of the warm-up and of the inferences (ms), and what was printed last."""
    if match := _TIMINGS.search(text):
        return [_number(value, match[0]) / 1000 for value in match.groups()], match[0]
    matches = [pattern.search(text) for pattern in _IN_MS.values()]
    if None in matches:
        raise RunError(f"benchmark_model printed no inference timings: {complaint(text)}")
    return [_number(match[1], match[0]) for match in matches], matches[-1][0]


def _memory(text: str) -> list[float | None]:
    """How much the process grew during loading and until the end, and its peak (MB)."""
    if match := _MEMORY.search(text):
        peak = _PEAK.search(text)
        grown = [_number(value, match[0]) for value in match.groups()]
        return [*grown, _number(peak[1], peak[0]) if peak else None]
    matches = [pattern.search(text) for pattern in _IN_MB.values()]
    return [_number(match[1], match[0]) if match else None for match in matches]


def _lines(text: str, severity: str | None = None) -> list[str]:
    """Lines without their severity prefix; with `severity` only those lines."""
    pattern = re.compile(rf"^(?:({severity or 'INFO|WARN|WARNING|ERROR|VERBOSE'}): )?(.*)$")
    matches = [pattern.match(line.strip()) for line in text.splitlines()]
    return [match[2].strip() for match in matches if severity is None or match[1]]


def _number(text: str, line: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RunError(
            f"benchmark_model printed {text!r} instead of a number, in the line {line!r}: run again, or take "
            "another build of it (docs/guides/android.md)"
        )
    return value


def _ms(statistics: dict[str, float], *names: str) -> float | None:
    return next((statistics[name] / 1000 for name in names if name in statistics), None)


def _share(text: str) -> str | None:
    applied = _APPLIED.search(text)
    if applied is None:
        return "not applied" if _NOT_EXECUTED.search(text) else None
    if applied[2] == "completely":
        return "completely"
    return f"partially ({applied[3]} part{'s' * (applied[3] != '1')})"


def _operations(text: str) -> list[OperationTime]:
    """The rows of all "Run Order" tables; the table of a delegate's operations replaces the delegate's row."""
    _, separator, profile = text.partition(_PROFILE)
    if not separator:
        return []
    title, inside, rows = None, False, []
    for line in profile.splitlines():
        if heading := _TITLE.search(line.strip()):
            title = heading[1]
        elif "Delegate internal:" in line:
            inside = True
        elif title == "Run Order" and (row := _ROW.match(line)):
            kind, milliseconds, calls, name = row.groups()
            rows.append((inside, OperationTime(kind, name, float(milliseconds) * max(int(calls), 1))))
    has_inside = any(part for part, _ in rows)
    return [op for part, op in rows if part or not (has_inside and _DELEGATE_NODE.match(op.kind))]
