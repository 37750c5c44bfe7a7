"""The rows that compare baseline and pruned model, for the terminal table and for the page."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.report import formats
from dcp_tf.report.metrics import METRICS, Metric, file_metric, is_accuracy, main_metrics

KNOWN_KEYS = ("params", "macs", "nominal_macs", "flops", *METRICS, *(f"{key}_before_finetuning" for key in METRICS))


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the comparison, every cell ready to print.

    Attributes:
        label: what is compared.
        baseline: the baseline's value.
        pruned: the pruned model's value.
        change: from baseline to pruned; the speedup for a latency.
        inconclusive: the change may be noise.
    """

    label: str
    baseline: str
    pruned: str
    change: str
    inconclusive: bool = False


@dataclasses.dataclass(frozen=True)
class FilePair:
    """The TFLite files of baseline and pruned model that share a quantization; either may be missing.

    Attributes:
        label: their quantization, numbered where there are several pairs of one.
        baseline: the record of the baseline's file.
        pruned: that of the pruned model's.
        metrics: what a table shows of them; empty: the first that they have.
    """

    label: str
    baseline: Mapping[str, Any] | None
    pruned: Mapping[str, Any] | None
    metrics: tuple[Metric, ...] = ()


def checked_summary(summary: Any) -> dict:
    """Returns `summary` if a report can be made from it.

    Raises:
        UsageError: it is not an object, or one of its sections has the wrong type.
    """
    if not isinstance(summary, dict):
        raise UsageError(f"summary.json must hold an object; received {type(summary).__name__}; run the program again")
    kinds = {"baseline": dict, "pruned": dict, "tflite": dict, "settings": dict, "versions": dict, "phases": list}
    for key, kind in kinds.items():
        _check_kind(summary, key, kind)
    _check_kernels((summary.get("pruned") or {}).get("kernel_sparsity") or {})
    for entry in [*(summary.get("phases") or []), *(summary.get("tflite") or {}).values()]:
        if not isinstance(entry, dict):
            raise UsageError(f"every phase and TFLite file in summary.json must be an object; received {entry!r}")
        _check_kind(entry, "history", list)
        _check_kind(entry, "latency_ms", dict)
    return summary


def _check_kind(holder: Mapping[str, Any], key: str, kind: type) -> None:
    if holder.get(key) is not None and not isinstance(holder[key], kind):
        expected = "a list" if kind is list else "an object"
        raise UsageError(f"{key!r} in summary.json must be {expected}; received {holder[key]!r}")


def _check_kernels(layers: Any) -> None:
    valid = isinstance(layers, dict) and all(
        isinstance(layer, dict)
        and all(isinstance(layer.get(key), int) for key in ("kernels", "kept"))
        and 0 <= layer["kept"] <= layer["kernels"] != 0
        for layer in layers.values()
    )
    if not valid:
        raise UsageError(
            f"'kernel_sparsity' in summary.json must hold 'kernels' and 'kept' of each layer; received {layers!r}"
        )


def model_rows(summary: Mapping[str, Any], *, all_figures: bool = False) -> list[Row]:
    """Accuracy and cost of the two models; `all_figures` adds FLOPs and whatever else was recorded as a number."""
    baseline, pruned = summary.get("baseline") or {}, summary.get("pruned") or {}
    main = main_metrics(summary)
    rows = []
    for f in [*main, *(f for f in METRICS.values() if f not in main)]:
        rows.append(_row(f.label, baseline.get(f.key), pruned.get(f.key), f.write, f.compare))
        if formats.is_number(before := pruned.get(f"{f.key}_before_finetuning")):
            difference = f.compare(baseline.get(f.key), before)
            rows.append(Row("  before fine-tuning", formats.ABSENT, f.write(before), difference))
        intervals = [f.interval(model.get(f.key), test_images(summary)) for model in (baseline, pruned)]
        if all_figures and f in main and any(intervals):
            rows.append(Row("  95% interval", *(bounds or formats.ABSENT for bounds in intervals), ""))
    rows += [
        _row("Parameters", baseline.get("params"), pruned.get("params"), formats.count, formats.change),
        _row("MACs", baseline.get("macs"), pruned.get("macs"), formats.count, formats.change),
    ]
    if formats.is_number(nominal := pruned.get("nominal_macs")):
        before = baseline.get("nominal_macs", baseline.get("macs"))
        rows.append(_row("  without zero kernels", before, nominal, formats.count, formats.change))
    if all_figures:
        rows.append(_row("FLOPs", baseline.get("flops"), pruned.get("flops"), formats.count, formats.change))
        rows += _other_rows(baseline, pruned, [metric.key for metric in main])
    return [row for row in rows if row is not None]


def _other_rows(baseline: Mapping[str, Any], pruned: Mapping[str, Any], shown: Sequence[str]) -> list[Row | None]:
    """Rows of the metrics without a row of their own, such as a verification accuracy."""
    rows, known = [], {*KNOWN_KEYS, *shown, *(f"{key}_before_finetuning" for key in shown)}
    for key in dict.fromkeys([*baseline, *pruned]):
        if key in known:
            continue
        write, compare = (formats.percent, formats.points) if is_accuracy(key) else (formats.short, formats.change)
        label = key.replace("_", " ")
        rows.append(_row(label[:1].upper() + label[1:], baseline.get(key), pruned.get(key), write, compare))
    return rows


def _row(label: str, before: Any, after: Any, write: Callable, compare: Callable) -> Row | None:
    """A row, or None if neither model has the value."""
    if not formats.is_number(before) and not formats.is_number(after):
        return None
    return Row(label, write(before), write(after), compare(before, after))


def test_images(summary: Mapping[str, Any]) -> int | None:
    """The number of test images; None where no record says it."""
    check = summary.get("baseline_check")
    if isinstance(check, dict) and check.get("part") == "test" and isinstance(check.get("images"), int):
        return check["images"]
    samples = (record.get("samples") for record in (summary.get("tflite") or {}).values())
    return next((count for count in samples if isinstance(count, int)), None)


@dataclasses.dataclass(frozen=True)
class KernelRow:
    """How many kernels of one layer of the pruned model are not zero."""

    layer: str
    kernels: int
    kept: int

    @property
    def zeros(self) -> str:
        """The fraction that is zero."""
        return formats.percent(1 - self.kept / self.kernels)


def kernel_rows(summary: Mapping[str, Any]) -> list[KernelRow]:
    """The layers of the pruned model that have zero kernels; none unless kernels were pruned."""
    layers = (summary.get("pruned") or {}).get("kernel_sparsity") or {}
    return [KernelRow(name, layer["kernels"], layer["kept"]) for name, layer in layers.items()]


def file_pairs(summary: Mapping[str, Any]) -> list[FilePair]:
    """The TFLite files by quantization, in the order of the summary."""
    by_quantization: dict[str, dict[str, list]] = {}
    for record in (summary.get("tflite") or {}).values():
        sides = by_quantization.setdefault(str(record.get("quantization", "TFLite")), {"baseline": [], "pruned": []})
        sides["baseline" if record.get("model") == "baseline" else "pruned"].append(record)
    pairs, metrics = [], tuple(main_metrics(summary)) if summary.get("metrics") else ()
    for quantization, sides in by_quantization.items():
        matched = itertools.zip_longest(sides["baseline"], sides["pruned"])
        for number, (baseline, pruned) in enumerate(matched, start=1):
            label = quantization if number == 1 else f"{quantization} ({number})"
            pairs.append(FilePair(label, baseline, pruned, metrics))
    return pairs


def file_rows(pair: FilePair) -> list[Row]:
    """Size, accuracy and latency of two TFLite files of one quantization."""
    baseline, pruned = pair.baseline or {}, pair.pruned or {}
    rows = [_row(f"{pair.label} size", baseline.get("bytes"), pruned.get("bytes"), formats.size, formats.change)]
    for f in pair.metrics or [file_metric(pruned or baseline)]:
        label = f"{pair.label} {f.label if f.label != 'Top-1' else 'top-1'}"
        rows.append(_row(label, baseline.get(f.key), pruned.get(f.key), f.write, f.compare))
    times = formats.latency(baseline.get("latency_ms")), formats.latency(pruned.get("latency_ms"))
    if times != (formats.ABSENT, formats.ABSENT):
        inconclusive = is_inconclusive(pruned)
        value, _ = speedup_of(pruned)
        mark = " (?)" if inconclusive else " (q)" if is_of_quietest(pruned) else ""
        speedup = formats.ratio(value) + mark
        rows.append(Row(f"{pair.label} latency", *times, speedup, inconclusive))
    return [row for row in rows if row is not None]


def speedup_of(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """The speedup of a TFLite file and its interval."""
    key = "speedup_quiet" if is_of_quietest(record) else "speedup"
    return record.get(key), record.get(f"{key}_interval")


def is_of_quietest(record: Mapping[str, Any]) -> bool:
    """Whether the speedup is taken from the quietest runs, because the medians are too noisy."""
    return record.get("speedup_by") == "quietest runs" and formats.is_number(record.get("speedup_quiet"))


def is_inconclusive(record: Mapping[str, Any]) -> bool:
    """Whether the speedup of a TFLite file was measured but may be noise: shown as a gain only if `conclusive`."""
    return formats.is_number(record.get("speedup")) and not record.get("conclusive", False)
