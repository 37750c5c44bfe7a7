"""The methods and their settings; each ranks or selects the channels of the same groups."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.stopping import FixedRate, RelativeChangeOrCap, StoppingRule
from dcp_tf.settings.budget import Adaptive, Budget
from dcp_tf.settings.scope import Scope, WidthSettings
from dcp_tf.settings.selection import Images, Selection
from dcp_tf.settings.table import documented, rules

MOST_STEPS = 32  # of Algorithm 2 for one group, or one layer of kernels, unless B is given


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Budget, Scope):
    """What every method needs to know."""

    name: ClassVar[str]
    chooses_channels: ClassVar[bool] = True  # whether groups lose channels
    chooses_kernels: ClassVar[bool] = False  # whether layers lose single kernels
    uses_heads: ClassVar[bool] = False  # whether auxiliary classifiers are trained
    from_scratch: ClassVar[bool] = False  # whether the smaller model gets new weights and is trained from scratch
    guided: ClassVar[bool] = False  # whether Algorithm 1 runs; else the choice is made in one shot
    round_to, min_channels, rates = 1, 1, ()  # where a method has no `WidthSettings`

    def __post_init__(self):
        super().__post_init__()
        if self.allocation == "global" and (self.from_scratch or self.chooses_kernels):
            raise UsageError(f"{self.name} compares no channels of several groups: allocation must be uniform")
        if self.chooses_kernels and self.target is not None and self.target.cost is not None:
            raise UsageError(
                f"{self.name} removes kernels, whose zeros are as slow and as large: give another target than "
                f"{self.target.measure}"
            )

    def stopping(self, width: int) -> StoppingRule:
        """When a group has enough channels that keeps `width` at most."""
        return FixedRate(self.rate, self.round_to, self.min_channels, width)

    def settings(self) -> dict[str, Any]:
        """All settings, as JSON files hold them."""
        names = [field.name for field in dataclasses.fields(self)]
        names += [name for table in (WidthSettings, Selection) for name in rules(table) if hasattr(self, name)]
        values = {name: getattr(self, name) for name in names}
        target = self.target.settings() if self.target else None
        for name in ("prune_blocks", "search_scope", "rotate_streams"):
            if not values[name]:  # what earlier versions wrote has no such setting, and resumes
                del values[name]
        return values | {"target": target, "allocation": self.allocates}

    @property
    def trains_whole(self) -> bool:
        """Whether the auxiliary losses train the whole model, and not their classifiers alone."""
        return self.guided and self.uses_heads and (self.per_stage or self.auxiliary_trains == "all")

    def check_blocks(self, graph: ChannelGraph) -> None:
        """Raises UsageError where the method cannot remove whole blocks although it shall."""
        name = "prune_blocks" if self.prune_blocks else "search_scope"
        if not self.offers_blocks:
            return
        if not self.guided or self.chooses_kernels or type(self).score_channels is not Method.score_channels:
            raise UsageError(f"{self.name} measures no losses: {name} is for dcp and adapt_dcp", name)
        if not graph.blocks and (self.prune_blocks or len(graph.prunable(True)) == len(graph.prunable(False))):
            streams = "" if self.prune_blocks else "no residual stream that can be narrowed and "
            raise UsageError(f"the model has {streams}no residual block that can go as a whole", name)

    @property
    def allocates(self) -> str:
        """How the widths are shared out among the groups: "uniform" or "global"."""
        return self.allocation or "uniform"

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError where the method cannot choose among the channels of one of the groups."""

    def score_channels(self, context: Any, groups: Sequence[ChannelGroup]) -> Mapping[str, np.ndarray] | None:
        """The importance of each channel by group name; None for methods that choose layer by layer."""
        return None


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class RefitsWeights(Method, Images):
    """What methods need to know that fit the remaining weights, layer by layer."""

    guided: ClassVar[bool] = True
    chooser: ClassVar[Callable | None] = None  # in the quadratic models of a group's consumers alone

    @property
    def passes(self) -> int:
        """Passes of SGD over the selection set per step."""
        return int(self.selection == "exact") if self.selection_passes is None else self.selection_passes

    @property
    def recovers(self) -> bool:
        """Whether all weights are fitted together after surgery."""
        return self.selection == "fast" if self.recover is None else self.recover > 0

    def step_size(self, keep: int) -> int:
        """B for a group that keeps at most `keep` channels."""
        return max(2, math.ceil(keep / MOST_STEPS)) if self.per_step is None else self.per_step

    @property
    def uses_heads(self) -> bool:
        """Whether a loss behind the layers guides the selection."""
        return self.guided and bool(self.discrimination)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Guided(RefitsWeights, Selection):
    """What methods need to know that look at layers' outputs and losses."""


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class DCP(WidthSettings, Guided):
    """Discrimination-aware channel pruning at a fixed rate (Liu et al. 2021, Algorithms 1 and 2)."""

    name: ClassVar[str] = "dcp"

    @property
    def allocates(self) -> str:
        """Global under a target; where the selection finds the widths, it finds them inside of the allocated ones."""
        free = self.target is not None and not self.chooses_kernels
        return self.allocation or ("global" if free else "uniform")


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptDCP(Adaptive, DCP):
    """DCP that finds each group's width by SC2 (Liu et al. 2021, eq. 11).

    A group keeps at most `ceil((1 - rate) * c)` channels.
    """

    name: ClassVar[str] = "adapt_dcp"

    def stopping(self, width: int) -> StoppingRule:
        """SC2."""
        return RelativeChangeOrCap(self.epsilon, self.round_to, self.min_channels, self.rate, width)
