"""Global allocation: how many channels each group keeps, found by comparing the channels of all groups.

The common rate (or the target) says what the model may cost; the least important channels go first, whatever group they
are in, until it costs no more.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dcp_tf import progress
from dcp_tf.graph import ChannelGroup, group_fractions
from dcp_tf.graph.blocks import branch_weights
from dcp_tf.pruning.allocation.sensitivity import loss_rises
from dcp_tf.pruning.allocation.whole_blocks import WholeBlocks
from dcp_tf.pruning.budget import Target, Widths, fit_measured_budget, possible_widths, pricing, rounded_in_heads
from dcp_tf.pruning.context import Context, own_rates
from dcp_tf.pruning.importance.criterion import Scores

Step = tuple[float, int, int]  # price of each channel that goes, number of the group, minus the width that is left


def global_widths(context: Context, scores: Scores | None) -> dict[str, int]:
    """Widths at which the model costs no more than at the uniform ones, or than the method's target allows.

    The importance of a channel is, for a criterion, its score over the mean score of its group: most scores say nothing
    across layers. (Network slimming compares gammas, and Molchanov et al. 2019 Taylor scores, without that.) For
    methods that choose layer by layer it is the rise of the loss that its elimination brings (see `loss_rises`), for
    what the elimination saves: the loss then rises least for the cost that is allowed.

    Args:
        context: the trained model, its images, the method, and the uniform widths, which groups with a rate of their
            own keep.
        scores: of the channels by a criterion; None where the method chooses layer by layer.

    Whole residual blocks, where the method may remove some, are measured one by one and then together, those first
    whose loss rises least for what they save; as many go as lead to the least estimated loss (see `WholeBlocks`).

    Returns:
        Group name -> width. Of a block that goes its name -> 0, without the groups inside of it.
    """
    graph, method, uniform = context.graph, context.method, context.widths
    fixed = own_rates(context.groups, method)
    shared = [g for g in context.groups if g.name not in fixed]
    if scores is None:
        saved = _savings(context, shared)
        rises = loss_rises(context, shared)
        prices = {name: values / max(saved[name], 1e-30) for name, values in rises.items()}
    else:
        prices = {g.name: np.sort(scores[g.name]) / max(scores[g.name].mean(), 1e-30) for g in shared}
    apart = [g.name for g in shared if g.name not in prices]
    if apart:
        progress.say(f"no quadratic model covers what reads {', '.join(apart)}: the common rate holds there")
    free = [g for g in shared if g.name in prices]

    def choose(target: Target | None) -> dict[str, int]:
        cost = pricing(target or Target("macs", "1"), graph)
        limit = target.limit(cost({})) if target else cost(uniform)
        best: tuple[float, dict[str, int]] = math.inf, {}
        for count in range(len(blocks.names) + 1 if blocks else 1):
            if blocks and blocks.rise(count) >= best[0]:
                break
            gone = blocks.names[:count] if blocks else []
            inside = graph.groups_inside([block for block in graph.blocks if block.name in gone])
            others = {name: width for name, width in uniform.items() if name not in inside} | dict.fromkeys(gone, 0)
            fits = lambda widths, others=others: cost({**others, **widths}) <= limit  # noqa: E731
            left = [group for group in free if group.name not in inside]
            widths = {**others, **allocate(left, prices, fits, method.round_to, method.min_channels)}
            if not blocks:
                return widths
            loss = blocks.rise(count) + sum(rises[g.name][: g.size - widths[g.name]].sum() for g in left)
            if loss < best[0] and fits(widths):
                best = loss, widths
        return best[1] or widths

    blocks = WholeBlocks(context, _saved_by_blocks(context)) if method.prune_blocks else None
    widths = fit_measured_budget(method.target, choose) if method.target else choose(None)
    if blocks:
        blocks.close()
        gone = [name for name in blocks.names if name in widths]
        named = f": {', '.join(gone)}" if gone else ""
        progress.say(f"{len(gone)} of {len(blocks.names)} residual blocks go as a whole{named}")
    shares = [widths[g.name] / g.size for g in free if g.name in widths]
    if shares:
        progress.say(f"global allocation: groups keep {min(shares):.0%} to {max(shares):.0%} of their channels")
    return widths


def _savings(context: Context, groups: Sequence[ChannelGroup]) -> dict[str, float]:
    """Per group what each of its channels saves: shares of the multiplications or parameters, or milliseconds."""
    graph, method, uniform = context.graph, context.method, context.widths
    if method.target is None or method.target.cost is None:
        part = 0 if method.target is not None and method.target.measure != "macs" else 1
        return {name: shares[part] / graph.group(name).size for name, shares in group_fractions(graph).items()}
    cost, narrowest = method.target.cost, Widths(graph, groups, method.round_to, method.min_channels).at_rate(1.0)
    # Beside the widths that the others will have about; over the whole range, as single steps of measured times are
    # small beside their noise.
    return {
        g.name: (cost({**uniform, g.name: g.size}) - cost({**uniform, g.name: narrowest[g.name]}))
        / max(g.size - narrowest[g.name], 1)
        for g in groups
    }


def _saved_by_blocks(context: Context) -> dict[str, float]:
    """Per residual block that may go the cost that goes with it."""
    graph, method = context.graph, context.method
    cost = pricing(method.target or Target("macs", "1"), graph)
    blocks = [b for b in graph.blocks if not method.excludes(b.name) and branch_weights(graph.trace, b)]
    return {block.name: cost({}) - cost({block.name: 0}) for block in blocks}


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
