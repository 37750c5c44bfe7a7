"""Criteria that look at the weights alone.

Where several layers make the channels of a group (a sum of feature maps), the scores of each are scaled to mean 1 and
added, so that none counts for more because its weights are larger.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.importance.evidence import Evidence, Scores

_BLOCK = 4096  # weights of each filter that are multiplied at a time


def random(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """A number drawn for each channel."""
    return {
        group.name: np.random.default_rng([evidence.seed, number]).random(group.size)
        for number, group in enumerate(groups)
    }


def width_multiplier(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The first channels before the last: which ones stay has no meaning where all weights are drawn anew."""
    return {group.name: -np.arange(group.size, dtype=np.float64) for group in groups}


def l1(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The L1 norm of the filters that make each channel (Li et al. 2017, arXiv:1608.08710)."""
    return _of_filters(evidence.graph, groups, lambda filters: np.abs(filters).sum(1, dtype=np.float64))


def l2(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The L2 norm of the filters that make each channel (He et al. 2018, arXiv:1808.06866)."""
    return _of_filters(evidence.graph, groups, lambda filters: np.sqrt(np.square(filters).sum(1, dtype=np.float64)))


def fpgm(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The sum of the L2 distances of a filter to all filters of its layer (He et al. 2019, arXiv:1811.00250, eq. 5).

    The filters nearest to the geometric median have the lowest sums: the others can stand in for them.
    """
    return _of_filters(evidence.graph, groups, _distances)


def bn_scale(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """|gamma| of the BatchNormalization behind each channel (network slimming, Liu et al. 2017, arXiv:1708.06519).

    All BatchNormalizations that the channels of a group pass count, as those behind the layers that make them and
    behind a depthwise convolution.
    """
    check_scales(evidence.graph, groups)
    scores = {}
    for group in groups:
        found = [_by_channel(abs(gamma), channel, group.size) for gamma, channel in _gammas(evidence.graph, group)]
        scores[group.name] = np.sum(found, axis=0)
    return scores


def check_filters(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
    """Raises UsageError for a group that no layer with filters makes."""
    for group in groups:
        if not graph.producing_kernels(group):
            raise UsageError(
                f"the channels of {group.name!r} are not made by filters that could be ranked by their weights; "
                "leave it out with exclude=NAME, or choose another method",
                setting="exclude",
            )


def check_scales(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
    """Raises UsageError for a group behind which there is no gamma."""
    for group in groups:
        if not _gammas(graph, group):
            raise UsageError(
                f"bn_scale ranks by BatchNormalization's gamma, and the channels of {group.name!r} pass none; "
                "leave it out with exclude=NAME, or choose another method",
                setting="exclude",
            )


def _of_filters(
    graph: ChannelGraph, groups: Sequence[ChannelGroup], importance: Callable[[np.ndarray], np.ndarray]
) -> Scores:
    """Scores of the filters (rows of a matrix) of each layer, by the channel that they make."""
    check_filters(graph, groups)
    scores = {}
    for group in groups:
        scores[group.name] = np.zeros(group.size)
        for weight, axis, channel in graph.producing_kernels(group):
            filters = np.moveaxis(weight, axis, 0).reshape(len(channel), -1)
            scores[group.name] += _by_channel(importance(filters), channel, group.size)
    return scores


def _by_channel(values: np.ndarray, channel: np.ndarray, size: int) -> np.ndarray:
    """The values of one layer added by channel and scaled to mean 1; those of other groups (-1) are left out."""
    mine = channel >= 0
    return np.bincount(channel[mine], values[mine], size) / max(values[mine].mean(dtype=np.float64), 1e-30)


def _distances(filters: np.ndarray) -> np.ndarray:
    """For each row the sum of its distances to all rows."""
    products = np.zeros((len(filters), len(filters)))
    for block in np.array_split(filters, max(1, -(-filters.shape[1] // _BLOCK)), axis=1):
        # In float32 the distance of equal filters would drown in the rounding of their squares.
        block = block.astype(np.float64)
        products += block @ block.T
    squares = np.diag(products)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0)).sum(1)


def _gammas(graph: ChannelGraph, group: ChannelGroup) -> list[tuple[np.ndarray, np.ndarray]]:
    """The gammas that scale a group's channels, each with the channel per position (-1: of another group)."""
    channel_of_label = graph.channel_of_label(group)
    found = []
    for record in graph.records.values():
        layer = record.operation
        if not isinstance(layer, keras.layers.BatchNormalization) or layer.gamma is None:
            continue
        for index, by_axis in record.weights.items():
            if layer.weights[index] is layer.gamma:
                channel = channel_of_label[by_axis[0]]
                if (channel >= 0).any():
                    found.append((keras.ops.convert_to_numpy(layer.gamma), channel))
    return found
