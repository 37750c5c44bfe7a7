"""Learning rates over a run: plain functions from the epoch, a float that grows within an epoch, to the rate.

The settings of Liu et al. 2021 in these terms (momentum 0.9, Nesterov, weight decay 1e-4 unless said otherwise):

| run                          | epochs    | batch | schedule                                           |
|------------------------------|-----------|-------|----------------------------------------------------|
| CIFAR-10, auxiliary losses   | 100       | 128   | `step_schedule(0.1, (40, 60))`                     |
| CIFAR-10, final fine-tuning  | 400       | 128   | `step_schedule(0.1, (160, 240))`                   |
| ILSVRC-12, auxiliary losses  | 60        | 256   | `step_schedule(0.01, (36, 48, 54))`                |
| ILSVRC-12, ResNets, final    | 60        | 256   | `step_schedule(0.01, (36, 48, 54))`                |
| ILSVRC-12, MobileNets, final | 150 / 250 | 256   | `cosine_schedule(0.09, epochs)`, weight decay 4e-5 |
| faces, auxiliary losses      | 15        | -     | `step_schedule(0.01, (4, 8, 12))`                  |
| faces, final fine-tuning     | 28        | 512   | `step_schedule(0.01, (8, 16, 24))`                 |
"""

import itertools
import math
from collections.abc import Callable, Sequence

from dcp_tf.errors import UsageError

Schedule = Callable[[float], float]


def step_schedule(
    base: float,
    boundaries: Sequence[float],
    factor: float = 0.1,
    *,
    epochs: int | None = None,
    warmup: float = 0.0,
) -> Schedule:
    """The rate is multiplied by `factor` at every boundary.

    Args:
        base: the rate before the first boundary.
        boundaries: rising; either epochs (1 or more) or fractions of `epochs` (between 0 and 1). None: a constant rate.
        factor: what each boundary multiplies the rate by.
        epochs: length of the run, needed for fractions.
        warmup: epochs over which the rate first rises from 0 in a straight line.

    Returns:
        A function from the epoch (float, 0 at the start) to the rate.

    Raises:
        UsageError: the boundaries do not rise, mix epochs with fractions, or are fractions of an unknown length; the
            warm-up is as long as the run.
    """
    _check_warmup(warmup, epochs)
    boundaries = [float(boundary) for boundary in boundaries]
    fractions = [0.0 < boundary < 1.0 for boundary in boundaries]
    if any(later <= earlier for earlier, later in itertools.pairwise(boundaries)):
        raise UsageError(f"Expected rising learning-rate boundaries. Received: {boundaries}")
    if len(set(fractions)) > 1 or any(boundary <= 0 for boundary in boundaries):
        raise UsageError(
            f"Expected learning-rate boundaries that are all epochs (1, 2, ...) or all fractions of the run (0.4). "
            f"Received: {boundaries}"
        )
    if any(fractions):
        if epochs is None:
            raise UsageError(f"Learning-rate boundaries in fractions need the number of epochs. Received: {boundaries}")
        boundaries = [boundary * epochs for boundary in boundaries]

    def rate(epoch: float) -> float:
        return base * factor ** sum(epoch >= boundary for boundary in boundaries) * _warmth(epoch, warmup)

    return rate


def cosine_schedule(base: float, epochs: int, warmup: float = 0.0) -> Schedule:
    """The rate falls from `base` to 0 along half a cosine.

    Args:
        base: the highest rate.
        epochs: length of the run, at whose end the rate is 0.
        warmup: epochs over which the rate first rises from 0 in a straight line; the cosine takes the rest.

    Returns:
        A function from the epoch (float, 0 at the start) to the rate.

    Raises:
        UsageError: the warm-up is as long as the run.
    """
    _check_warmup(warmup, epochs)

    def rate(epoch: float) -> float:
        if epoch < warmup:
            return base * _warmth(epoch, warmup)
        done = min((epoch - warmup) / max(epochs - warmup, 1e-9), 1.0)
        return base * 0.5 * (1.0 + math.cos(math.pi * done))

    return rate


def warmed_up_cosine(base: float, step: int, steps: int, warmup: float) -> float:
    """The rate at a step: half a cosine over all steps from `base` to 0, and a linear rise over the first of them.

    Args:
        base: the rate that the cosine begins with.
        step: from 0.
        steps: in all.
        warmup: the part of them over which the rate rises.
    """
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    return base * rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _check_warmup(warmup: float, epochs: int | None) -> None:
    if warmup and epochs is not None and warmup >= epochs:
        raise UsageError(f"Expected a warm-up shorter than the run of {epochs} epochs. Received: warmup={warmup:g}")


def _warmth(epoch: float, warmup: float) -> float:
    return min(epoch / warmup, 1.0) if warmup > 0 else 1.0
