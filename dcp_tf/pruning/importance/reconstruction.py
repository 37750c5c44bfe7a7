"""ThiNet and LASSO: they choose layer by layer, in one look at what the next layers' outputs are made of."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.elimination.thinet_lasso import Chooser, check_layers, lasso, thinet
from dcp_tf.pruning.importance.criterion import register_importance
from dcp_tf.pruning.methods import RefitsWeights
from dcp_tf.settings.scope import WidthSettings
from dcp_tf.settings.selection import Search


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reconstruction(WidthSettings, RefitsWeights):
    """Layer by layer from shallow to deep, in one look at what the next layers' outputs are made of.

    What `Guided` leaves to the user is fixed here.
    """

    auxiliary_losses, auxiliary_layers, auxiliary_trains, per_stage = 0, (), None, False
    reconstruction, discrimination = 1.0, 0.0
    selection, per_step, score, selection_passes, recover = "fast", None, None, 0, 0
    selection_lr = Search.selection_lr

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group whose consumers cannot be reconstructed so."""
        check_layers(graph, groups, self.name)


@register_importance
class ThiNet(_Reconstruction):
    """The channels stay without which the next layers' outputs change most, and are scaled (Luo et al. 2017)."""

    name: ClassVar[str] = "thinet"
    chooser: ClassVar[Chooser] = staticmethod(thinet)


@register_importance
class Lasso(_Reconstruction):
    """The channels stay that LASSO finds for the next layers' outputs, and are fitted (He et al. 2017)."""

    name: ClassVar[str] = "lasso"
    chooser: ClassVar[Chooser] = staticmethod(lasso)
