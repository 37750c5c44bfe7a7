"""Criteria that look at nothing: what the choice of channels is compared with."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dcp_tf.graph import ChannelGroup
from dcp_tf.pruning.importance.criterion import Criterion, Scores, register_importance
from dcp_tf.pruning.methods import Method
from dcp_tf.settings.scope import WidthSettings
from dcp_tf.settings.selection import Heads
from dcp_tf.settings.table import same_setting


@register_importance
class Random(Criterion):
    """Channels drawn randomly; with `update` the paper's Random-DCP."""

    name: ClassVar[str] = "random"

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Scores:
        """A number drawn for each channel."""
        draws = (np.random.default_rng([context.seed, number]) for number in range(len(groups)))
        return {group.name: draw.random(group.size) for group, draw in zip(groups, draws, strict=True)}


@register_importance
class WidthMultiplier(WidthSettings, Method):
    """The same shape without any choice: the first channels stay, and all weights are reinitialized.

    The network is trained from scratch with the schedule of the fine-tuning; it shows what the choice gains
    (width multiplier, Howard et al. 2017, arXiv:1704.04861; WM in Liu et al. 2021). With auxiliary classifiers, which
    take part in that training, it is WM+ of the paper.
    """

    name: ClassVar[str] = "width_multiplier"
    from_scratch: ClassVar[bool] = True
    auxiliary_losses: int = same_setting(Heads, "auxiliary_losses", 0)
    auxiliary_layers: tuple[str, ...] = same_setting(Heads, "auxiliary_layers", ())

    @property
    def uses_heads(self) -> bool:
        """Whether it is WM+."""
        return bool(self.auxiliary_losses or self.auxiliary_layers)

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Scores:
        """The first channels before the last: which ones stay has no meaning where all weights are reinitialized."""
        return {group.name: -np.arange(group.size, dtype=np.float64) for group in groups}
