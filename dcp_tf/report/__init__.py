"""The results of a run: the table on the terminal and one self-contained HTML page."""

from dcp_tf.report.comparison import comparison_table, comparison_text, print_comparison, summarize, write_comparison
from dcp_tf.report.comparison_page import write_comparison_page
from dcp_tf.report.page import write_report
from dcp_tf.report.terminal_table import files_table, print_summary, summary_table

__all__ = [
    "comparison_table",
    "comparison_text",
    "files_table",
    "print_comparison",
    "print_summary",
    "summarize",
    "summary_table",
    "write_comparison",
    "write_comparison_page",
    "write_report",
]
