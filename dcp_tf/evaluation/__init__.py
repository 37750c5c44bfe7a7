"""Metrics of models: classification, other tasks, face verification, and agreement between models."""

from dcp_tf.evaluation.fidelity import cosines, decibels, fidelity, snr_db
from dcp_tf.evaluation.metrics import accuracy, agreement, predict_function, top1_classes
from dcp_tf.evaluation.tasks import (
    measure_dense,
    measure_multilabel,
    measure_regression,
    measure_sequences,
    recall_at_1,
)
from dcp_tf.evaluation.verification import Verification, embed, verify, verify_embeddings

__all__ = [
    "Verification",
    "accuracy",
    "agreement",
    "cosines",
    "decibels",
    "embed",
    "fidelity",
    "measure_dense",
    "measure_multilabel",
    "measure_regression",
    "measure_sequences",
    "predict_function",
    "recall_at_1",
    "snr_db",
    "top1_classes",
    "verify",
    "verify_embeddings",
]
