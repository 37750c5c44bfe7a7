"""One-shot criteria: they rank the channels of a group by the weights alone."""

from collections.abc import Callable

import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup


def l1(graph: ChannelGraph, group: ChannelGroup, rng: np.random.Generator) -> np.ndarray:
    """The L1 norm of the filters that make each channel (Li et al. 2017), each producer scaled to mean 1."""
    scores = np.zeros(group.size)
    for weight, axis, channel in graph.producing_kernels(group):
        others = tuple(a for a in range(weight.ndim) if a != axis)
        norms = np.abs(weight).sum(others, dtype=np.float64)
        mine = channel >= 0
        scores += np.bincount(channel[mine], norms[mine], group.size) / max(norms[mine].mean(), 1e-30)
    return scores


def random(graph: ChannelGraph, group: ChannelGroup, rng: np.random.Generator) -> np.ndarray:
    """A number drawn for each channel."""
    return rng.random(group.size)


CRITERIA: dict[str, Callable[[ChannelGraph, ChannelGroup, np.random.Generator], np.ndarray]] = {
    "l1": l1,
    "random": random,
}


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` positions with the largest scores, sorted; ties go to the lower number."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
