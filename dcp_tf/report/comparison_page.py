"""Writes `compare.html`: which method is best and by how much, the table, the plots, every run."""

import itertools
import math
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dcp_tf import files
from dcp_tf.errors import RunError
from dcp_tf.report import content, formats, svg
from dcp_tf.report.comparison import (
    MethodRuns,
    Spread,
    draw_spreads,
    metrics_of,
    notes_of,
    panels_of,
    summarize,
    table_cells,
    title_of,
)
from dcp_tf.report.headline import KeyFigure
from dcp_tf.report.metrics import Metric
from dcp_tf.report.page import facts_of, origin, render
from dcp_tf.report.plots import LINE_LOOKS

_CLEAR = 2.0  # standard errors: a smaller difference is called noise
_NARROW = 9  # columns that the page holds without breaking a mean from its deviation


def write_comparison_page(comparison: Mapping[str, Any], folder: str | os.PathLike) -> pathlib.Path:
    """Makes `compare.html` in the folder of a comparison, which may hold the `flags.txt` that repeats it.

    Args:
        comparison: the content of `compare.json`.
        folder: receives the page.

    Returns:
        The path of the page.

    Raises:
        UsageError: `comparison` is malformed.
        RunError: the page could not be written, or some plots could not be drawn.
    """
    folder = pathlib.Path(folder)
    flags = folder / "flags.txt"
    text = flags.read_text(encoding="utf-8", errors="replace") if flags.is_file() else ""
    with svg.undrawn() as failures:
        page = render("comparison.html", _context(comparison, text))
    path = files.write_text(folder / "compare.html", page)
    if failures:
        raise RunError(f"compare.html was written without some of its figures: {'; '.join(failures)}")
    return path


def _context(comparison: Mapping[str, Any], flags: str) -> dict[str, Any]:
    methods, metric = summarize(comparison), metrics_of(comparison)[0]
    headings, *lines = table_cells(comparison)
    if len(headings) <= _NARROW:
        lines = [[cell.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}") for cell in line] for line in lines]
    ranked = _ranked(methods, metric)
    seeds = {record.get("seed") for record in comparison["runs"]}
    return {
        "title": title_of(comparison),
        "headline": _headline(comparison, ranked, metric),
        "lead": _lead(comparison, ranked, metric),
        "warning": content.baseline_warning(comparison),
        "facts": {"seeds": str(len(seeds)), **facts_of(comparison)},
        "key_figures": [_card(comparison, method, metric) for method in ranked],
        "headings": headings[1:],
        "lines": lines,
        "notes": notes_of(comparison),
        "figures": _figures(comparison, [method for method in methods if method.runs], metric),
        "widths": _widths(comparison["runs"]),
        "runs": _runs(comparison["runs"], metric),
        "absent": formats.ABSENT,
        **origin(comparison, flags),
    }


def _final(method: MethodRuns, metric: Metric) -> Spread:
    """The metric after fine-tuning, or before where nothing was fine-tuned."""
    return method.figures.get(metric.key) or method.figures.get(f"{metric.key}_before_finetuning") or Spread(())


def _ranked(methods: Sequence[MethodRuns], metric: Metric) -> list[MethodRuns]:
    """The methods that have a figure, the best first."""
    sign = 1 if metric.lower_is_better else -1
    measured = [method for method in methods if _final(method, metric).values]
    return sorted(measured, key=lambda method: sign * _final(method, metric).mean)


def _is_clear(comparison: Mapping[str, Any], best: Spread, second: Spread, metric: Metric) -> bool:
    """Whether a difference is larger than the noise of the seeds and, of a fraction, that of the test images."""
    variance = sum((spread.deviation or 0.0) ** 2 / len(spread.values) for spread in (best, second))
    images = (comparison.get("conditions") or {}).get("test_images")
    if metric.is_fraction and formats.is_number(images) and images > 0:
        variance += sum(max(0.0, spread.mean * (1 - spread.mean)) / images for spread in (best, second))
    return abs(best.mean - second.mean) > _CLEAR * math.sqrt(variance)


def _headline(comparison: Mapping[str, Any], ranked: Sequence[MethodRuns], metric: Metric) -> str:
    """Such as "dcp is best: top-1 accuracy 99.72%, 0.28 points below the baseline"."""
    if not ranked:
        return "No method finished"
    best, *others = ranked
    figure = f"{metric.noun} {metric.write(_final(best, metric).mean)}"
    if not others:
        return f"{best.name}: {figure}"
    second = _final(others[0], metric)
    if _is_clear(comparison, _final(best, metric), second, metric):
        return f"{best.name} is best: {figure}, {others[0].name} {metric.write(second.mean)}"
    return f"{best.name} and {others[0].name} do not differ beyond noise: {figure} and {metric.write(second.mean)}"


def _lead(comparison: Mapping[str, Any], ranked: Sequence[MethodRuns], metric: Metric) -> str:
    if not ranked:
        return "Every run failed; the reasons stand below the table."
    baseline = comparison["baseline"]
    before = baseline.get(metric.key)
    cost = formats.change(baseline.get("macs"), _mean(ranked[0], "macs")).lstrip("+-")
    text = f"{ranked[0].name} has {cost} fewer multiply-adds than the baseline" if cost != formats.ABSENT else ""
    if formats.is_number(before):
        text += ", " if text else ""
        text += f"whose {metric.noun} is {metric.write(before)}" if text else f"The baseline has {metric.write(before)}"
    tuned = any(metric.key in method.figures for method in ranked)
    end = f"All figures are {'those after' if tuned else 'measured without'} fine-tuning."
    return " ".join(filter(None, (f"{text}." if text else "", end)))


def _mean(method: MethodRuns, key: str) -> float | None:
    return method.figures.get(key, Spread(())).mean


def _card(comparison: Mapping[str, Any], method: MethodRuns, metric: Metric) -> KeyFigure:
    baseline, final = comparison["baseline"], _final(method, metric)
    moved = metric.compare(baseline.get(metric.key), final.mean)
    macs = formats.change(baseline.get("macs"), _mean(method, "macs"))
    notes = [
        moved,
        f"MACs {macs}" if macs != formats.ABSENT else "",
        f"{method.runs} {'run' + 's' * (method.runs > 1)}",
    ]
    return KeyFigure(method.name, metric.write(final.mean), ", ".join(n for n in notes if n and n != formats.ABSENT))


def _figures(comparison: Mapping[str, Any], methods: Sequence[MethodRuns], metric: Metric) -> list[tuple[str, Markup]]:
    """Caption and figure of each panel, and of the metric by epoch."""
    figures, baseline = [], comparison["baseline"].get(metric.key)
    for number, panel in enumerate(panels_of(comparison)):
        mark = baseline if panel.key == metric.key and formats.is_number(baseline) else None
        alt = "; ".join(
            f"{method.name} {formats.short(panel.factor * method.figures[panel.key].mean)}"
            for method in methods
            if panel.key in method.figures
        )
        caption = f"{panel.label[:1].upper()}{panel.label[1:]}{', the baseline dashed' * (mark is not None)}"

        def plot(figure, panel=panel, mark=mark):
            axes = figure.subplots()
            draw_spreads(axes, methods, panel, svg.PRUNED, svg.BASELINE, mark)
            axes.set_xlabel("")  # is the caption
            axes.tick_params(axis="y", labelsize=10)

        height = 40 + sum(20 + 14 * method.name.count(":") for method in methods) + 14 * len(methods)
        figures.append((caption, svg.draw(f"panel{number}", f"{panel.label}: {alt}.", plot, height=height)))
    by_epoch = _by_epoch(comparison["runs"], metric)
    if any(len(values) > 2 for values in by_epoch.values()):
        figures.append((f"{metric.axis} after each epoch of fine-tuning, mean", _epochs_figure(by_epoch, metric)))
    return figures


def _by_epoch(runs: Sequence[Mapping[str, Any]], metric: Metric) -> dict[str, list[float]]:
    """The mean over the runs of each method before fine-tuning and after each epoch."""
    lines: dict[str, list[list[float]]] = {}
    for record in runs:
        epochs, before = record.get(f"{metric.key}_by_epoch"), record.get(f"{metric.key}_before_finetuning")
        if isinstance(epochs, list) and formats.is_number(before):
            lines.setdefault(record["method"], []).append([before, *epochs])
    return {name: [statistics.fmean(values) for values in zip(*of, strict=False)] for name, of in lines.items()}


def _epochs_figure(by_epoch: Mapping[str, Sequence[float]], metric: Metric) -> Markup:
    def plot(figure):
        axes = figure.subplots()
        for (name, values), (dashes, color) in zip(by_epoch.items(), itertools.cycle(LINE_LOOKS), strict=False):
            axes.plot([metric.factor * value for value in values], linestyle=dashes, color=color, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric.axis)
        axes.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside lower left", ncols=1, handlelength=1.6)

    alt = "; ".join(
        f"{name} {metric.write(values[0])} to {metric.write(values[-1])}" for name, values in by_epoch.items()
    )
    return svg.draw("epochs", f"{metric.axis} by epoch: {alt}.", plot, height=240 + 18 * len(by_epoch))


def _widths(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Kept channels of each group by method, the mean over its runs; None where nothing was kept."""
    kept: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, int] = {}
    methods = dict.fromkeys(record["method"] for record in runs if record.get("kept"))
    for record in runs:
        for group, (count, size) in (record.get("kept") or {}).items():
            kept.setdefault(group, {}).setdefault(record["method"], []).append(count)
            sizes[group] = size
    lines = [
        [group, f"{sizes[group]:,}", *(formats.short(statistics.fmean(of[m])) if m in of else "-" for m in methods)]
        for group, of in kept.items()
    ]
    return {"headings": ["group", "channels", *methods], "lines": lines} if lines else None


def _runs(runs: Sequence[Mapping[str, Any]], metric: Metric) -> dict[str, Any]:
    """Every run on a line."""
    keys = {f"{metric.key}_before_finetuning": "before", metric.key: "after"}
    lines = [
        [
            record["method"],
            str(record.get("seed", "")),
            *("failed" if "failure" in record else metric.write(record.get(key)) for key in keys),
            *(formats.count(record.get(key)) for key in ("macs", "params")),
            *(formats.duration(record.get(f"{key}_seconds")) for key in ("auxiliary", "selection", "finetuning")),
        ]
        for record in runs
    ]
    headings = ["method", "seed", *keys.values(), "MACs", "params", "auxiliary", "selection", "fine-tuning"]
    return {"headings": headings, "lines": lines}
