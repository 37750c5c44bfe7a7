"""The plots of the page: accuracy against cost, training curves, selection curves."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dcp_tf.report import formats, selection_curves, svg
from dcp_tf.report.metrics import Metric, file_metric, is_accuracy, primary_metric
from dcp_tf.report.run_files import epochs

MARKERS = "os^DvPX"
LINE_LOOKS = list(itertools.product(("-", "--", ":"), (svg.PRUNED, svg.THIRD, svg.BASELINE, svg.INK)))
# First layer to last; each shade stands out from a light and from a dark page.
DEPTH_COLORS = ("#3f8fd6", "#b35bb0", "#e0782f")
_MIN_ACCURACY_SPAN = 2.0  # percentage points, so that noise does not look like a cliff


def accuracy_against_macs(summary: Mapping[str, Any]) -> Markup | None:
    """Accuracy over MACs: baseline, pruned before fine-tuning, pruned. None unless both models were measured."""
    baseline, pruned = summary.get("baseline") or {}, summary.get("pruned") or {}
    metric = primary_metric(summary)
    stages = [
        ("baseline", baseline.get("macs"), baseline.get(metric.key), {"color": svg.BASELINE}),
        (
            "before fine-tuning",
            pruned.get("macs"),
            pruned.get(f"{metric.key}_before_finetuning"),
            {"color": svg.PRUNED, "markerfacecolor": svg.PAPER, "markeredgewidth": 1.8},
        ),
        ("pruned", pruned.get("macs"), pruned.get(metric.key), {"color": svg.PRUNED}),
    ]
    stages = [stage for stage in stages if formats.is_number(stage[1]) and formats.is_number(stage[2])]
    if len({macs for _, macs, _, _ in stages}) < 2:
        return None
    largest = max(macs for _, macs, _, _ in stages)
    factor, unit = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "K")) if largest >= pair[0]), (1, ""))

    def plot(figure):
        axes = figure.subplots()
        scaled = [metric.factor * value for _, _, value, _ in stages]
        axes.plot([macs / factor for _, macs, _, _ in stages], scaled, color=svg.MUTED, linewidth=1, linestyle=":")
        for (name, macs, _, look), scaled_value in zip(stages, scaled, strict=True):
            axes.plot(macs / factor, scaled_value, "o", markersize=9, linestyle="none", label=name, **look)
        _quality_axis(axes, scaled, metric)
        axes.set_xlim(0, 1.12 * largest / factor)
        axes.set_xlabel(f"MACs ({unit})" if unit else "MACs")
        figure.legend(loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=1.0)

    alt = "; ".join(f"{name} {metric.write(value)} at {formats.count(macs)} MACs" for name, macs, value, _ in stages)
    return svg.draw("macs", f"{_capital(metric.noun)} against multiply-adds: {alt}.", plot)


def accuracy_against_latency(summary: Mapping[str, Any]) -> Markup | None:
    """Accuracy over median latency of every TFLite file, with 10th to 90th percentile. None without latencies."""
    measured: dict[str, list[dict]] = {}
    records = list((summary.get("tflite") or {}).values())
    metric = next((f for r in records if formats.is_number(r.get((f := file_metric(r)).key))), primary_metric(summary))
    for record in records:
        if formats.is_number((record.get("latency_ms") or {}).get("median")) and formats.is_number(
            record.get(metric.key)
        ):
            measured.setdefault(str(record.get("quantization", "TFLite")), []).append(record)
    if not measured:
        return None

    def plot(figure):
        axes = figure.subplots()
        for number, (quantization, records) in enumerate(measured.items()):
            records = sorted(records, key=lambda record: record.get("model") != "baseline")
            marker = MARKERS[number % len(MARKERS)]
            line = [(record["latency_ms"]["median"], metric.factor * record[metric.key]) for record in records]
            axes.plot(*zip(*line, strict=True), color=svg.MUTED, linewidth=1, linestyle=":")
            axes.plot([], [], marker, color=svg.INK, label=quantization)
            for record in records:
                _latency_point(axes, record, metric, marker)
        values = [metric.factor * record[metric.key] for records in measured.values() for record in records]
        _quality_axis(axes, values, metric)
        axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
        axes.set_xlabel("latency (ms)")
        figure.legend(loc="outside lower left", ncols=4, handletextpad=0.1, columnspacing=1.0)

    alt = "; ".join(
        f"{name} {metric.write(record.get(metric.key))} at {formats.latency(record.get('latency_ms'))}"
        for name, record in summary["tflite"].items()
    )
    return svg.draw("latency", f"{_capital(metric.noun)} against latency: {alt}.", plot)


def _latency_point(axes, record: Mapping[str, Any], metric: Metric, marker: str) -> None:
    times, value = record["latency_ms"], metric.factor * record[metric.key]
    color = svg.BASELINE if record.get("model") == "baseline" else svg.PRUNED
    if formats.is_number(times.get("p10")) and formats.is_number(times.get("p90")):
        axes.plot([times["p10"], times["p90"]], [value] * 2, color=color, linewidth=2)
    axes.plot(times["median"], value, marker, markersize=8, color=color)


def _quality_axis(axes, values: Sequence[float], metric: Metric) -> None:
    """The y axis, wide enough that a small difference looks small."""
    axes.set_ylabel(metric.axis)
    if not metric.is_fraction:
        axes.set_ylim(min(0.0, *values), 1.12 * max(*values, 0.0) or 1.0)
        return
    low, high = min(values), max(values)
    missing = max(0.0, _MIN_ACCURACY_SPAN - (high - low)) / 2
    pad = 0.12 * max(high - low, _MIN_ACCURACY_SPAN)
    axes.set_ylim(low - missing - pad, min(high + missing + pad, 100 + pad))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def training_curves(name: str, phase: Mapping[str, Any]) -> Markup | None:
    """Loss and accuracy by epoch of one phase. None unless at least two epochs were recorded."""
    history = epochs(phase)
    if len(history) < 2:
        return None
    keys = dict.fromkeys(key for entry in history for key, value in entry.items() if formats.is_number(value))
    panels = [
        ("loss", 1, [key for key in keys if "loss" in key and key != "losses"]),  # of a single head: equals `loss`
        ("accuracy (%)", 100, [key for key in keys if is_accuracy(key)]),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    counted = all(formats.is_number(entry.get("epoch")) for entry in history)
    dated = [(entry["epoch"] if counted else step, entry) for step, entry in enumerate(history, start=1)]

    def plot(figure):
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, factor, lines) in zip(grid, panels, strict=True):
            for key, (dashes, color) in zip(lines, itertools.cycle(LINE_LOOKS), strict=False):
                points = [(epoch, factor * entry[key]) for epoch, entry in dated if formats.is_number(entry.get(key))]
                axes.plot(*zip(*points, strict=True), linestyle=dashes, color=color, label=key.replace("_", " "))
            axes.set_ylabel(label)
            if len(lines) > 1:
                axes.legend(fontsize=9, handlelength=1.2)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels(grid)

    first, last = history[0], history[-1]
    alt = ", ".join(
        f"{key.replace('_', ' ')} from {formats.short(first.get(key))} to {formats.short(last.get(key))}"
        for _, _, lines in panels
        for key in lines
    )
    return svg.draw(name, f"{phase.get('name', 'training')}, {len(history)} epochs: {alt}.", plot)


def selection_overview(curves: Sequence[selection_curves.Curve]) -> Markup | None:
    """Every layer's loss relative to its start over the fraction of channels selected, colored by depth."""
    curves = [curve for curve in curves if curve.loss[0][1] > 0]
    if not curves:
        return None

    def plot(figure):
        from matplotlib.colors import LinearSegmentedColormap

        shade = LinearSegmentedColormap.from_list("depth", DEPTH_COLORS)
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            start = curve.loss[0][1]
            line = [(100 * kept / curve.size, value / start) for kept, value in selection_curves.thinned(curve.loss)]
            color = shade(number / max(1, len(curves) - 1))
            axes.plot(*zip(*line, strict=True), color=color, linewidth=1.4 if len(curves) < 40 else 0.9)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("channels taken (%)")
        axes.set_ylabel("loss / loss at the start")

    return svg.draw("selection", f"Loss of the greedy selection in {len(curves)} layers, relative to its start.", plot)
