"""What people look for first: the headline, the result in sentences, the key figures, and what to try next."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dcp_tf.report import formats, table_rows
from dcp_tf.report.metrics import file_metric, primary_metric

LIKELY_CHANCE = 0.05  # p value above which a difference may be chance
_INTEGER = ("int8", "qat", "int16x8")  # the files that devices run, the most usual first


@dataclasses.dataclass(frozen=True)
class KeyFigure:
    """One of the key figures at the top of the page."""

    label: str
    value: str
    note: str


def headline(summary: Mapping[str, Any]) -> str:
    """Such as "42% smaller, 1.79x as fast, top-1 accuracy 0.28 points lower"; empty without two models.

    Files of one quantization are compared, or the Keras models where there are none.
    """
    baseline, pruned = summary.get("baseline") or {}, summary.get("pruned") or {}
    metric, file = primary_metric(summary), (shipped_file(summary) or ("", {}))[1]
    unpruned = _baseline_file(summary, file)
    parts = [_amount(unpruned.get("bytes"), file.get("bytes"), "smaller", "larger")]
    if formats.is_number(file.get("speedup")):
        speedup = formats.ratio(table_rows.speedup_of(file)[0])
        parts.append("as fast within noise" if table_rows.is_inconclusive(file) else f"{speedup} as fast")
    if not any(parts):
        fewer = "fewer multiply-adds", "more multiply-adds"
        parts = [_amount(baseline.get("macs"), pruned.get("macs"), *fewer)]
    before, after = (unpruned.get(metric.key), file.get(metric.key)) if file else (None, None)
    if not (formats.is_number(before) and formats.is_number(after)):
        before, after = baseline.get(metric.key), pruned.get(metric.key)
    moved = metric.compare(before, after)
    if moved != formats.ABSENT and any(parts):
        direction = "lower" if moved.startswith("-") else "higher"
        is_same = not float(moved.split()[0].rstrip("%"))
        parts.append(f"{metric.noun} " + ("unchanged" if is_same else f"{moved.lstrip('+-')} {direction}"))
    elif formats.is_number(after) and metric.key.startswith("baseline_") and any(parts):
        parts.append(f"{metric.noun} {metric.write(after)}")
    text = ", ".join(filter(None, parts))
    return text[:1].upper() + text[1:]


def _amount(before: Any, after: Any, less: str, more: str) -> str:
    if not (formats.is_number(before) and formats.is_number(after)) or before <= 0:
        return ""
    return f"{abs(after - before) / before:.0%} {more if after > before else less}"


def lead(summary: Mapping[str, Any]) -> str:
    """The measured result in one or two sentences."""
    baseline, pruned = summary.get("baseline") or {}, summary.get("pruned") or {}
    costs = [
        _fewer(baseline.get(key), pruned.get(key), noun)
        for key, noun in (("macs", "multiply-adds"), ("params", "parameters"))
    ]
    costs = [cost for cost in costs if cost]
    sentences = []
    if costs:
        sentences.append(f"The pruned model has {' and '.join(costs)} than its baseline")
    metric = primary_metric(summary)
    before, after = baseline.get(metric.key), pruned.get(metric.key)
    if formats.is_number(before) and formats.is_number(after):
        joint = "; its" if sentences else "The"
        where = f" on {summary['dataset']}" if summary.get("dataset") else ""
        moved = f"{joint} {metric.noun}{where} goes from {metric.write(before)} to {metric.write(after)}"
        sentences.append(f"{moved} ({metric.compare(before, after)})")
    elif formats.is_number(after) and metric.key.startswith("baseline_"):
        sentences.append(f"{'; its' if sentences else 'Its'} {metric.noun} is {metric.write(after)}")
    elif formats.is_number(before) and not pruned:
        sentences.append(f"The baseline reaches a {metric.noun} of {metric.write(before)}")
    text = "".join(sentences) + "." if sentences else ""
    return " ".join(part for part in (text, _speed(summary)) if part)


def _fewer(before: Any, after: Any, noun: str) -> str:
    """Such as "49.78% fewer multiply-adds"; empty if one of the two is unknown."""
    moved = formats.change(before, after)
    if moved == formats.ABSENT:
        return ""
    return f"{moved.lstrip('+-')} {'more' if after > before else 'fewer'} {noun}"


def pruned_files(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The TFLite files of the pruned model."""
    return [(name, r) for name, r in (summary.get("tflite") or {}).items() if r.get("model") != "baseline"]


def fastest_file(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The pruned TFLite file of the smallest median latency."""
    timed = [
        (name, record)
        for name, record in pruned_files(summary)
        if formats.is_number((record.get("latency_ms") or {}).get("median"))
    ]
    return min(timed, key=lambda item: item[1]["latency_ms"]["median"], default=None)


def shipped_file(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The pruned file that a device most likely gets: the integer one, else the fastest, else the smallest."""
    files = pruned_files(summary)
    for mode in _INTEGER:
        if of_mode := [file for file in files if file[1].get("quantization") == mode]:
            return of_mode[0]
    sized = [file for file in files if formats.is_number(file[1].get("bytes"))]
    return fastest_file(summary) or min(sized, key=lambda file: file[1]["bytes"], default=None)


def _baseline_file(summary: Mapping[str, Any], file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The baseline's file of the same quantization, or nothing."""
    files = (summary.get("tflite") or {}).values()
    mode = file.get("quantization")
    return next((r for r in files if r.get("model") == "baseline" and r.get("quantization") == mode), {})


def _speed(summary: Mapping[str, Any]) -> str:
    fastest = fastest_file(summary)
    if fastest is None:
        return ""
    name, record = fastest
    where = f" on {record['latency_device']}" if record.get("latency_device") else ""
    text = f"Its fastest file, {name}, takes {formats.milliseconds(record['latency_ms']['median'])} ms{where}"
    if not formats.is_number(record.get("speedup")):
        return f"{text}."
    if table_rows.is_inconclusive(record):
        baseline = f"the baseline's {record.get('quantization')} file"
        return f"{text}; its difference from {baseline} is within measurement noise."
    speedup = formats.ratio(table_rows.speedup_of(record)[0])
    quietest = " by their quietest runs" if table_rows.is_of_quietest(record) else ""
    return f"{text}: {speedup} the speed of the baseline's {record.get('quantization')} file{quietest}."


def key_figures(summary: Mapping[str, Any]) -> list[KeyFigure]:
    """Accuracy and costs of the pruned model, and the file that ships, each beside its baseline."""
    baseline, pruned = summary.get("baseline") or {}, summary.get("pruned") or {}
    metric = primary_metric(summary)
    rows_shown = (
        (metric.label, metric.key, metric.write, metric.compare),
        ("MACs", "macs", formats.short_count, formats.change),
        ("Parameters", "params", formats.short_count, formats.change),
    )
    figures = []
    for label, key, write, compare in rows_shown:
        if formats.is_number(pruned.get(key)):
            note = _moved(compare, baseline.get(key), pruned[key], write)
            if key == metric.key and (bounds := metric.interval(pruned[key], table_rows.test_images(summary))):
                note += f"; 95% interval {bounds}".removeprefix("; " if not note else "")
            figures.append(KeyFigure(label, write(pruned[key]), note))
    return [*figures, *_file_figures(summary)]


def _file_figures(summary: Mapping[str, Any]) -> list[KeyFigure]:
    """Size, accuracy and latency of the file that ships."""
    if (shipped := shipped_file(summary)) is None:
        return []
    record, figures = shipped[1], []
    mode, unpruned = record.get("quantization", "TFLite"), _baseline_file(summary, record)
    if formats.is_number(record.get("bytes")):
        note = _moved(formats.change, unpruned.get("bytes"), record["bytes"], formats.size)
        figures.append(KeyFigure(f"File, {mode}", formats.size(record["bytes"]), note))
    metric = file_metric(record)
    if mode != "float32" and formats.is_number(value := record.get(metric.key)):
        note = _moved(metric.compare, unpruned.get(metric.key), value, metric.write)
        figures.append(KeyFigure(f"{metric.label}, {mode}", metric.write(value), note))
    if formats.is_number((record.get("latency_ms") or {}).get("median")):
        speedup = formats.ratio(table_rows.speedup_of(record)[0])
        note = "" if speedup == formats.ABSENT else f"{speedup} the baseline's speed"
        if table_rows.is_inconclusive(record):
            note = f"{speedup}, inconclusive"
        value = f"{formats.milliseconds(record['latency_ms']['median'])} ms"
        figures.append(KeyFigure(f"Latency, {mode}", value, note))
    return figures


def _moved(compare: Any, before: Any, after: Any, write: Any) -> str:
    moved = compare(before, after)
    return "" if moved == formats.ABSENT else f"{moved} from {write(before)}"


def advice(summary: Mapping[str, Any], answers: Mapping[str, Any]) -> list[str]:
    """What to try next, as the run logged it; to remove more where it logged nothing and accuracy is as before.

    Args:
        summary: of the run.
        answers: `answers.json`, or nothing.
    """
    lines = summary.get("advice")
    idle = [
        f"the auxiliary classifiers at {', '.join(map(str, layers))} are hardly better than a constant answer: train "
        "them longer (--aux_epochs), or put them deeper (--auxiliary_layers)"
        for phase in summary.get("phases") or []
        if isinstance(layers := phase.get("heads_at_chance"), list) and layers
    ]
    logged = [*(str(line) for line in (lines if isinstance(lines, list) else ())), *idle]
    return logged or _remove_more(summary, answers)


def _remove_more(summary: Mapping[str, Any], answers: Mapping[str, Any]) -> list[str]:
    p_value, flags = answers.get("p_value"), summary.get("settings") or {}
    rate, targets = flags.get("rate"), [name for name in flags if name.startswith("target_") and flags[name]]
    if not answers or (formats.is_number(p_value) and p_value <= LIKELY_CHANCE) or summary.get("failures"):
        return []
    more = f"a lower {targets[0]}" if targets else f"a rate of {rate + 0.3 * (1 - rate):.2g}" * formats.is_number(rate)
    return [f"the accuracy is as before within chance: a smaller model may do as well: try {more}"] if more else []
