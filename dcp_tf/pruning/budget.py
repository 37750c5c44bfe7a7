"""How many channels each group keeps: by rate, or by what the whole model may cost."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup, Cost, count_cost
from dcp_tf.graph.rule import KeptChannels, kept_shape
from dcp_tf.settings.budget import Target

_SHARES = 10_000  # the shares of kernels that a target can ask for, or as many as the largest layer has kernels
_ROUNDS = 5  # of choosing and measuring
_CLOSE = 0.93  # of a target: what is measured above it and within the target will do
_CAUTION = 0.97  # of the measured savings are counted on, as the next measurement differs by some percent
_LEAST_SAVED = 0.01  # of the full cost: what a measurement without any saving counts as


def kept_at_rate(size: int, rate: float, round_to: int = 1, minimum: int = 1) -> int:
    """The kept count at a fixed pruning rate: `c - floor(eta * c)`, then the nearest multiple of `round_to`.

    Args:
        size: channels c of the group.
        rate: pruning rate eta, 0 to 1.
        round_to: hardware-friendly multiple. A tie goes down. A group no wider than it is only kept from falling under
            `minimum`.
        minimum: fewest channels to keep.

    Returns:
        A count in `min(minimum, size) .. size`.
    """
    # The product is rounded before the floor so that 0.3 * 10 counts as 3.
    return round_width(size - math.floor(round(rate * size, 9)), size, round_to, minimum)


def round_width(width: int, size: int, round_to: int, minimum: int = 1) -> int:
    """`width` as the nearest multiple of `round_to` from `minimum` up; a tie goes down, and a full `size` stays."""
    least = min(max(minimum, 1), size)
    if width < size and size > round_to > 1:
        nearest = round_to * math.ceil(width / round_to - 0.5)
        width = min(max(nearest, round_to), size - size % round_to)
        least = min(round_to * math.ceil(least / round_to), size)
    return min(max(width, least), size)


def group_width(
    group: ChannelGroup,
    rate: float,
    round_to: int = 1,
    minimum: int = 1,
    own: bool = False,
    heads: int | None = None,
) -> int:
    """The kept count of a group at a rate, as `kept_at_rate`; channels of attention heads are counted in each head.

    Heads and the channels in them both make a layer narrower: at a common rate they share it, so that the layer shrinks
    as all others do. Heads are not rounded.

    Args:
        group: of channels.
        rate: pruning rate, 0 to 1.
        round_to: hardware-friendly multiple, of the channels of all heads that stay together.
        minimum: fewest channels to keep, of heads 1.
        own: whether the rate is the group's own.
        heads: of channels in heads, how many heads stay; None: all.
    """
    if (group.are_heads or group.head is not None) and not own:
        rate = 1 - math.sqrt(max(0.0, 1 - rate))
    if group.are_heads:
        return kept_at_rate(group.size, rate)
    of_each, heads = group.size // group.heads, heads or group.heads
    step = round_to // math.gcd(round_to, heads)
    width = kept_at_rate(of_each, rate, step, minimum)
    if heads < group.heads and 1 < step <= of_each:  # of fewer heads even all channels may be no multiple
        least = min(math.ceil(minimum / step), of_each // step)
        width = step * min(max(math.ceil(width / step - 0.5), least, 1), of_each // step)
    return group.heads * width


def possible_widths(group: ChannelGroup, round_to: int = 1, minimum: int = 1, heads: int | None = None) -> list[int]:
    """The widths that a group may take, from the narrowest up; of channels in heads those at which `heads` stay."""
    of_each = group.size // group.heads
    return sorted({group_width(group, k / of_each, round_to, minimum, True, heads) for k in range(of_each + 1)})


def rounded_in_heads(
    widths: Mapping[str, int], groups: Sequence[ChannelGroup], round_to: int = 1, minimum: int = 1
) -> dict[str, int]:
    """The widths, those of channels in heads as the nearest that are multiples of `round_to` in the heads that stay."""
    rounded = dict(widths)
    for group in groups:
        if widths.get(group.within, group.heads) < group.heads:
            possible = possible_widths(group, round_to, minimum, widths[group.within])
            rounded[group.name] = min(possible, key=lambda width: abs(width - widths[group.name]))
    return rounded


def fit_measured_budget(target: Target, choose: Callable[[Target], dict[str, int]]) -> dict[str, int]:
    """Widths that keep a target by measurement, where its cost can be measured; else by prediction.

    Widths are chosen, measured, and chosen again with the savings corrected by the measurement, until the measured
    cost is within the target and not far below it.

    Args:
        target: what the model may cost.
        choose: from a target to widths that keep it by its `cost`.

    Returns:
        Group -> width: of the choices that were measured within the target the costliest; where none was, the last.

    Raises:
        UsageError: by what was measured, even the narrowest widths cost more.
    """
    widths = choose(target)
    if target.measured is None:
        return widths
    full = target.cost({})
    limit, best = target.limit(full), (0.0, None)
    for _ in range(_ROUNDS):
        cost = target.measured(widths)
        progress.say(f"measured at the chosen widths: {target.show(cost)}, wanted {target.show(limit)}")
        if best[0] < cost <= limit:
            best = cost, widths
        if _CLOSE * limit <= cost <= limit:
            break
        scale = _CAUTION * max(full - cost, _LEAST_SAVED * full) / (full - target.cost(widths))
        corrected = lambda at, scale=scale: full - scale * (full - target.cost(at))  # noqa: E731
        before, widths = widths, choose(dataclasses.replace(target, cost=corrected))
        if widths == before:
            break
    return best[1] or widths


def pricing(target: Target, graph: ChannelGraph) -> Callable[[Mapping[str, int]], float]:
    """What the model costs at some widths, group -> channels that stay; groups that are not named keep all."""
    return target.cost or (lambda widths: getattr(cost_at(graph, widths), target.measure))


def cost_at(graph: ChannelGraph, widths: Mapping[str, int]) -> Cost:
    """The cost of the model at some widths; which channels stay does not matter for it."""
    return count_cost(graph, graph.at_widths(widths))


def matching(groups: Sequence[ChannelGroup], pattern: str, layers: Sequence[str] = ()) -> list[ChannelGroup]:
    """The groups whose name matches a regular expression as a whole.

    Args:
        groups: to look among.
        pattern: the regular expression.
        layers: what the pattern may name instead.

    Raises:
        UsageError: it matches nothing, or it is no regular expression.
    """
    try:
        matches = [g for g in groups if re.fullmatch(pattern, g.name)]
    except re.error as error:
        raise UsageError(f"{pattern!r} is no regular expression: {error}") from error
    if not matches and not any(re.fullmatch(pattern, layer) for layer in layers):
        raise UsageError(f"no group of channels matches {pattern!r}; inspect_model lists them")
    return matches


class Widths:
    """The widths that groups may take, and what the model costs at each.

    Args:
        graph: of the model.
        groups: those that may lose channels.
        round_to: widths are multiples of it.
        minimum: fewest channels of a group.
        rates: rates of single groups by name; the others follow the common rate.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        groups: Sequence[ChannelGroup],
        round_to: int = 1,
        minimum: int = 1,
        rates: Mapping[str, float] | None = None,
    ):
        self._graph = graph
        self._groups = list(groups)
        self._round_to = round_to
        self._minimum = minimum
        self._rates = dict(rates or {})

    def at_rate(self, rate: float) -> dict[str, int]:
        """Group name -> kept count at a common rate, 0 to 1."""
        widths: dict[str, int] = {}
        for g in sorted(self._groups, key=lambda g: g.head is not None):
            own, heads = g.name in self._rates, widths.get(g.within)
            widths[g.name] = group_width(g, self._rates.get(g.name, rate), self._round_to, self._minimum, own, heads)
        return {g.name: widths[g.name] for g in self._groups}

    def cost(self, widths: Mapping[str, int]) -> Cost:
        """The cost of the model at some widths; which channels stay does not matter for it."""
        return cost_at(self._graph, widths)

    def within(self, target: Target) -> dict[str, int]:
        """The widest model within a target: a common rate, then single steps back up as long as they fit.

        The result costs no more than the target allows, and one more step of any group that follows the common rate
        would pass it.

        Raises:
            UsageError: even the narrowest widths cost more, or the target asks for nothing.
        """
        cost = pricing(target, self._graph)
        free = [g for g in self._groups if g.name not in self._rates]
        if not free:
            raise UsageError("a target needs groups without a rate of their own")
        full, narrowest = cost(self.at_rate(0.0)), cost(self.at_rate(1.0))
        limit = target.limit(cost({}))
        if limit >= full:
            raise UsageError(f"the target of {target.show(limit)} removes nothing: the model has {target.show(full)}")
        if limit < narrowest:
            raise UsageError(
                f"the target of {target.show(limit)} cannot be reached: the narrowest model has "
                f"{target.show(narrowest)} ({narrowest / full:.1%}); allow more, lower round_to or min_channels, or "
                "prune residual streams too"
            )
        widths = self.at_rate(self._lowest_rate(lambda rate: cost(self.at_rate(rate)) <= limit, free))
        return self._widen(widths, free, lambda trial: cost(trial) <= limit)

    def _lowest_rate(self, fits: Callable[[float], bool], free: Sequence[ChannelGroup]) -> float:
        """The lowest rate that fits, by bisection over the rates at which any width changes."""
        rates = {k / g.size for g in free for k in range(g.size + 1)}
        rates = sorted(rates | {1 - (1 - rate) ** 2 for rate in rates if any(g.are_heads or g.heads > 1 for g in free)})
        low, high = 0, len(rates) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(rates[middle]) else (middle + 1, high)
        return rates[low]

    def _widen(self, widths: dict[str, int], free: Sequence[ChannelGroup], fits: Callable) -> dict[str, int]:
        """Gives single groups the next width, those that lost the largest share first, until none fits any more."""
        waiting = {g.name: g for g in free}
        while waiting:
            group = max(waiting.values(), key=lambda g: 1 - widths[g.name] / g.size)
            trial = widths | {group.name: self._next_width(group, widths)}
            if trial == widths or not fits(trial):
                del waiting[group.name]
            else:
                widths = trial
        return widths

    def _next_width(self, group: ChannelGroup, widths: Mapping[str, int]) -> int:
        """The next width at which what lies in the same heads is as wide as it may be of so many heads."""
        width, rounding = widths[group.name], (self._round_to, self._minimum)
        inside = [g for g in self._groups if g.within == group.name]
        fits = lambda w: all(widths[g.name] in possible_widths(g, *rounding, w) for g in inside)  # noqa: E731
        possible = possible_widths(group, *rounding, widths.get(group.within))
        return min((w for w in possible if w > width and fits(w)), default=width)


def kernel_rate(graph: ChannelGraph, kept: KeptChannels, layers: Sequence[str], target: Target) -> float:
    """The share of kernels to remove from each layer so that the rest costs no more than a target, zeros not counted.

    Args:
        graph: of the model.
        kept: the channels that stay.
        layers: paths of the layers that lose kernels.
        target: its limit is a share of the model without any pruning.

    Raises:
        UsageError: the target is not reached even without these layers, or asks for nothing.
    """
    cost = count_cost(graph, kept)
    full, limit = (getattr(c, target.measure) for c in (cost, count_cost(graph)))
    limit = target.limit(limit)
    kernels, costs = [], []
    for name in layers:
        record = next(r for r in graph.records.values() if r.path == name)
        shapes = [kept_shape(record, index, kept) for index, _ in record.consumes]
        kernels.append(sum(shape[-2] * shape[-1] for shape in shapes))
        weights = sum(math.prod(shape) for shape in shapes)
        macs = sum(layer.macs for layer in cost.layers if layer.path == name)
        costs.append(macs if target.measure == "macs" else weights * full / cost.params)
    number = max(_SHARES, *kernels)
    shares = np.arange(1, number) / number
    removed = sum(np.floor(np.round(shares * count, 9)) / count * c for count, c in zip(kernels, costs, strict=True))
    fits = np.flatnonzero(full - removed <= limit)
    if limit >= full:
        raise UsageError(
            f"the target of {limit:,} {target.measure} asks for no kernels: before they go the model has {full:,}"
        )
    if not len(fits):
        raise UsageError(
            f"the target of {limit:,} {target.measure} cannot be met with kernels: what stays costs {full:,}, "
            f"and the kernels among them {sum(costs):,.0f}"
        )
    return float(shares[fits[0]])


def profile(widths: Widths, rates: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)) -> list[dict]:
    """What is reachable: parameters, MACs and their reductions at some rates (1: the narrowest model)."""
    full = widths.cost(widths.at_rate(0.0))
    rows = []
    for rate in rates:
        cost = widths.cost(widths.at_rate(rate))
        rows.append(
            {
                "rate": rate,
                "params": cost.params,
                "macs": cost.macs,
                "params_reduction_percent": 100 * (1 - cost.params / full.params),
                "macs_reduction_percent": 100 * (1 - cost.macs / max(full.macs, 1)),
            }
        )
    return rows
