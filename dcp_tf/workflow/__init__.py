"""What a Python user does in a notebook: `Pruner` around the user's own `fit`, and `export`."""

from dcp_tf.workflow.exporting import ExportResult, export
from dcp_tf.workflow.pruner import Pruner

__all__ = ["ExportResult", "Pruner", "export"]
