"""The fraction of a network that pruning can reach."""

import math

import numpy as np

from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.rule import OperationRecord


def shrinkable_share(graph: ChannelGraph, residual: bool = True) -> float:
    """The fraction of a network's convolution parameters that belong to layers which can lose channels.

    Args:
        graph: the groups of the model.
        residual: whether residual streams may lose channels too.

    Returns:
        A fraction of 1; 0 for a network without convolutions.
    """
    free = np.zeros(int(graph.class_of_label.max(initial=-1)) + 1, bool)
    for group in graph.prunable(residual):
        free[group.classes] = True
    records = [r for r in graph.records.values() if isinstance(r.operation, layers_of())]
    total = sum(_size(r) for r in records)
    reached = sum(_size(r) for r in records if _follows(graph, r, free))
    return reached / total if total else 0.0


def _follows(graph: ChannelGraph, record: OperationRecord, free: np.ndarray) -> bool:
    """Whether an axis of one of the layer's weights has a channel that may go."""
    vectors = [labels for by_axis in record.weights.values() for labels in by_axis.values()]
    return any(free[graph.class_of_label[labels]].any() for labels in vectors)


def _size(record: OperationRecord) -> int:
    return sum(math.prod(w.shape) for w in record.operation.weights)
