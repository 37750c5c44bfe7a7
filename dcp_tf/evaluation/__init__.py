"""How good a classifier or an embedding of faces is, and how alike two classifiers are."""

from dcp_tf.evaluation.metrics import accuracy, agreement, top1_classes
from dcp_tf.evaluation.verification import Verification, embed, verify, verify_embeddings

__all__ = ["Verification", "accuracy", "agreement", "embed", "top1_classes", "verify", "verify_embeddings"]
