"""Which channels can go for good once kernels are gone: those that nothing reads, or that are constants."""

from collections.abc import Sequence

import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.constant_channels import fold_constants
from dcp_tf.pruning.problem.consumers import KernelMasks, channels_read


def remove_unread(
    graph: ChannelGraph, groups: Sequence[ChannelGroup], masks: KernelMasks
) -> dict[str, tuple[int, ...]]:
    """Finds the channels that are still needed, until nothing more can go.

    A channel goes where no kernel reads it, or where all filters that make it are gone and the constant they leave can
    be put into the biases behind it exactly. The filters of a channel that goes are set to zero, so that what only they
    have read can go too.

    Args:
        graph: of the model, whose weights are changed.
        groups: those that may lose channels.
        masks: what is there of all kernels; is kept up to date.

    Returns:
        Per group name the channels that stay, at least one.
    """
    constant = {group.name: np.zeros(group.size, bool) for group in groups}
    kept: dict[str, tuple[int, ...]] = {}
    while True:
        for name, channels in fold_constants(graph, groups).items():
            constant[name] |= channels
        before = kept
        kept = {group.name: _needed(graph, group, masks, constant[group.name]) for group in groups}
        if kept == before:
            return kept
        masks.drop_filters(graph, graph.kept(kept))


def _needed(graph: ChannelGraph, group: ChannelGroup, masks: KernelMasks, constant: np.ndarray) -> tuple[int, ...]:
    read = channels_read(masks.consumer_kernels(graph.consumers(group)), group.size) & ~constant
    read[0] |= not read.any()
    return tuple(np.flatnonzero(read).tolist())
