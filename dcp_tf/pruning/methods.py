"""The methods and their settings; each ranks or selects the channels of the same groups."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from dcp_tf.defaults import ROUND_TO
from dcp_tf.errors import UsageError
from dcp_tf.field_types import check_fields
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.budget import Target
from dcp_tf.pruning.problem.scores import SCORES
from dcp_tf.pruning.stopping import FixedRate, RelativeChangeOrCap, StoppingRule

ALLOCATIONS = ("uniform", "global")
SELECTIONS = ("exact", "fast")
_MOST_STEPS = 32  # of Algorithm 2 for one group, unless B is given


def check_rate(rate: float) -> None:
    """Raises UsageError unless a share may be removed."""
    if not 0 < rate < 1:
        raise UsageError(f"the pruning rate must lie between 0 and 1, received {rate}")


def check_epsilon(epsilon: float) -> None:
    """Raises UsageError unless a loss may be compared with it."""
    if not 0 <= epsilon < math.inf:
        raise UsageError(f"epsilon must be 0 or more, received {epsilon}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """What every method needs to know.

    Attributes:
        rate: pruning rate eta, the share of channels to remove from each group; between 0 and 1.
        round_to: kept counts are the nearest multiple of it; groups no wider than it follow the plain rate.
        min_channels: fewest channels that a group keeps.
        prune_residual: whether residual streams (sums of feature maps, with all layers that make or read them) and the
            units of recurrent layers lose channels too; the papers leave residual streams.
        exclude: regular expressions; groups whose whole name matches one keep all channels.
        rates: pairs (regular expression, rate): groups whose whole name matches have that rate; the first match counts.
        target: what the pruned model may cost. It then gives the common rate, in place of `rate`.
        allocation: "uniform": all groups lose the same share; "global": the channels that are worth least go first,
            whatever group they are in, until the model costs as little as by the common rate. None: global for DCP
            and AdaptDCP under a target (docs/decisions/017), uniform for all else; `allocates` says which.
        ignore_statistics: whether channels may go over which LayerNormalization and its like take statistics. The
            pruned model then differs from the masked one by these statistics, which fine-tuning has to mend.
    """

    name: ClassVar[str]
    rate: float = 0.5
    round_to: int = ROUND_TO
    min_channels: int = 1
    prune_residual: bool = False
    exclude: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    target: Target | None = None
    allocation: str | None = None
    ignore_statistics: bool = False

    def __post_init__(self):
        check_fields(self)
        for rate in (self.rate, *(rate for _, rate in self.rates)):
            check_rate(rate)
        if self.round_to < 1 or self.min_channels < 1:
            raise UsageError(
                f"round_to and min_channels must be 1 or more, received {self.round_to} and {self.min_channels}"
            )

        if self.allocation not in (None, *ALLOCATIONS):
            raise UsageError(f"allocation must be one of {', '.join(ALLOCATIONS)}, received {self.allocation!r}")
        if self.allocation == "global" and (self.from_scratch or self.chooses_kernels):
            raise UsageError(f"{self.name} compares no channels of several groups: allocation must be uniform")
        if self.chooses_kernels and self.target is not None and self.target.cost is not None:
            raise UsageError(
                f"{self.name} removes kernels, whose zeros are as slow and as large: give another target than "
                f"{self.target.measure}"
            )

    def stopping(self, rate: float) -> StoppingRule:
        """When a group has enough channels, `rate` being the share that it shall lose."""
        return FixedRate(rate, self.round_to, self.min_channels)

    def settings(self) -> dict[str, Any]:
        """All settings, as JSON files hold them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        target = self.target.settings() if self.target else None
        return values | {"target": target, "allocation": self.allocates}

    @property
    def allocates(self) -> str:
        """How the widths are shared out among the groups: "uniform" or "global"."""
        return self.allocation or "uniform"

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError where the method cannot choose among the channels of one of the groups."""

    @property
    def chooses_channels(self) -> bool:
        """Whether groups lose channels."""
        return True

    @property
    def chooses_kernels(self) -> bool:
        """Whether layers lose single kernels."""
        return False

    def excludes(self, name: str) -> bool:
        """Whether the group or layer of that name is left alone."""
        return any(re.fullmatch(pattern, name) for pattern in self.exclude)

    @property
    def uses_heads(self) -> bool:
        """Whether auxiliary classifiers are trained."""
        return False

    @property
    def from_scratch(self) -> bool:
        """Whether the smaller model gets new weights and is trained from scratch."""
        return False

    @property
    def guided(self) -> bool:
        """Whether Algorithm 1 runs, with its losses and the selection set; else the choice is made in one shot."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """What methods need to know that look at layers' outputs and losses, or fit the remaining weights.

    Attributes:
        auxiliary_losses: P, how many auxiliary classifiers to spread over the depth.
        auxiliary_layers: names of layers to put them at instead.
        auxiliary_trains: what the auxiliary losses train before the selection: "all", the whole model (the paper's), or
            "heads", the auxiliary classifiers alone; the model stays as it is. None: "heads" (docs/decisions/015).
            Not for `per_stage`, which trains the whole model.
        per_stage: the NeurIPS variant: one round of fine-tuning before each stage, with its loss and the final one.
        per_step: B, channels added per step; None: 2 as in the paper, and more in groups that keep over 64, so that no
            group takes over 32 steps.
        reconstruction: factor lambda of L_M in eq. 6; 0: discrimination-only.
        discrimination: factor of L_S^p; 0: reconstruction-only.
        selection: "fast" eliminates channels in a quadratic model of the joint loss that one pass over the images
            builds, and is exact where that model does not cover a layer; "exact" follows Algorithm 2 everywhere.
        score: by which channels come in where they are selected step by step: "paper", "code" or "reduction" (see
            `scores`); None: the one that measures best, "reduction". The fast selection has no such steps.
        selection_samples: images of the class-balanced selection set.
        selection_batch: batch size in the selection.
        selection_lr: learning rate of the sub-problem.
        selection_passes: passes of SGD over the selection set per step, or once where a group is selected fast; None: 1
            and 0.
        recover: minutes for fitting all weights of the pruned model together to the baseline's block outputs, without
            labels; 0: not at all. None: as long as its steps take in the fast selection, not at all in the exact one.
        cache_gib: memory that the selection takes beside the model and the images: half of it holds layer inputs, a
            quarter what passes make on their way, a quarter the matrices of quadratic models. Passes of SGD
            (selection="exact", or `selection_passes`) take what their batches need.
        cache_disk_gib: temporary files for what does not fit there (at most half of the free space); what does not fit
            either is computed at each use.
    """

    auxiliary_losses: int = 2
    auxiliary_layers: tuple[str, ...] = ()
    auxiliary_trains: str | None = None
    per_stage: bool = False
    per_step: int | None = None
    reconstruction: float = 1.0
    discrimination: float = 1.0
    selection: str = "fast"
    score: str | None = None
    selection_samples: int = 4096
    selection_batch: int = 128
    selection_lr: float = 0.01
    selection_passes: int | None = None
    recover: float | None = None
    cache_gib: float = 2.0
    cache_disk_gib: float = 8.0

    def __post_init__(self):
        super().__post_init__()
        if self.selection not in SELECTIONS:
            raise UsageError(f"selection must be one of {', '.join(SELECTIONS)}, received {self.selection!r}")
        if self.score is not None and (self.score not in SCORES or self.selection == "fast"):
            raise UsageError(
                f"score must be one of {', '.join(SCORES)}, and goes with selection='exact'; "
                f"received {self.score!r} with selection={self.selection!r}"
            )
        if self.auxiliary_trains not in (None, "all", "heads") or (self.per_stage and self.auxiliary_trains):
            raise UsageError(
                "auxiliary_trains must be all or heads, and is not for per_stage, which trains the whole model; "
                f"received {self.auxiliary_trains!r}"
            )
        factors = (self.reconstruction, self.discrimination)
        if not all(0 <= f < math.inf for f in factors) or not any(factors):
            raise UsageError(
                "the factors of the two losses must be 0 or more and not both 0, "
                f"received {self.reconstruction} and {self.discrimination}"
            )
        for field in ("per_step", "selection_samples", "selection_batch", "selection_passes"):
            if getattr(self, field) is not None and getattr(self, field) < (field != "selection_passes"):
                raise UsageError(f"{field} must be 1 or more, received {getattr(self, field)}")
        if self.recover is not None and not 0 <= self.recover < math.inf:
            raise UsageError(f"recover takes minutes, 0 or more, received {self.recover}")
        if (
            self.auxiliary_losses < 0
            or not 0 < self.selection_lr < math.inf
            or not all(0 <= gib < math.inf for gib in (self.cache_gib, self.cache_disk_gib))
        ):
            raise UsageError(
                "auxiliary_losses, cache_gib and cache_disk_gib must be 0 or more and selection_lr above 0, "
                f"received {self.auxiliary_losses}, {self.cache_gib}, {self.cache_disk_gib} and {self.selection_lr}"
            )

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
        return max(2, math.ceil(keep / _MOST_STEPS)) if self.per_step is None else self.per_step

    @property
    def chooser(self) -> Callable | None:
        """What chooses in the quadratic models of a group's consumers alone; None: as `choose` says."""
        return None

    @property
    def uses_heads(self) -> bool:
        """Whether a loss behind the layers guides the selection."""
        return self.guided and bool(self.discrimination)

    @property
    def guided(self) -> bool:
        """True."""
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCP(Guided):
    """Discrimination-aware channel pruning at a fixed rate (Liu et al. 2021, Algorithms 1 and 2)."""

    name: ClassVar[str] = "dcp"

    @property
    def allocates(self) -> str:
        """Global under a target; where the selection finds the widths, it finds them inside of the allocated ones."""
        free = self.target is not None and not self.chooses_kernels
        return self.allocation or ("global" if free else "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptDCP(DCP):
    """DCP that finds each group's width by SC2 (Liu et al. 2021, eq. 11).

    Attributes:
        epsilon: the relative fall of the loss at which a group has enough channels (eq. 10). The paper gives 1e-4 for
            VGG-19 and no value for the others.
        rate: here eta_min, the least share to remove: a group keeps at most `ceil((1 - rate) * c)` channels.
    """

    name: ClassVar[str] = "adapt_dcp"
    epsilon: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        check_epsilon(self.epsilon)

    def stopping(self, rate: float) -> StoppingRule:
        """SC2."""
        return RelativeChangeOrCap(self.epsilon, self.round_to, self.min_channels, rate)
