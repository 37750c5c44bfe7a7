"""The summary of a run as a table for the terminal and the log."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dcp_tf.report import formats, table_rows
from dcp_tf.report.metrics import EMBEDDING_METRICS, METRICS, file_metric

HEADINGS = ("baseline", "pruned", "change")
FOOTNOTE = "(?) inconclusive: within measurement noise, not a gain"
QUIETEST = "(q) of the quietest runs: the medians are too noisy"


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Compares baseline and pruned model: accuracy, cost, and size, accuracy and latency of each quantization.

    Args:
        summary: the content of `summary.json`. Rows without values are left out.

    Returns:
        A table with the columns baseline, pruned and change that fits 80 columns and needs no colors.

    Raises:
        UsageError: `summary` is malformed.
    """
    sections = _sections(summary)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.title, table.title_justify = Text(_title(summary), style="bold"), "left"
    table.add_column("", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right")
    for section in sections:
        for row in section:
            change = Text(row.change, style="yellow" if row.inconclusive else "bold")
            table.add_row(Text(row.label), row.baseline, row.pruned, change)
        table.add_section()
    if notes := _footnotes(summary, sections):
        table.caption, table.caption_justify = Text("\n".join(notes)), "left"
    return table


def kernel_table(summary: Mapping[str, Any]) -> Table:
    """How many kernels each layer of the pruned model keeps, where kernels were pruned."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.title, table.title_justify = Text("Kernels of the pruned model", style="bold"), "left"
    table.add_column("", overflow="fold")
    for heading in ("kernels", "kept", "zero"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in table_rows.kernel_rows(summary):
        table.add_row(Text(row.layer), formats.count(row.kernels), formats.count(row.kept), row.zeros)
    return table


def files_table(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """The `tflite` part of a summary: one row for each file, with its size and how close it is to its Keras model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    metric = next((file_metric(record) for record in records.values()), METRICS["top1"])
    quality = "top-1" if metric.key == "top1" else metric.label
    is_embedding = metric.key in EMBEDDING_METRICS
    decides = any(record["top1_agreement"] is not None for record in records.values())
    nearness = "cosine (least)" if is_embedding else "agrees with Keras" if decides else "SNR to Keras"
    is_measured = any(formats.is_number(record.get(metric.key)) for record in records.values())
    for heading in ("file", "size", *[quality] * is_measured, nearness, "largest error"):
        table.add_column(
            heading, justify="left" if heading == "file" else "right", no_wrap=heading != "file", overflow="fold"
        )
    for name, record in records.items():
        agreement, value = formats.percent(record["top1_agreement"]), metric.write(record.get(metric.key))
        if is_embedding and formats.is_number(record.get("cosine_mean")):
            agreement = f"{record['cosine_mean']:.4f} ({record['cosine_min']:.3f})"
        elif not decides:
            agreement = formats.decibels(record["snr_db"])
        values = [value] * is_measured
        table.add_row(name, formats.size(record["bytes"]), *values, agreement, f"{record['max_error']:.2g}")
    return table


def _sections(summary: Mapping[str, Any]) -> list[list[table_rows.Row]]:
    """The rows of the table: first those of the models, then those of each quantization."""
    summary = table_rows.checked_summary(summary)
    return [table_rows.model_rows(summary), *(table_rows.file_rows(pair) for pair in table_rows.file_pairs(summary))]


def _footnotes(summary: Mapping[str, Any], sections: list[list[table_rows.Row]]) -> list[str]:
    """The notes below the table: its marks, and where latency was measured."""
    shown = [row for section in sections for row in section]
    notes = [FOOTNOTE] * any(row.inconclusive for row in shown) + [QUIETEST] * any("(q)" in row.change for row in shown)
    devices = dict.fromkeys(record.get("latency_device") for record in (summary.get("tflite") or {}).values())
    hint = "dcp-tf benchmark --device=android measures a phone"
    return [*notes, *(f"latency: on {device}; {hint}" for device in devices if device)]


def _title(summary: Mapping[str, Any]) -> str:
    title = str(summary.get("model", "model"))
    if summary.get("dataset"):
        title += f" on {summary['dataset']}"
    if summary.get("method"):
        title += f", pruned with {summary['method']}"
    return title


def print_summary(summary: Mapping[str, Any]) -> None:
    """Prints the tables of `summary` on standard output, in color on a terminal only.

    Raises:
        UsageError: `summary` is malformed.
    """
    console = Console(highlight=False)
    console.print(summary_table(summary))
    if summary.get("pruned", {}).get("kernel_sparsity"):
        console.print(kernel_table(summary))
