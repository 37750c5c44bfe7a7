"""The methods that choose single kernels (Liu et al. 2021, sec. 3.6): each filter then reads some channels only."""

import dataclasses
import math
from typing import ClassVar

from dcp_tf.pruning.methods import DCP, MOST_STEPS, Guided
from dcp_tf.pruning.stopping import FixedRate, RelativeChangeOrCap, StoppingRule
from dcp_tf.settings.budget import Adaptive, KernelRate
from dcp_tf.settings.table import documented


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelMethod(Guided):
    """What the methods that choose kernels have in common.

    Removed kernels are zeros that every later training holds; channels that no kernel reads any more are removed for
    good. `target` counts multiplications and parameters without the zeros.
    """

    chooses_kernels: ClassVar[bool] = True

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
        return max(filters, math.ceil(keep / MOST_STEPS))


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class DKP(KernelMethod):
    """Discrimination-aware kernel pruning.

    The paper's `per_step` is 1.
    """

    name: ClassVar[str] = "dkp"
    chooses_channels: ClassVar[bool] = False


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptDKP(Adaptive, DKP):
    """DKP that finds each layer's number of kernels by SC2 (Liu et al. 2021, eq. 11)."""

    name: ClassVar[str] = "adapt_dkp"

    def kernel_stopping(self) -> StoppingRule:
        """SC2."""
        return RelativeChangeOrCap(self.epsilon, min_rate=self.rate)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class DCPDKP(KernelRate, DCP, KernelMethod):
    """Channels first, then kernels among what is left (DCP+DKP).

    The widths that `rate`, `round_to` and `min_channels` give are those before kernels go: channels that no kernel
    reads any more go on top.
    """

    name: ClassVar[str] = "dcp_dkp"

    def with_kernel_rate(self, rate: float) -> "DCPDKP":
        """See `KernelMethod`."""
        return dataclasses.replace(self, kernel_rate=rate, target=None)
