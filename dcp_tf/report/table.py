"""The summary of a run as one table for the terminal, the log and the README."""

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dcp_tf.report import rows

FOOTNOTE = "(?) inconclusive: within the noise of the measurement, not a gain"


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Compares baseline and pruned model: accuracy, cost, and size, accuracy and latency of each quantization.

    Args:
        summary: what `summary.json` holds. Figures that are absent leave their row out.

    Returns:
        A table with the columns baseline, pruned and change that fits 80 columns and needs no colours.

    Raises:
        UsageError: `summary` has not the form of a summary.
    """
    summary = rows.checked_summary(summary)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.title, table.title_justify = Text(_title(summary), style="bold"), "left"
    table.add_column("", no_wrap=True)
    for heading in ("baseline", "pruned", "change"):
        table.add_column(heading, justify="right")
    pairs = [rows.file_rows(pair) for pair in rows.file_pairs(summary)]
    for section in (rows.model_rows(summary), *pairs):
        for row in section:
            change = Text(row.change, style="yellow" if row.inconclusive else "bold")
            table.add_row(Text(row.label), row.baseline, row.pruned, change)
        table.add_section()
    if any(row.inconclusive for section in pairs for row in section):
        table.caption = Text(FOOTNOTE)
        table.caption_justify = "left"
    return table


def _title(summary: Mapping[str, Any]) -> str:
    title = str(summary.get("model", "model"))
    if summary.get("dataset"):
        title += f" on {summary['dataset']}"
    if summary.get("method"):
        title += f", pruned with {summary['method']}"
    return title


def print_summary(summary: Mapping[str, Any]) -> None:
    """Prints the table of `summary` on standard output, in colour on a terminal only.

    Raises:
        UsageError: `summary` has not the form of a summary.
    """
    Console(highlight=False).print(summary_table(summary))


def summary_text(summary: Mapping[str, Any]) -> str:
    """The table of `summary` as plain text that is a Markdown table too, ready for a README.

    Raises:
        UsageError: `summary` has not the form of a summary.
    """
    table = summary_table(summary)
    title, caption = table.title, table.caption
    table.title = table.caption = None
    table.box = box.MARKDOWN
    table.pad_edge = table.show_edge = True
    table.collapse_padding = False
    stream = io.StringIO()
    # Wider than any table, for Markdown knows no cell of two lines.
    Console(file=stream, width=1000, color_system=None, highlight=False).print(table)
    lines = [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
    head = [title.plain, ""]
    foot = ["", caption.plain] if caption else []
    return "\n".join([*head, *lines, *foot]) + "\n"
