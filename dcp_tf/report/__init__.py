"""What a run found, for the reader: the table on the terminal and one self-contained HTML page."""

from dcp_tf.report.page import write_report
from dcp_tf.report.table import files_table, print_summary, summary_table, summary_text

__all__ = ["files_table", "print_summary", "summary_table", "summary_text", "write_report"]
