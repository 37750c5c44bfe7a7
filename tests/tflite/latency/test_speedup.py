"""Which of two files is faster, on synthetic timings of which the truth is known."""

import numpy as np
import pytest

from dcp_tf.tflite.latency.speedup import BLOCKS, MIN_BLOCK, Speedup, compare

RUNS = 50


def calm(random, runs):
    """A machine that does nothing else."""
    return np.exp(random.normal(0, 0.05, runs))


def busy(random, runs):
    """Most runs are interrupted, some for long."""
    return 1 + 0.02 * random.exponential(1, runs) + (random.random(runs) < 0.6) * random.exponential(1.5, runs)


def bursts(random, runs):
    """Another program runs for ten runs on average, then rests for ten."""
    switches = random.random(runs) < 0.1
    is_on = np.cumsum(switches) % 2 == random.integers(2)
    return 1 + 0.02 * random.exponential(1, runs) + is_on * random.exponential(1.5, runs)


def drifting(random, runs):
    """The clock of the processor wanders."""
    return np.exp(random.normal(0, 0.05, runs))


def measured(noise, speedup, random, runs=RUNS):
    shared = np.exp(np.cumsum(random.normal(0, 0.05, runs))) if noise is drifting else 1.0
    baseline, times = (shared * noise(random, runs) for _ in range(2))
    return compare(baseline, times / speedup, 10, random)


NOISES = (calm, busy, bursts, drifting)


@pytest.mark.parametrize("noise", NOISES)
def test_equal_files_are_seldom_told_apart(noise):
    random = np.random.default_rng(0)
    verdicts = [measured(noise, 1.0, random).conclusive for _ in range(150)]
    # 2.5 % on each side by the medians, 1.6 % by the quietest runs, more where disturbances come in bursts.
    assert np.mean(verdicts) < 0.12


@pytest.mark.parametrize("noise", NOISES)
def test_a_difference_is_told_where_medians_drown_in_noise(noise):
    random = np.random.default_rng(1)
    ratios = [measured(noise, 1.45, random) for _ in range(60)]
    told = [ratio for ratio in ratios if ratio.conclusive]
    assert len(told) > 0.6 * len(ratios)
    values = [ratio.quiet if ratio.by_quietest else ratio.value for ratio in told]
    assert min(values) > 1  # never the wrong one
    assert np.median(values) == pytest.approx(1.45, rel=0.05)
    if noise is busy:  # this is what the medians alone tell
        assert np.mean([ratio.by_median for ratio in ratios]) < 0.5
        assert len(told) > 0.9 * len(ratios)


def test_the_quietest_runs_speak_only_where_the_medians_do_not():
    random = np.random.default_rng(2)
    ratio = measured(calm, 2.0, random)
    assert ratio.by_median
    assert not ratio.by_quietest
    assert ratio.text().startswith("2.0")
    ratio = measured(busy, 1.45, random)
    assert ratio.by_quietest
    assert "quietest runs" in ratio.text()
    assert ratio.text().startswith(f"{ratio.quiet:.2f} ({ratio.quiet_low:.2f} to {ratio.quiet_high:.2f})")


@pytest.mark.parametrize(
    ("low", "high", "conclusive"), [(1.3, 1.6, True), (0.6, 0.8, True), (0.9, 1.2, False), (1.1, 2.0, False)]
)
def test_the_quietest_runs_tell_in_a_narrow_interval_on_one_side_of_1(low, high, conclusive):
    noisy = {"value": 1.0, "low": 0.5, "high": 2.0, "runs": 50, "least": 10}
    assert Speedup(**noisy, quiet=(low + high) / 2, quiet_low=low, quiet_high=high).conclusive is conclusive


def test_few_runs_have_no_quietest_ones():
    random = np.random.default_rng(3)
    assert measured(calm, 1.0, random, BLOCKS * MIN_BLOCK - 1).quiet is None
    assert measured(calm, 1.0, random, BLOCKS * MIN_BLOCK).quiet is not None


def test_the_interval_of_the_quietest_runs_holds_the_truth():
    random = np.random.default_rng(4)
    for noise in (calm, busy, drifting):
        ratios = [measured(noise, 1.2, random) for _ in range(100)]
        assert np.mean([ratio.quiet_low <= 1.2 <= ratio.quiet_high for ratio in ratios]) > 0.94
