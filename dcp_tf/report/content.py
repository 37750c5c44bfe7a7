"""The content of the page: bar lists and tables, from the records of a run."""

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.report import formats, table_rows
from dcp_tf.report.metrics import EMBEDDING_METRICS, file_metric, is_accuracy, main_metrics
from dcp_tf.report.run_files import epochs

_CHANCE_AT = 0.8  # of the length of a bar


@dataclasses.dataclass(frozen=True)
class Bar:
    """One line of a bar list.

    Attributes:
        label: what is measured.
        fraction: length of the bar, 0 to 1.
        text: the value.
        kind: "baseline" or "pruned"; sets the color.
        mark: position of a line across the bar, 0 to 1; None: no line.
    """

    label: str
    fraction: float
    text: str
    kind: str = "pruned"
    mark: float | None = None


def baseline_warning(summary: Mapping[str, Any]) -> list[str]:
    """Why the baseline looked wrong, and the likely cause; empty if it did not."""
    check = summary.get("baseline_check")
    lines = check.get("warning") if isinstance(check, dict) else None
    return [str(line).strip() for line in lines] if isinstance(lines, list) else []


def _nearness(record: Mapping[str, Any]) -> dict[str, str]:
    """How alike a file and its Keras model are: by decisions, of embeddings by cosines, of numbers by the SNR."""
    if file_metric(record).key in EMBEDDING_METRICS and formats.is_number(record.get("cosine_mean")):
        return {"Mean cosine": f"{record['cosine_mean']:.4f}", "Least cosine": f"{record['cosine_min']:.4f}"}
    if record.get("top1_agreement") is None and "snr_db" in record:
        return {"SNR": formats.decibels(record["snr_db"])}
    return {"Agreement": formats.percent(record.get("top1_agreement"))}


def file_records(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The TFLite files with every figure ready to print; `details` pairs the columns' names with their cells."""
    records = []
    for name, record in (summary.get("tflite") or {}).items():
        metric = file_metric(record)
        details = {
            "Size": formats.size(record.get("bytes")),
            metric.label: metric.write(record.get(metric.key)),
            **_nearness(record),
            "Max. error": formats.short(record.get("max_error")),
            "Latency": formats.latency(record.get("latency_ms")),
        }
        speedup, interval = table_rows.speedup_of(record)
        bounds = formats.interval(interval)
        quietest = ", quietest runs" if table_rows.is_of_quietest(record) else ""
        is_reference = record.get("model") == "baseline"
        records.append(
            {
                "name": name,
                "model": "baseline" if is_reference else "pruned",
                "details": details,
                "speedup": formats.ratio(speedup),
                "interval": "" if bounds == formats.ABSENT or is_reference else f"({bounds}{quietest})",
                "inconclusive": not is_reference and table_rows.is_inconclusive(record),
            }
        )
    for column in list(records[0]["details"]) if records else []:
        if all(record["details"][column] == formats.ABSENT for record in records):
            for record in records:
                del record["details"][column]
    return records


def latency_bars(summary: Mapping[str, Any], benchmark: Mapping[str, Any]) -> list[Bar]:
    """Median latency of every file: those of the summary, and what else the benchmark measured."""
    latencies = {}
    for name, record in (summary.get("tflite") or {}).items():
        latencies[name] = record.get("latency_ms"), record.get("model")
    for name, result in _measured(benchmark).items():
        if name not in latencies:
            times = {key: result.get(f"{key}_ms") for key in ("median", "p10", "p90")}
            latencies[name] = times, "baseline" if name.startswith("baseline") else "pruned"
    latencies = {name: latency for name, latency in latencies.items() if formats.latency(latency[0]) != formats.ABSENT}
    longest = max((times["median"] for times, _ in latencies.values()), default=0)
    return [
        Bar(name, times["median"] / longest, formats.latency(times), "baseline" if model == "baseline" else "pruned")
        for name, (times, model) in latencies.items()
        if longest > 0
    ]


def _measured(benchmark: Mapping[str, Any]) -> dict[str, dict]:
    """The benchmark result of each file; `tflite.benchmark` calls the files candidates."""
    results = benchmark.get("results") or benchmark.get("candidates") or _on_devices(benchmark)
    if not isinstance(results, dict):
        return {}
    return {name: result for name, result in results.items() if isinstance(result, dict)}


def _on_devices(benchmark: Mapping[str, Any]) -> dict[str, dict]:
    """Latencies measured on phones."""
    latencies = {}
    devices = benchmark.get("devices")
    for device in (d for d in (devices if isinstance(devices, list) else ()) if isinstance(d, dict)):
        for delegate, result in (device.get("delegates") or {}).items():
            for name, times in (result.get("candidates") or {}).items():
                latencies[f"{name} on {device.get('model')}, {delegate}"] = {"median_ms": times.get("latency_ms")}
    return latencies


def conditions(benchmark: Mapping[str, Any]) -> dict[str, str]:
    """The conditions of the latency measurement."""
    conditions = {
        key.replace("_", " "): formats.plain(value)
        for key, value in benchmark.items()
        if key != "baseline" and not isinstance(value, (dict, list))
    }
    for key in ("delegate", "runs"):
        values = dict.fromkeys(formats.plain(result[key]) for result in _measured(benchmark).values() if key in result)
        if values:
            conditions.setdefault(key, ", ".join(values))
    return conditions


def layer_bars(groups: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """Kept channels of every group that could be pruned, in the order of the plan."""
    return [
        Bar(group["name"], len(group["kept"]) / group["size"], f"{len(group['kept'])} of {group['size']}")
        for group in groups
        if not group.get("pinned_because")
    ]


def kernel_bars(summary: Mapping[str, Any]) -> list[Bar]:
    """Kernels that are not zero, of every layer of the pruned model that has zero kernels."""
    return [
        Bar(row.layer, row.kept / row.kernels, f"{formats.count(row.kept)} of {formats.count(row.kernels)}")
        for row in table_rows.kernel_rows(summary)
    ]


def pinned_groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of the pinned groups, by reason."""
    by_reason: dict[str, list[str]] = {}
    for group in groups:
        if group.get("pinned_because"):
            by_reason.setdefault(str(group["pinned_because"]), []).append(f"{group['name']} ({group['size']})")
    return by_reason


def phase_bars(phases: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """The wall time of every phase."""
    timed = [phase for phase in phases if formats.is_number(phase.get("seconds"))]
    longest = max((phase["seconds"] for phase in timed), default=0) or 1
    return [
        Bar(str(phase.get("name", "phase")), phase["seconds"] / longest, formats.duration(phase["seconds"]), "time")
        for phase in timed
    ]


def head_bars(phases: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """The loss of each auxiliary classifier beside that of the best constant answer, which the line marks."""
    heads = [head for phase in phases for head in phase.get("head_losses") or () if isinstance(head, dict)]
    bars = []
    for head in heads:
        loss, constant = head.get("loss"), head.get("constant")
        if formats.is_number(loss) and formats.is_number(constant) and constant > 0:
            name = ": ".join(filter(None, (str(head.get("layer")), str(head.get("output") or ""))))
            text = f"{formats.short(loss)} of {formats.short(constant)}"
            bars.append(Bar(name, max(0.0, min(1.0, _CHANCE_AT * loss / constant)), text, mark=_CHANCE_AT))
    return bars


def repeat_commands(flags: str) -> list[str]:
    """The commands that repeat a run, from its `flags.txt`: with that file, and typed out; empty without it."""
    said = re.search(r"^# (dcp-tf \S+) (--flagfile=.+) (--output_dir=\S+) repeats this run", flags, re.MULTILINE)
    lines = [line.strip() for line in flags.splitlines() if line.startswith("--")]
    if said is None or not lines:
        return []
    return [f"{said[1]} {shlex.quote(said[2])} {said[3]}", " \\\n    ".join([said[1], *map(shlex.quote, lines)])]


def kept_epoch(phase: Mapping[str, Any]) -> str:
    """Which epoch was kept and why, such as "kept epoch 7 of 10, held-out top1 95.80% (94.80% before)"; or nothing."""
    held_out = phase.get("held_out")
    if not isinstance(held_out, dict) or not isinstance(held_out.get("kept_epoch"), int):
        return ""
    metric = str(held_out.get("metric"))
    after, before = (_history_cell(metric, held_out.get(key)) for key in ("kept", "before"))
    if not held_out["kept_epoch"]:
        return f"kept the model as it was before: no epoch did better, held-out {metric} {before}"
    return f"kept epoch {held_out['kept_epoch']} of {len(epochs(phase))}, held-out {metric} {after} ({before} before)"


def epoch_table(phase: Mapping[str, Any]) -> dict[str, Any] | None:
    """The training history of a phase as headings and lines of cells; None if there is none."""
    history = epochs(phase)
    if not history:
        return None
    keys = list(dict.fromkeys(key for entry in history for key in entry))
    lines = [[_history_cell(key, entry.get(key)) for key in keys] for entry in history]
    return {
        "name": str(phase.get("name", "training")),
        "headings": [key.replace("_", " ") for key in keys],
        "lines": lines,
    }


def step_table(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What each of several pruning steps left, as headings and lines of cells; None for a run in one step."""
    steps = [step for step in summary.get("steps") or () if isinstance(step, dict)]
    if not steps:
        return None
    metrics = [metric for metric in main_metrics(summary) if any(metric.key in step for step in steps)]
    columns = [("step", "Step", str), ("params", "Parameters", formats.count), ("macs", "MACs", formats.count)]
    columns += [(metric.key, metric.label, metric.write) for metric in metrics]
    columns += [("seconds", "Time", formats.duration)]
    return {
        "headings": [heading for _, heading, _ in columns],
        "lines": [[write(step.get(key)) for key, _, write in columns] for step in steps],
    }


def _history_cell(key: str, value: Any) -> str:
    return formats.percent(value) if is_accuracy(key) else formats.short(value)
