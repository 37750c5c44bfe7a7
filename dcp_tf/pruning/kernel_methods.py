"""The methods that choose single kernels (Liu et al. 2021, sec. 3.6): each filter then reads some channels only."""

import dataclasses
import math
from typing import ClassVar

from dcp_tf.pruning.methods import DCP, Guided, check_epsilon, check_rate
from dcp_tf.pruning.stopping import FixedRate, RelativeChangeOrCap, StoppingRule

_MOST_STEPS = 32  # of Algorithm 2 for one layer, unless B is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelMethod(Guided):
    """What the methods that choose kernels have in common.

    Removed kernels are zeros that every later training holds; channels that no kernel reads any more are removed for
    good. `target` counts multiplications and parameters without the zeros.
    """

    @property
    def chooses_kernels(self) -> bool:
        """True."""
        return True

    @property
    def kernel_rate(self) -> float:
        """The share of a layer's kernels to remove."""
        return self.rate

    def with_kernel_rate(self, rate: float) -> "KernelMethod":
        """The same method with another share of kernels to remove, as a target asks for."""
        return dataclasses.replace(self, rate=rate, target=None)

    def kernel_stopping(self) -> StoppingRule:
        """When a layer has enough kernels."""
        return FixedRate(self.kernel_rate)

    def kernel_step_size(self, keep: int, filters: int) -> int:
        """B for a layer that keeps at most `keep` kernels: as many as one channel has (the paper's), or more."""
        if self.per_step is not None:
            return self.per_step * filters
        return max(filters, math.ceil(keep / _MOST_STEPS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DKP(KernelMethod):
    """Discrimination-aware kernel pruning.

    What only widths know (`round_to`, `min_channels`, `rates`) is no setting of it.

    Attributes:
        rate: share of the kernels to remove from each layer.
        per_step: B in units of a channel's kernels; the paper's is 1.
    """

    name: ClassVar[str] = "dkp"
    round_to: int = dataclasses.field(default=1, init=False)
    min_channels: int = dataclasses.field(default=1, init=False)
    rates: tuple[tuple[str, float], ...] = dataclasses.field(default=(), init=False)

    @property
    def chooses_channels(self) -> bool:
        """False."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptDKP(DKP):
    """DKP that finds each layer's number of kernels by SC2 (Liu et al. 2021, eq. 11).

    Attributes:
        epsilon: the relative fall of the loss at which a layer has enough kernels (eq. 10).
        rate: here eta_min, the least share of kernels to remove.
    """

    name: ClassVar[str] = "adapt_dkp"
    epsilon: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        check_epsilon(self.epsilon)

    def kernel_stopping(self) -> StoppingRule:
        """SC2."""
        return RelativeChangeOrCap(self.epsilon, min_rate=self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCPDKP(DCP, KernelMethod):
    """Channels first, then kernels among what is left (DCP+DKP).

    The widths that `rate`, `round_to` and `min_channels` give are those before kernels go: channels that no kernel
    reads any more go on top.

    Attributes:
        rate: share of the channels to remove from each group.
        kernel_rate: share of the remaining kernels to remove from each layer.
    """

    name: ClassVar[str] = "dcp_dkp"
    kernel_rate: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        check_rate(self.kernel_rate)

    def with_kernel_rate(self, rate: float) -> "DCPDKP":
        """See `KernelMethod`."""
        return dataclasses.replace(self, kernel_rate=rate, target=None)
