"""The methods that DCP is compared with; all of them rank the channels of the same groups."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.criteria.weights import check_filters, check_scales
from dcp_tf.pruning.methods import Guided


@dataclasses.dataclass(frozen=True, kw_only=True)
class Criterion(Guided):
    """A criterion that ranks the channels of each group in one shot.

    Attributes:
        update: whether the weights that read the remaining channels are fitted as DCP's are, layer by layer, with all
            settings of `Guided`. Without it the remaining weights stay as they are, and those settings have no meaning.
    """

    update: bool = False

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
