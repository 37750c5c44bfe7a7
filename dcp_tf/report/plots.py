"""The plots of the page: accuracy against cost, training curves, selection curves."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dcp_tf import drawing
from dcp_tf.report import formats, selection_curves, svg
from dcp_tf.report.metrics import Metric, file_metric, is_accuracy, primary_metric
from dcp_tf.report.run_files import epochs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^DvPX"
LINE_LOOKS = list(itertools.product(("-", "--", ":"), (svg.PRUNED, svg.THIRD, svg.BASELINE, svg.INK)))
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
    records = summary.get("tflite") or {}
    metric = _metric_of_files(records.values()) or primary_metric(summary)
    if not (measured := _timed(records.values(), metric)):
        return None
    alt = "; ".join(
        f"{name} {metric.write(record.get(metric.key))} at {formats.latency(record.get('latency_ms'))}"
        for name, record in records.items()
    )
    text = f"{_capital(metric.noun)} against latency: {alt}."
    return svg.draw("latency", text, lambda figure: _draw_files(figure, measured, metric, svg.PAGE))


def files_figure(records: Mapping[str, Mapping[str, Any]]) -> "Figure":
    """The same as a figure of matplotlib; files without labels by how alike they and their Keras models are."""
    alike = Metric("top1_agreement", "Agreement with Keras", ""), Metric("snr_db", "SNR to Keras, dB", "", False)
    metrics = [metric for metric in (_metric_of_files(records.values()), *alike) if metric is not None]
    metric = next((m for m in metrics if _timed(records.values(), m)), None)
    if metric is None:  # all equal their models
        times = {name: record["latency_ms"] for name, record in records.items()}
        return drawing.latency_figure({name: (t["median"], t["p10"], t["p90"]) for name, t in times.items()})
    measured = _timed(records.values(), metric)

    def plot(figure):
        _draw_files(figure, measured, metric, drawing.LIGHT)
        if any(record.get("model") == "baseline" for record in records.values()):
            figure.axes[0].set_title("baseline gray, pruned green", fontsize=10)

    return drawing.new_figure(plot, 5.2, 3.8)


def _metric_of_files(records: Iterable[Mapping[str, Any]]) -> Metric | None:
    return next((f for r in records if formats.is_number(r.get((f := file_metric(r)).key))), None)


def _timed(records: Iterable[Mapping[str, Any]], metric: Metric) -> dict[str, list[Mapping[str, Any]]]:
    """The files whose latency and metric were measured, the baseline's first, by quantization."""
    measured: dict[str, list] = {}
    for record in sorted(records, key=lambda record: record.get("model") != "baseline"):
        times = record.get("latency_ms") or {}
        if formats.is_number(times.get("median")) and formats.is_number(record.get(metric.key)):
            measured.setdefault(str(record.get("quantization", "TFLite")), []).append(record)
    return measured


def _draw_files(figure, measured: Mapping[str, list], metric: Metric, palette: drawing.Palette) -> None:
    axes = figure.subplots()
    for marker, (quantization, records) in zip(itertools.cycle(MARKERS), measured.items(), strict=False):
        line = [(record["latency_ms"]["median"], metric.factor * record[metric.key]) for record in records]
        axes.plot(*zip(*line, strict=True), color=palette.muted, linewidth=1, linestyle=":")
        axes.plot([], [], marker, color=palette.ink, label=quantization)
        for record, (median, value) in zip(records, line, strict=True):
            times, is_baseline = record["latency_ms"], record.get("model") == "baseline"
            color = palette.baseline if is_baseline else palette.pruned
            if formats.is_number(times.get("p10")) and formats.is_number(times.get("p90")):
                axes.plot([times["p10"], times["p90"]], [value] * 2, color=color, linewidth=2)
            axes.plot(median, value, marker, markersize=8, color=color)
    _quality_axis(axes, [metric.factor * r[metric.key] for records in measured.values() for r in records], metric)
    axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
    axes.set_xlabel("latency (ms)")
    figure.legend(loc="outside lower left", ncols=4, handletextpad=0.1, columnspacing=1.0)


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


def _label(key: str) -> str:
    """Of a line; names of layers stay as they are."""
    return key if " " in key else key.replace("_", " ")


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
    constants = {head.get("constant") for head in phase.get("head_losses") or () if isinstance(head, dict)}
    constant = constants.pop() if len(constants) == 1 and all(map(formats.is_number, constants)) else None
    counted = all(formats.is_number(entry.get("epoch")) for entry in history)
    dated = [(entry["epoch"] if counted else step, entry) for step, entry in enumerate(history, start=1)]

    def plot(figure):
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (label, factor, lines) in zip(grid, panels, strict=True):
            for key, (dashes, color) in zip(lines, itertools.cycle(LINE_LOOKS), strict=False):
                points = [(epoch, factor * entry[key]) for epoch, entry in dated if formats.is_number(entry.get(key))]
                axes.plot(*zip(*points, strict=True), linestyle=dashes, color=color, label=_label(key))
            axes.set_ylabel(label)
            if label == "loss" and constant:
                axes.axhline(constant, color=svg.MUTED, linestyle=":", linewidth=1, label="chance")
            if len(lines) > 1:
                axes.legend(fontsize=9, handlelength=1.2)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.get_major_locator().set_params(integer=True)
        figure.align_ylabels(grid)

    first, last = history[0], history[-1]
    alt = ", ".join(
        f"{_label(key)} from {formats.short(first.get(key))} to {formats.short(last.get(key))}"
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
        lines = [
            [(100 * n / c.size, value / c.loss[0][1]) for n, value in selection_curves.thinned(c.loss)] for c in curves
        ]
        drawing.draw_selection(figure.subplots(), lines)

    return svg.draw("selection", f"Loss of the greedy selection in {len(curves)} layers, relative to its start.", plot)
