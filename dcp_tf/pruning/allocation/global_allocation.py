"""Global allocation: how many channels each group keeps, found by comparing the channels of all groups.

The common rate (or the target) says what the model may cost; the least important channels go first, whatever group they
are in, until it costs no more.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.graph import ChannelGroup, group_fractions
from dcp_tf.graph.blocks import branch_weights
from dcp_tf.pruning.allocation.scopes import Allocator
from dcp_tf.pruning.allocation.sensitivity import loss_rises
from dcp_tf.pruning.allocation.whole_blocks import WholeBlocks
from dcp_tf.pruning.budget import Target, Widths, fit_measured_budget, pricing
from dcp_tf.pruning.context import Context, own_rates
from dcp_tf.pruning.importance.criterion import Scores


def global_widths(context: Context, scores: Scores | None, entry: dict[str, Any]) -> dict[str, int]:
    """Widths at which the model costs no more than at the uniform ones, or than the method's target allows.

    The importance of a channel is, for a criterion, its score over the mean score of its group: most scores say nothing
    across layers. (Network slimming compares gammas, and Molchanov et al. 2019 Taylor scores, without that.) For
    methods that choose layer by layer it is the rise of the loss that its elimination brings (see `loss_rises`), for
    what the elimination saves: the loss then rises least for the cost that is allowed.

    Args:
        context: the trained model, its images, the method, and the uniform widths, which groups with a rate of their
            own keep.
        scores: of the channels by a criterion; None where the method chooses layer by layer.
        entry: of the run's history; it gets which scopes were tried, and the chosen one.

    Whole residual blocks, where the method may remove some, are measured one by one and then together, those first
    whose loss rises least for what they save; as many go as lead to the least estimated loss (see `WholeBlocks`).

    Returns:
        Group name -> width. Of a block that goes its name -> 0, without the groups inside of it.
    """
    graph, method = context.graph, context.method
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

    blocks = WholeBlocks(context, _saved_by_blocks(context)) if method.offers_blocks and graph.blocks else None
    allocator = Allocator(context, free, prices, rises if scores is None else {}, blocks)
    widths = fit_measured_budget(method.target, allocator.choose) if method.target else allocator.choose(None)
    if blocks:
        blocks.close()
        gone = [name for name in blocks.names if name in widths]
        named = f": {', '.join(gone)}" if gone else ""
        progress.say(f"{len(gone)} of {len(blocks.names)} residual blocks go as a whole{named}")
    entry |= allocator.report(widths)
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
