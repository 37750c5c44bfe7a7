"""ThiNet and LASSO: they choose layer by layer, in one look at what the next layers' outputs are made of."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.elimination.thinet_lasso import Chooser, check_layers, lasso, thinet
from dcp_tf.pruning.importance.criterion import register_importance
from dcp_tf.pruning.methods import Guided


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reconstruction(Guided):
    """Layer by layer from shallow to deep, in one look at what the next layers' outputs are made of.

    Of the settings of `Guided` only `selection_samples`, `selection_batch` and `cache_gib` have a meaning.
    """

    auxiliary_losses: int = dataclasses.field(default=0, init=False)
    auxiliary_layers: tuple[str, ...] = dataclasses.field(default=(), init=False)
    per_stage: bool = dataclasses.field(default=False, init=False)
    per_step: int | None = dataclasses.field(default=None, init=False)
    reconstruction: float = dataclasses.field(default=1.0, init=False)
    discrimination: float = dataclasses.field(default=0.0, init=False)
    selection: str = dataclasses.field(default="fast", init=False)
    score: str | None = dataclasses.field(default=None, init=False)
    selection_lr: float = dataclasses.field(default=0.01, init=False)
    selection_passes: int | None = dataclasses.field(default=0, init=False)
    recover: float | None = dataclasses.field(default=0, init=False)

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group whose readers cannot be reconstructed so."""
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
