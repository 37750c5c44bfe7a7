"""When Algorithm 2 stops adding channels."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

from dcp_tf.pruning.budget import kept_at_rate, round_width


class StoppingRule(Protocol):
    """Decides after each step; `limit` is asked once for each group."""

    def limit(self, size: int) -> int:
        """The most channels that a group of `size` may keep."""

    def done(self, losses: Sequence[float], kept: int, size: int) -> bool:
        """Whether to stop, given L(W^0) .. L(W^t) and how many channels W^t has."""


@dataclasses.dataclass(frozen=True)
class FixedRate:
    """Stops at the kept count `c - floor(rate * c)`, rounded (Liu et al. 2021, sec. 3.4); or at `width`, if given."""

    rate: float
    round_to: int = 1
    minimum: int = 1
    width: int | None = None

    def limit(self, size: int) -> int:
        """The kept count itself."""
        return self.width or kept_at_rate(size, self.rate, self.round_to, self.minimum)

    def done(self, losses: Sequence[float], kept: int, size: int) -> bool:
        """Whether the kept count is reached."""
        return kept >= self.limit(size)


@dataclasses.dataclass(frozen=True)
class RelativeChange:
    """SC1: `|L(W^(t-1)) - L(W^t)| / L(W^0) <= epsilon` (Liu et al. 2021, eq. 10)."""

    epsilon: float
    round_to: int = 1
    minimum: int = 1

    def limit(self, size: int) -> int:
        """No limit."""
        return size

    def done(self, losses: Sequence[float], kept: int, size: int) -> bool:
        """Whether the loss has stopped falling, at a width that `round_to` divides."""
        if kept >= self.limit(size):
            return True
        if kept < min(self.minimum, size) or kept != round_width(kept, size, self.round_to, self.minimum):
            return False
        return len(losses) > 1 and abs(losses[-2] - losses[-1]) <= self.epsilon * losses[0]


@dataclasses.dataclass(frozen=True)
class RelativeChangeOrCap(RelativeChange):
    """SC2: SC1, or the count reaches `ceil((1 - min_rate) * c)` (Liu et al. 2021, eq. 11); or `width`, if given."""

    min_rate: float = 0.0
    width: int | None = None

    def limit(self, size: int) -> int:
        """The cap, rounded."""
        cap = math.ceil(round((1 - self.min_rate) * size, 9))
        return self.width or round_width(cap, size, self.round_to, self.minimum)
