"""The methods that DCP is compared with; all of them choose among the channels of the same groups."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.elimination.thinet_lasso import Chooser, check_layers, lasso, thinet
from dcp_tf.pruning.importance.weights import check_filters, check_scales
from dcp_tf.pruning.methods import Guided, Method
from dcp_tf.settings.importance import Refit
from dcp_tf.settings.selection import Heads
from dcp_tf.settings.table import documented, same_setting


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class Criterion(Refit, Guided):
    """A criterion that ranks the channels of each group in one shot.

    Without `update` the remaining weights stay as they are, and the settings of `Guided` have no meaning.
    """

    @property
    def guided(self) -> bool:
        """Whether the weights are fitted."""
        return self.update


@dataclasses.dataclass(frozen=True, kw_only=True)
class Random(Criterion):
    """Channels drawn by chance; with `update` the paper's Random-DCP."""

    name: ClassVar[str] = "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfFilters(Criterion):
    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group that no filters make."""
        check_filters(graph, groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class L1(_OfFilters):
    """The channels whose filters have the largest L1 norm stay (Li et al. 2017)."""

    name: ClassVar[str] = "l1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class L2(_OfFilters):
    """The channels whose filters have the largest L2 norm stay (He et al. 2018)."""

    name: ClassVar[str] = "l2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FPGM(_OfFilters):
    """The channels whose filters are farthest from the others of their layer stay (He et al. 2019)."""

    name: ClassVar[str] = "fpgm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BNScale(Criterion):
    """The channels with the largest BatchNormalization gammas stay (network slimming, Liu et al. 2017)."""

    name: ClassVar[str] = "bn_scale"

    def check(self, graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> None:
        """Raises UsageError for a group without a gamma."""
        check_scales(graph, groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taylor(Criterion):
    """The channels whose removal changes the loss most, to first order, stay (Molchanov et al. 2019).

    Looks at `selection_samples` images in batches of `selection_batch`.
    """

    name: ClassVar[str] = "taylor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class APoZ(Criterion):
    """The channels whose activations are zero least often stay (Hu et al. 2016).

    Looks at `selection_samples` images in batches of `selection_batch`.
    """

    name: ClassVar[str] = "apoz"


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThiNet(_Reconstruction):
    """The channels stay without which the next layers' outputs change most, and are scaled (Luo et al. 2017)."""

    name: ClassVar[str] = "thinet"

    @property
    def chooser(self) -> Chooser:
        """Greedy removal."""
        return thinet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lasso(_Reconstruction):
    """The channels stay that LASSO finds for the next layers' outputs, and are fitted (He et al. 2017)."""

    name: ClassVar[str] = "lasso"

    @property
    def chooser(self) -> Chooser:
        """LASSO."""
        return lasso


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthMultiplier(Method):
    """The same shape without any choice: the first channels stay, and all weights are drawn anew.

    The network is trained from scratch with the schedule of the fine-tuning; it shows what the choice is worth
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
