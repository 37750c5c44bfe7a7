"""Fractions of a model: what depends on each group, and what pruning can reach."""

import math

import keras
import numpy as np

from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.cost import count_cost, is_statistic
from dcp_tf.graph.kinds import layers_of


def group_fractions(graph: ChannelGraph) -> dict[str, tuple[float, float | None]]:
    """The fractions of parameters and MACs that depend on each group, by group name.

    They are what would be removed with all channels of the group. A kernel depends on the group that it reads and on
    the group that it produces, so the fractions of all groups add up to more than 1. The fraction of the MACs is None
    if sizes are open.
    """
    count, group_of_label = len(graph.groups) + 1, graph.group_of_label()
    group_of_head = graph.group_of_label(of_heads=True)
    params, macs = np.zeros(count), np.zeros(count)
    parts: dict[tuple[int, int], np.ndarray] = {}

    def shares(labels: np.ndarray) -> np.ndarray:
        """Per group the share of the labels that go with all of its channels, or with all of its heads."""
        own, head = (np.bincount(g[labels].ravel(), minlength=count)[:count] for g in (group_of_label, group_of_head))
        return (own + np.where(np.arange(count) < count - 1, head, 0)) / labels.size

    for key, record in graph.records.items():
        for index, by_axis in record.weights.items():
            stays = np.ones(count)
            for labels in by_axis.values():
                stays *= 1 - shares(labels)
            parts[key, index] = 1 - stays
            weight = record.operation.weights[index]
            if not is_statistic(record.operation, weight):
                params += parts[key, index] * math.prod(weight.shape)
    for record, _, multiplications in graph.multiplications:
        for multiplication in multiplications:
            weight, positions = multiplication.weight, multiplication.positions
            if positions is None:
                continue
            part = np.zeros(count) if weight is None else parts.get((id(record.operation), weight), np.zeros(count))
            if multiplication.labels is not None:
                part = 1 - (1 - part) * (1 - shares(multiplication.labels))
                positions *= multiplication.labels.size
            macs += part * positions * (1 if weight is None else math.prod(record.operation.weights[weight].shape))
    total = count_cost(graph, open_sizes=True)
    of_macs = [None] * count if total.macs is None else (macs / max(total.macs, 1)).tolist()
    of_params = (params / max(total.params, 1)).tolist()
    return {group.name: (of_params[i], of_macs[i]) for i, group in enumerate(graph.groups)}


def shrinkable_fraction(
    graph: ChannelGraph, residual: bool = True, kinds: tuple[type[keras.layers.Layer], ...] | None = None
) -> float:
    """The fraction of a network's convolution parameters that belong to layers which can lose channels.

    Args:
        graph: the groups of the model.
        residual: whether residual streams may lose channels too.
        kinds: the classes of layers that count, in place of convolutions.

    Returns:
        A fraction of 1; 0 for a network without such layers.
    """
    prunable = {group.name for group in graph.prunable(residual)}
    is_prunable = np.array([*(group.name in prunable for group in graph.groups), False])
    prunable_label = is_prunable[graph.group_of_label()]
    total = reached = 0
    for record in graph.records.values():
        if isinstance(record.operation, layers_of() if kinds is None else kinds):
            size = sum(math.prod(weight.shape) for weight in record.operation.weights)
            vectors = [labels for by_axis in record.weights.values() for labels in by_axis.values()]
            total += size
            reached += size * any(prunable_label[labels].any() for labels in vectors)
    return reached / total if total else 0.0
