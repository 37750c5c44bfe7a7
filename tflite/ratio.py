"""How much faster one file is than another, and whether the measurement can tell."""

import dataclasses

import numpy as np

from dcp_tf.errors import RunError

RESAMPLES = 2000  # of the bootstrap
MAX_INTERVAL = 0.25  # a 95 % interval wider than this fraction of its ratio says nothing


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Time of a baseline over the time of a candidate.

    Attributes:
        value: median over paired runs; 2.0 means twice as fast.
        low: lower end of the 95 % bootstrap interval.
        high: upper end.
        runs: pairs that it comes from.
        least: fewer pairs than this cannot tell.
    """

    value: float
    low: float
    high: float
    runs: int
    least: int

    @property
    def too_noisy(self) -> bool:
        """Whether the machine was too noisy for the ratio to mean anything."""
        return self.runs >= self.least and self.high - self.low > MAX_INTERVAL * self.value

    @property
    def conclusive(self) -> bool:
        """Whether it says that one is faster: enough runs, a narrow interval, on one side of 1."""
        return self.runs >= self.least and not self.too_noisy and (self.low > 1 or self.high < 1)

    def text(self) -> str:
        """For a table; no number where the measurement cannot carry one."""
        if self.runs < self.least:
            return f"too few runs ({self.runs} of {self.least})"
        if self.too_noisy:
            return "too noisy"
        interval = f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
        return interval if self.conclusive else f"{interval}, no difference"


def compare(baseline: np.ndarray, times: np.ndarray, least: int, random: np.random.Generator) -> Ratio:
    """The ratio of paired times.

    Args:
        baseline: times of the baseline, shape (runs,).
        times: times of the candidate in the same runs.
        least: pairs below which nothing can be said.
        random: of the bootstrap.

    Raises:
        RunError: a time is not above 0.
    """
    if not (np.all(baseline > 0) and np.all(times > 0)):
        raise RunError("an inference was measured at 0 ms, too short for the clock: measure a larger model")
    ratios = baseline / times
    resampled = np.median(ratios[random.integers(0, len(ratios), (RESAMPLES, len(ratios)))], axis=1)
    low, high = (float(value) for value in np.percentile(resampled, (2.5, 97.5)))
    return Ratio(float(np.median(ratios)), low, high, len(ratios), least)
