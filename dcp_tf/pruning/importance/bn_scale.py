"""The criterion of network slimming."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.importance.criterion import Criterion, Scores, register_importance
from dcp_tf.pruning.importance.filters import by_channel


@register_importance
class BNScale(Criterion):
    """The channels with the largest BatchNormalization gammas stay (network slimming, Liu et al. 2017, 1708.06519).

    All BatchNormalizations that the channels of a group pass count, as those behind the layers that make them and
    behind a depthwise convolution.
    """

    name: ClassVar[str] = "bn_scale"

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group behind which there is no gamma."""
        for group in groups:
            if not _gammas(graph, group):
                raise UsageError(
                    f"bn_scale ranks by BatchNormalization's gamma, and the channels of {group.name!r} pass none; "
                    "leave it out with exclude=NAME, or choose another method",
                    setting="exclude",
                )

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Scores:
        """The sizes of the gammas."""
        return {
            g.name: sum(by_channel(abs(gamma), channel, g.size) for gamma, channel in _gammas(context.graph, g))
            for g in groups
        }


def _gammas(graph: ChannelGraph, group: ChannelGroup) -> list[tuple[np.ndarray, np.ndarray]]:
    """The gammas that scale a group's channels, each with the channel per position (-1: of another group)."""
    channel_of_label = graph.channel_of_label(group)
    gammas = []
    for record in graph.records.values():
        layer = record.operation
        if not isinstance(layer, keras.layers.BatchNormalization) or layer.gamma is None:
            continue
        for index, by_axis in record.weights.items():
            if layer.weights[index] is layer.gamma:
                channel = channel_of_label[by_axis[0]]
                if (channel >= 0).any():
                    gammas.append((keras.ops.convert_to_numpy(layer.gamma), channel))
    return gammas
