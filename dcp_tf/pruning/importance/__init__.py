"""One-shot criteria: they rank the channels of groups in one look at the weights or at the data."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dcp_tf.graph import ChannelGroup
from dcp_tf.pruning.importance.data import apoz, taylor
from dcp_tf.pruning.importance.evidence import Evidence, Scores
from dcp_tf.pruning.importance.weights import bn_scale, fpgm, l1, l2, random, width_multiplier

CRITERIA: Mapping[str, Callable[[Evidence, Sequence[ChannelGroup]], Scores]] = {
    criterion.__name__: criterion for criterion in (random, l1, l2, fpgm, bn_scale, taylor, apoz, width_multiplier)
}

__all__ = ["CRITERIA", "Evidence", "Scores", "largest"]


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` positions with the largest scores, sorted; ties go to the lower number."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
