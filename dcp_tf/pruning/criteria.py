"""One-shot criteria: they rank the channels of groups in one look at the weights or at the data."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        graph: of the trained model.
        data: the training images; see `dcp_tf.data.Split`.
        outputs_kind: of the model, "logits", "softmax" or "sigmoid".
        method: the settings.
        seed: of everything that is drawn.
    """

    graph: ChannelGraph
    data: Any
    outputs_kind: str
    method: Any
    seed: int


def l1(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The L1 norm of the filters that make each channel (Li et al. 2017), each producer scaled to mean 1."""
    return {group.name: _l1_of_group(evidence.graph, group) for group in groups}


def _l1_of_group(graph: ChannelGraph, group: ChannelGroup) -> np.ndarray:
    scores = np.zeros(group.size)
    for weight, axis, channel in graph.producing_kernels(group):
        others = tuple(a for a in range(weight.ndim) if a != axis)
        norms = np.abs(weight).sum(others, dtype=np.float64)
        mine = channel >= 0
        scores += np.bincount(channel[mine], norms[mine], group.size) / max(norms[mine].mean(), 1e-30)
    return scores


def random(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """A number drawn for each channel."""
    return {
        group.name: np.random.default_rng([evidence.seed, number]).random(group.size)
        for number, group in enumerate(groups)
    }


CRITERIA: Mapping[str, Callable[[Evidence, Sequence[ChannelGroup]], Scores]] = {"l1": l1, "random": random}


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` positions with the largest scores, sorted; ties go to the lower number."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
