"""Writes `report.html`: all results of a run on one page without network access or scripts."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from dcp_tf import drawing, files
from dcp_tf.errors import RunError
from dcp_tf.report import (
    answer_changes,
    content,
    formats,
    headline,
    network,
    plots,
    run_files,
    selection_curves,
    svg,
    table_rows,
)


def write_report(output_dir: str | os.PathLike) -> pathlib.Path:
    """Makes `report.html` from the records in a run's folder.

    Sections without records are left out, such as the TFLite files of a run without export.

    Args:
        output_dir: holds `summary.json` and perhaps `plan.json` and `benchmark.json`; receives `report.html`.

    Returns:
        The path of the page.

    Raises:
        UsageError: there is no summary, or a record is malformed.
        RunError: the page could not be written, or some plots could not be drawn.
    """
    run = run_files.read_run(output_dir)
    with svg.undrawn() as failures:
        page = render("page.html", _context(run))
    path = files.write_text(pathlib.Path(output_dir) / "report.html", page)
    if failures:
        raise RunError(f"report.html was written without some of its figures: {'; '.join(failures)}")
    return path


def render(template: str, context: dict[str, Any]) -> str:
    """A page from one of the templates beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["minus"] = _minus
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(context)


def _context(run: run_files.RunFiles) -> dict[str, Any]:
    """Everything that the template shows."""
    summary, groups = run.summary, run.groups
    phases = summary.get("phases") or []
    curves = [*selection_curves.curves(groups), *selection_curves.kernel_curves(run.kernels)]
    kernels = table_rows.kernel_rows(summary)
    layers = content.layer_bars(groups)
    drawn = network.layers_of(summary, groups)
    return {
        "title": str(summary.get("model", "model")),
        "method": summary.get("method"),
        "headline": headline.headline(summary),
        "lead": headline.lead(summary),
        "warning": content.baseline_warning(summary),
        "facts": facts_of(summary),
        "key_figures": headline.key_figures(summary),
        "advice": headline.advice(summary, run.answers),
        "answers": answer_changes.answer_changes(run.answers),
        "model_rows": table_rows.model_rows(summary, all_figures=True),
        "steps": content.step_table(summary),
        "files": content.file_records(summary),
        "latency_bars": content.latency_bars(summary, run.benchmark),
        "conditions": content.conditions(run.benchmark),
        "tradeoffs": _tradeoffs(summary),
        "network": network.draw_network(drawn),
        "network_ends": [drawn[0]["layer"], drawn[-1]["layer"]] if drawn else [],
        "layers": layers,
        "channels_kept": sum(len(group["kept"]) for group in groups if not group.get("pinned_because")),
        "channels": sum(group["size"] for group in groups if not group.get("pinned_because")),
        "kernel_layers": content.kernel_bars(summary),
        "kernels_kept": sum(row.kept for row in kernels),
        "kernels": sum(row.kernels for row in kernels),
        "pinned": content.pinned_groups(groups),
        "curves": curves,
        "selection_overview": plots.selection_overview(curves) if curves else None,
        "depth_colors": drawing.DEPTH_COLORS,
        "small_figure": (selection_curves.WIDTH, selection_curves.HEIGHT),
        "trainings": _trainings(phases),
        "heads": content.head_bars(phases),
        "epoch_tables": [table for phase in phases if (table := content.epoch_table(phase))],
        "phase_bars": content.phase_bars(phases),
        "wall_time": formats.duration(summary.get("wall_seconds")),
        **origin(summary, run.flags),
        "absent": formats.ABSENT,
    }


def _trainings(phases: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The curves of each training, and what it ended with."""
    return [
        {
            "name": ": ".join(filter(None, (str(phase.get("name", "training")), content.kept_epoch(phase)))),
            "figure": figure,
        }
        for number, phase in enumerate(phases)
        if (figure := plots.training_curves(f"training{number}", phase))
    ]


def _tradeoffs(summary: dict[str, Any]) -> list[tuple[str, bool, str]]:
    """The figures of accuracy against cost: caption, whether they have a legend, figure."""
    figures = (
        ("Accuracy against multiply-adds", False, plots.accuracy_against_macs(summary)),
        ("Accuracy against latency", True, plots.accuracy_against_latency(summary)),
    )
    return [(caption, has_legend, figure) for caption, has_legend, figure in figures if figure]


def origin(record: Mapping[str, Any], flags: str) -> dict[str, Any]:
    """The end of a page: how to repeat the run, its settings and the versions it ran with."""
    return {
        "repeat": content.repeat_commands(flags),
        "settings": {key: formats.plain(value) for key, value in (record.get("settings") or {}).items()},
        "versions": {key: formats.plain(value) for key, value in (record.get("versions") or {}).items()},
    }


def facts_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """The facts of the run in the line below the headline."""
    labels = {"dataset": "data", "method": "method", "seed": "seed", "created": "made", "dcp_tf_version": "dcp_tf"}
    facts = {label: formats.plain(summary[key]) for key, label in labels.items() if summary.get(key) is not None}
    if "made" in facts:
        facts["made"] = re.sub(
            r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d(\.\d+)?)?(Z|\+00:00)$", r"\1 \2 UTC", facts["made"]
        )
    if formats.is_number(summary.get("wall_seconds")):
        facts["took"] = formats.duration(summary["wall_seconds"])
    return facts


def _minus(text: str) -> str:
    """Replaces the hyphen before a number by a minus sign, which is as wide as a plus sign."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _breakable(name: str) -> Markup:
    """A text with line break opportunities after underscores, slashes and dots of names, for narrow screens."""
    return Markup(re.sub(r"([_/:]|\.(?!\d))", r"\1<wbr>", str(Markup.escape(name))))
