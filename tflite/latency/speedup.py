"""How much faster one file is than another, and whether the measurement is conclusive."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf.errors import RunError

RESAMPLES = 2000  # of the bootstrap
MAX_INTERVAL = 0.25  # a 95% interval wider than this fraction of its ratio is inconclusive
BLOCKS = 7  # of neighboring pairs; all of them agree randomly with a probability of 1 in 2 ** 6
MIN_BLOCK = 4  # pairs in a block: smaller blocks rarely hold an undisturbed run of each file
MAX_QUIET_RANGE = 0.5  # a wider relative range of the quietest runs' ratios is inconclusive


@dataclasses.dataclass(frozen=True)
class Speedup:
    """Time of a baseline divided by the time of a candidate.

    Attributes:
        value: median over paired runs; 2.0: twice as fast.
        low: lower end of the 95% bootstrap interval.
        high: upper end.
        runs: number of pairs.
        least: fewer pairs than this are inconclusive.
        quiet: the same ratio of the quietest runs. Other load makes runs longer, never shorter, so they can be
            conclusive when the medians are too noisy. None with too few pairs.
        quiet_low: lower end of its 98% interval.
        quiet_high: upper end.
    """

    value: float
    low: float
    high: float
    runs: int
    least: int
    quiet: float | None = None
    quiet_low: float | None = None
    quiet_high: float | None = None

    @property
    def too_noisy(self) -> bool:
        """Whether the interval is too wide for a conclusion."""
        return self.runs >= self.least and self.high - self.low > MAX_INTERVAL * self.value

    @property
    def by_median(self) -> bool:
        """Whether the medians are conclusive: enough runs, and a narrow interval on one side of 1."""
        return self.runs >= self.least and not self.too_noisy and (self.low > 1 or self.high < 1)

    @property
    def by_quietest(self) -> bool:
        """Whether the medians are inconclusive, but the quietest runs of all blocks are conclusive."""
        if self.by_median or self.quiet is None or self.runs < self.least:
            return False
        narrow = self.quiet_high - self.quiet_low <= MAX_QUIET_RANGE * self.quiet
        return narrow and (self.quiet_low > 1 or self.quiet_high < 1)

    @property
    def conclusive(self) -> bool:
        """Whether one of the two is faster beyond noise."""
        return self.by_median or self.by_quietest

    def to_json(self) -> dict[str, Any]:
        """The figures as benchmark.json holds them; the fields of `Latency` have the same names."""
        return {
            "speedup": self.value,
            "speedup_low": self.low,
            "speedup_high": self.high,
            "conclusive": self.conclusive,
            "speedup_quiet": self.quiet,
            "speedup_quiet_low": self.quiet_low,
            "speedup_quiet_high": self.quiet_high,
            "speedup_by": "quietest runs" if self.by_quietest else "median",
        }

    def text(self) -> str:
        """For a table; no number if the measurement is too noisy."""
        if self.runs < self.least:
            return f"too few runs ({self.runs} of {self.least})"
        if self.by_quietest:
            return f"{self.quiet:.2f} ({self.quiet_low:.2f} to {self.quiet_high:.2f}), quietest runs"
        if self.too_noisy:
            return "too noisy"
        interval = f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
        return interval if self.conclusive else f"{interval}, no difference"


def compare(baseline: np.ndarray, times: np.ndarray, least: int, random: np.random.Generator) -> Speedup:
    """The ratio of paired times.

    Args:
        baseline: times of the baseline, shape (runs,).
        times: times of the candidate in the same runs.
        least: smallest number of pairs for a conclusion.
        random: of the bootstrap.

    Raises:
        RunError: a time is not above 0.
    """
    if not (np.all(baseline > 0) and np.all(times > 0)):
        raise RunError("an inference was measured at 0 ms, too short for the clock: measure a larger model")
    ratios = baseline / times
    resampled = np.median(ratios[random.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    low, high = (float(value) for value in np.percentile(resampled, (2.5, 97.5)))
    return Speedup(float(np.median(ratios)), low, high, len(ratios), least, *_quietest(baseline, times))


def _quietest(baseline: np.ndarray, times: np.ndarray) -> tuple[float, float, float] | tuple[()]:
    """The ratios of the fastest runs of each block: their median, minimum and maximum.

    Neighboring pairs share their disturbances, so blocks of them are compared. If each block is equally likely to lie
    above or below the true ratio, the range of all blocks holds it with a probability of 1 - 2 / 2 ** BLOCKS.
    """
    size = len(baseline) // BLOCKS
    if size < MIN_BLOCK:
        return ()
    fastest = (row[: size * BLOCKS].reshape(BLOCKS, size).min(axis=1) for row in (baseline, times))
    ratios = np.divide(*fastest)
    return float(np.median(ratios)), float(ratios.min()), float(ratios.max())
