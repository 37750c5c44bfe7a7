"""The channels of several groups in the order in which they go, until the model is small enough."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dcp_tf.graph import ChannelGroup
from dcp_tf.pruning.budget import possible_widths, rounded_in_heads

Step = tuple[float, int, int]  # price of each channel that goes, number of the group, minus the width that is left


def allocate(
    groups: Sequence[ChannelGroup],
    prices: Mapping[str, np.ndarray],
    fits: Callable[[Mapping[str, int]], bool],
    round_to: int = 1,
    minimum: int = 1,
) -> dict[str, int]:
    """The widths that fit at which the removed channels matter least.

    Args:
        groups: those that share what has to go.
        prices: per group the importance of each of its channels, in the order in which they go.
        fits: whether a model with these widths (group name -> width) is small enough; the narrowest one is.
        round_to: widths are multiples of it.
        minimum: fewest channels of a group.

    Returns:
        Group name -> width. One more step of any group would not fit.
    """
    possible = {g.name: possible_widths(g, round_to, minimum) for g in groups}
    rounded = lambda widths: rounded_in_heads(widths, groups, round_to, minimum)  # noqa: E731
    steps = sorted(step for i, g in enumerate(groups) for step in _steps(i, possible[g.name], prices[g.name]))
    fewest, most = 0, len(steps)
    while fewest < most:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if fits(rounded(_after(steps[:middle], groups))) else (middle + 1, most)
    widths = _after(steps[:fewest], groups)
    # The last step may have saved more than was needed: then others are taken back, the most important first.
    waiting = set(widths)
    for _, number, width in reversed(steps[:fewest]):
        name = groups[number].name
        if name in waiting:
            wider = widths | {name: min(w for w in possible[name] if w > -width)}
            widths, waiting = (wider, waiting) if fits(rounded(wider)) else (widths, waiting - {name})
    return rounded(widths)


def _steps(number: int, possible: Sequence[int], prices: np.ndarray) -> list[Step]:
    """From each width of a group to the next narrower one; a step never costs less than the one before it."""
    steps, highest, wider = [], -np.inf, possible[-1]
    for width in reversed(possible[:-1]):
        gone = prices[possible[-1] - wider : possible[-1] - width]
        highest = max(highest, float(np.mean(gone)))
        steps.append((highest, number, -width))
        wider = width
    return steps


def _after(steps: Sequence[Step], groups: Sequence[ChannelGroup]) -> dict[str, int]:
    """The widths that some steps lead to."""
    return {g.name: g.size for g in groups} | {groups[number].name: -width for _, number, width in steps}
