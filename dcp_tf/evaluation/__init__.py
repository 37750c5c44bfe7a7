"""How good a classifier is, and how alike two of them are."""

from dcp_tf.evaluation.metrics import accuracy, agreement, top1_classes

__all__ = ["accuracy", "agreement", "top1_classes"]
