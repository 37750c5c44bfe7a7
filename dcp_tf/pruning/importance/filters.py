"""Criteria that rank channels by the filters that make them.

Where several layers make the channels of a group (a sum of feature maps), the scores of each are scaled to mean 1 and
added, so that none counts for more because its weights are larger.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.importance.criterion import Criterion, Scores, register_importance

_BLOCK = 4096  # weights of each filter that are multiplied at a time


class FilterCriterion(Criterion):
    """A criterion that looks at each layer's filters alone."""

    def rank_filters(self, filters: np.ndarray) -> np.ndarray:
        """Scores of the filters of one layer, which are the rows of a matrix."""
        raise NotImplementedError

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group that no layer with filters makes."""
        for group in groups:
            if not graph.producing_kernels(group):
                raise UsageError(
                    f"the channels of {group.name!r} are not made by filters that could be ranked by their weights; "
                    "leave it out with exclude=NAME, or choose another method",
                    setting="exclude",
                )

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Scores:
        """See `Criterion`."""
        scores = {group.name: np.zeros(group.size) for group in groups}
        for group in groups:
            for weight, axis, channel in context.graph.producing_kernels(group):
                filters = np.moveaxis(weight, axis, 0).reshape(len(channel), -1)
                scores[group.name] += by_channel(self.rank_filters(filters), channel, group.size)
        return scores


@register_importance
class L1(FilterCriterion):
    """The channels whose filters have the largest L1 norm stay (Li et al. 2017, arXiv:1608.08710)."""

    name: ClassVar[str] = "l1"

    def rank_filters(self, filters: np.ndarray) -> np.ndarray:
        """The L1 norms."""
        return np.abs(filters).sum(1, dtype=np.float64)


@register_importance
class L2(FilterCriterion):
    """The channels whose filters have the largest L2 norm stay (He et al. 2018, arXiv:1808.06866)."""

    name: ClassVar[str] = "l2"

    def rank_filters(self, filters: np.ndarray) -> np.ndarray:
        """The L2 norms."""
        return np.sqrt(np.square(filters).sum(1, dtype=np.float64))


@register_importance
class FPGM(FilterCriterion):
    """The channels whose filters are farthest from the others of their layer stay (He et al. 2019, arXiv:1811.00250).

    The filters nearest to the geometric median have the lowest sums of distances (eq. 5): others can stand in for them.
    """

    name: ClassVar[str] = "fpgm"

    def rank_filters(self, filters: np.ndarray) -> np.ndarray:
        """The sum of the L2 distances of each filter to all filters."""
        products = np.zeros((len(filters), len(filters)))
        for block in np.array_split(filters, max(1, -(-filters.shape[1] // _BLOCK)), axis=1):
            # In float32 the distance of equal filters would drown in the rounding of their squares.
            block = block.astype(np.float64)
            products += block @ block.T
        squares = np.diag(products)
        return np.sqrt(np.maximum(squares[:, None] + squares - 2 * products, 0)).sum(1)


def by_channel(values: np.ndarray, channel: np.ndarray, size: int) -> np.ndarray:
    """The values of one layer added by channel and scaled to mean 1; those of other groups (-1) are left out."""
    own = channel >= 0
    return np.bincount(channel[own], values[own], size) / max(values[own].mean(dtype=np.float64), 1e-30)
