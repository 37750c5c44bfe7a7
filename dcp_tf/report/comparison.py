"""Comparison of methods: mean and spread of their runs as a table, as Markdown and as a plot."""

import dataclasses
import os
import pathlib
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dcp_tf.errors import UsageError
from dcp_tf.files import write_atomically, write_text
from dcp_tf.report import formats
from dcp_tf.report.metrics import Metric, find_metric

NOTE = (
    "before: {} before fine-tuning; mean and standard deviation over the seeds. auxiliary, selection and "
    "fine-tuning: mean time of a run; runs of one seed share the auxiliary fine-tuning, and training includes an "
    "evaluation on the test images after each epoch."
)
_INK, _MUTED, _BEFORE, _AFTER = "#1f2328", "#8b949e", "#b35bb0", "#1f6fb5"


@dataclasses.dataclass(frozen=True)
class Spread:
    """One metric over the runs of a method.

    Attributes:
        values: one for each run that has it.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """The mean, None without values."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the sample, None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class MethodRuns:
    """The results of the runs of one method.

    Attributes:
        name: of the method with its options.
        runs: how many succeeded.
        figures: the values of the runs by their name in compare.json.
        failures: a line for each failed run.
    """

    name: str
    runs: int
    figures: Mapping[str, Spread]
    failures: tuple[str, ...] = ()


def summarize(comparison: Mapping[str, Any]) -> list[MethodRuns]:
    """The runs of each method together, in the order in which the methods were first run.

    Args:
        comparison: the content of `compare.json`.

    Raises:
        UsageError: it is malformed.
    """
    if not isinstance(comparison, Mapping) or not {"baseline", "runs"} <= comparison.keys():
        raise UsageError("a comparison needs a baseline and runs")
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for record in comparison["runs"]:
        by_method.setdefault(record["method"], []).append(record)
    return [_summary(name, records) for name, records in by_method.items()]


def _summary(name: str, records: Sequence[Mapping[str, Any]]) -> MethodRuns:
    good = [record for record in records if "failure" not in record]
    keys = dict.fromkeys(key for record in good for key, value in record.items() if formats.is_number(value))
    figures = {
        key: Spread(tuple(record[key] for record in good if formats.is_number(record.get(key))))
        for key in keys
        if key != "seed"
    }
    failures = tuple(f"{name}, seed {r['seed']}: {r['failure']}" for r in records if "failure" in r)
    return MethodRuns(name, len(good), figures, failures)


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """Baseline and methods: accuracy before and after fine-tuning, cost, time.

    Args:
        comparison: the content of `compare.json`.

    Raises:
        UsageError: it is malformed.
    """
    head, *body = table_cells(comparison)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.title, table.title_justify = Text(title_of(comparison), style="bold"), "left"
    for number, heading in enumerate(head):
        table.add_column(heading, justify="right" if number else "left", overflow="fold", no_wrap=bool(number))
    for line in body:
        table.add_row(*(Text(cell) for cell in line))
    table.caption, table.caption_justify = Text("\n".join(notes_of(comparison))), "left"
    return table


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Prints the table on standard output, in color on a terminal only.

    Raises:
        UsageError: `comparison` is malformed.
    """
    console = Console(highlight=False)
    table = comparison_table(comparison)
    if Measurement.get(console, console.options.update(max_width=1000), table).maximum <= console.width:
        console.print(table)
    else:
        print(comparison_lines(comparison))


def comparison_lines(comparison: Mapping[str, Any]) -> str:
    """The table for a narrow terminal or a log: each method with its figures below it.

    Raises:
        UsageError: `comparison` is malformed.
    """
    head, *body = table_cells(comparison)
    lines = [title_of(comparison)]
    for name, *cells in body:
        lines.append(name)
        lines += [f"    {heading}: {cell}" for heading, cell in zip(head[1:], cells, strict=True)]
    wrapped = [part for note in notes_of(comparison) for part in textwrap.wrap(note, 80)]
    return "\n".join([*lines, *wrapped])


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """The table in Markdown.

    Raises:
        UsageError: `comparison` is malformed.
    """
    cells = [[cell.replace("|", "\\|") for cell in line] for line in table_cells(comparison)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |" for line in cells
    ]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    notes = "\n\n".join(notes_of(comparison))
    return "\n".join([title_of(comparison), "", lines[0], rule, *lines[1:], "", notes]) + "\n"


def write_comparison(comparison: Mapping[str, Any], folder: str | os.PathLike) -> list[pathlib.Path]:
    """Writes compare.md and, if a run succeeded, the plot as compare.png and compare.svg.

    Returns:
        The paths.

    Raises:
        UsageError: `comparison` is malformed.
        RunError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    paths = [write_text(folder / "compare.md", comparison_text(comparison))]
    if any(method.runs for method in summarize(comparison)):
        paths += [draw_comparison(comparison, folder / f"compare.{suffix}") for suffix in ("png", "svg")]
    return paths


def draw_comparison(comparison: Mapping[str, Any], path: str | os.PathLike) -> pathlib.Path:
    """Draws each run as a dot and each method as mean and standard deviation: top-1 before and after, selection time.

    Args:
        comparison: the content of `compare.json`.
        path: ends in .png or .svg.

    Raises:
        UsageError: `comparison` is malformed.
        RunError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    methods = [method for method in summarize(comparison) if method.runs]
    metric, panels = metrics_of(comparison)[0], panels_of(comparison)
    colors = {metric.key: _AFTER, "selection_seconds": _INK}
    baseline = comparison["baseline"].get(metric.key)
    style = {"font.size": 10, "text.parse_math": False, "svg.hashsalt": "dcp_tf", "figure.constrained_layout.use": True}
    style |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#d0d7de", "grid.linewidth": 0.7}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(3.6 * len(panels) + 1.4, 1.2 + 0.42 * len(methods)))
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            mark = baseline if panel.key == metric.key and formats.is_number(baseline) else None
            draw_spreads(axes, methods, panel, colors.get(panel.key, _BEFORE), _MUTED, mark)
        figure.suptitle(title_of(comparison), fontsize=11, color=_INK)
        kind = pathlib.Path(path).suffix.removeprefix(".")
        date = {"Date": None} if kind == "svg" else {}
        return write_atomically(path, lambda name: figure.savefig(name, format=kind, dpi=160, metadata=date))


@dataclasses.dataclass(frozen=True)
class Panel:
    """One figure of all methods: its key in compare.json, the label of its axis, the factor to what is shown."""

    key: str
    label: str
    factor: float


def panels_of(comparison: Mapping[str, Any]) -> list[Panel]:
    """What is drawn: the primary metric before and after fine-tuning and the time of the selection, where measured."""
    metric = metrics_of(comparison)[0]
    name, _, unit = metric.axis.partition(" (")
    unit = unit and f" ({unit}"
    panels = [
        Panel(f"{metric.key}_before_finetuning", f"{name} before fine-tuning{unit}", metric.factor),
        Panel(metric.key, f"{name} after fine-tuning{unit}", metric.factor),
        Panel("selection_seconds", "selection (s)", 1),
    ]
    methods = summarize(comparison)
    return [panel for panel in panels if any(panel.key in method.figures for method in methods)]


def draw_spreads(
    axes: Any, methods: Sequence[MethodRuns], panel: Panel, color: str, mark_color: str, mark: float | None = None
) -> None:
    """Draws each run as a dot and each method as mean and standard deviation, with a line at `mark`."""
    for row, method in enumerate(methods):
        spread = method.figures.get(panel.key, Spread(()))
        values = [panel.factor * value for value in spread.values]
        axes.plot(values, [row] * len(values), "o", color=color, alpha=0.35, markersize=4, markeredgewidth=0)
        if values:
            error = None if spread.deviation is None else panel.factor * spread.deviation
            axes.errorbar(panel.factor * spread.mean, row, xerr=error, fmt="D", color=color, markersize=5, capsize=3)
    if mark is not None:
        axes.axvline(panel.factor * mark, color=mark_color, linestyle="--", linewidth=1)
    if panel.key == "selection_seconds":
        axes.set_xlim(left=-0.04 * max(axes.get_xlim()[1], 1e-3))
    axes.set_xlabel(panel.label)
    axes.set_yticks(range(len(methods)), [method.name.replace(":", "\n") for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def metrics_of(comparison: Mapping[str, Any]) -> list[Metric]:
    """What methods are compared by, the primary one first."""
    keys = comparison.get("metrics") or ["top1"]
    return [find_metric(key) or Metric(key, key.replace("_", " "), key, is_fraction=False) for key in keys]


def _columns(methods: Sequence[MethodRuns], metrics: Sequence[Metric]) -> dict[str, str]:
    """Headings by the figure that stands below them."""
    columns = {
        f"{metrics[0].key}_before_finetuning": f"before{' (%)' * metrics[0].is_fraction}",
        **{metric.key: metric.axis for metric in metrics},
        "macs": "MACs",
        "nominal_macs": "without zeros",
        "params": "params",
        "auxiliary_seconds": "auxiliary",
        "selection_seconds": "selection",
        "finetuning_seconds": "fine-tuning",
    }
    if not any("nominal_macs" in method.figures for method in methods):
        del columns["nominal_macs"]
    return columns


def table_cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    """The table as text: the headings, the baseline, a line for each method."""
    methods, baseline = summarize(comparison), comparison["baseline"]
    metrics = metrics_of(comparison)
    columns, by_key = _columns(methods, metrics), {metric.key: metric for metric in metrics}
    keys = (*by_key, "macs", "params")
    known = {key: Spread((baseline[key],)) for key in keys if formats.is_number(baseline.get(key))}
    lines = [["method", "runs", *columns.values()], ["baseline", "", *_figures(columns, by_key, known, {})]]
    lines += [[m.name, str(m.runs), *_figures(columns, by_key, m.figures, baseline)] for m in methods]
    return lines


def _figures(
    columns: Iterable[str], metrics: Mapping[str, Metric], figures: Mapping[str, Spread], baseline: Mapping[str, Any]
) -> list[str]:
    cells = []
    for key in columns:
        spread = figures.get(key, Spread(()))
        if (metric := metrics.get(key.removesuffix("_before_finetuning"))) is not None:
            cells.append(_percent(spread) if metric.is_fraction else _number(spread))
        elif key.endswith("_seconds"):
            cells.append(formats.duration(spread.mean))
        else:
            cells.append(_cost(baseline.get(key.removeprefix("nominal_")), spread.mean))
    return cells


def _percent(spread: Spread) -> str:
    """Mean and standard deviation of accuracies in percent: "84.90 ± 0.31"."""
    if spread.mean is None:
        return formats.ABSENT
    deviation = "" if spread.deviation is None else f" ± {100 * spread.deviation:.2f}"
    return f"{100 * spread.mean:.2f}{deviation}"


def _number(spread: Spread) -> str:
    """Mean and standard deviation of numbers: "0.1031 ± 0.002"."""
    if spread.mean is None:
        return formats.ABSENT
    return formats.short(spread.mean) + ("" if spread.deviation is None else f" ± {formats.short(spread.deviation)}")


def _cost(baseline: float | None, mean: float | None) -> str:
    """A mean cost and, where there is one, its change from the baseline's: "20.50 M (-49.78%)"."""
    change = "" if baseline is None or mean is None else f" ({formats.change(baseline, mean)})"
    return formats.short_count(mean) + change


def notes_of(comparison: Mapping[str, Any]) -> list[str]:
    """What stands below the table: how to read it, and which runs failed."""
    return [NOTE.format(metrics_of(comparison)[0].axis.partition(" (")[0]), *_failures(comparison)]


def _failures(comparison: Mapping[str, Any]) -> list[str]:
    return [f"failed: {line}" for method in summarize(comparison) for line in method.failures]


def title_of(comparison: Mapping[str, Any]) -> str:
    """The model and its data."""
    return f"{comparison.get('model', 'model')} on {comparison.get('dataset', 'its data')}"
