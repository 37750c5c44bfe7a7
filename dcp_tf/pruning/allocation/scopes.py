"""Which kinds of candidates compete: channels inside of blocks, residual streams, whole residual blocks."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.graph import ChannelGroup
from dcp_tf.pruning.allocation.steps import allocate
from dcp_tf.pruning.allocation.whole_blocks import WholeBlocks
from dcp_tf.pruning.budget import Target, pricing
from dcp_tf.pruning.context import Context, own_rates


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What may go beside the channels inside of blocks.

    Attributes:
        streams: whether residual streams and recurrent units may be narrowed.
        blocks: whether residual blocks may go as a whole.
    """

    streams: bool
    blocks: bool

    @property
    def name(self) -> str:
        """For logs and summaries."""
        return " and ".join(["channels", *["streams"] * self.streams, *["blocks"] * self.blocks])


@dataclasses.dataclass(eq=False)
class Allocator:
    """Widths that fit a cost at the least estimated loss, within each set of candidates.

    Attributes:
        context: of the trained model; its widths are the uniform ones, which groups keep that do not compete.
        free: the groups that compete.
        prices: of their channels, in the order in which these go.
        rises: of the loss with each of these channels; empty where a criterion says which go.
        blocks: that may go, or None.
        estimates: widths -> the estimated loss of each set of candidates, by name, and the set that was chosen.
    """

    context: Context
    free: Sequence[ChannelGroup]
    prices: Mapping[str, np.ndarray]
    rises: Mapping[str, np.ndarray]
    blocks: WholeBlocks | None
    estimates: dict[Any, tuple[dict[str, float], str]] = dataclasses.field(default_factory=dict)

    def choose(self, target: Target | None) -> dict[str, int]:
        """The widths of the candidates whose loss is least; where none fits, of those that cost least."""
        graph = self.context.graph
        cost = pricing(target or Target("macs", "1"), graph)
        limit = target.limit(cost({})) if target else cost(self.context.widths)
        chosen = {candidates.name: self._within(candidates, cost, limit) for candidates in self._sets()}
        name = min(chosen, key=lambda name: (chosen[name][0], cost(chosen[name][1]) if len(chosen) > 1 else 0.0))
        widths = chosen[name][1]
        self.estimates[_key(widths)] = {name: loss for name, (loss, _) in chosen.items()}, name
        return widths

    def report(self, widths: Mapping[str, int]) -> dict[str, Any]:
        """What was tried at the cost of some widths that were chosen, and said."""
        losses, name = self.estimates[_key(widths)]
        if len(losses) == 1:
            return {}
        show = lambda loss: f"+{loss:.3g}" if math.isfinite(loss) else "not within it"  # noqa: E731
        line = f"estimated loss at the target: {', '.join(f'{each} {show(loss)}' for each, loss in losses.items())}"
        line += f"; {name} may go"
        progress.say(line)
        tried = {each: loss if math.isfinite(loss) else None for each, loss in losses.items()}
        return {"tried": tried, "scope": name, "advice": line}

    def _sets(self) -> list[Candidates]:
        """The sets of candidates to compare: those that the user named, or all that the model has."""
        method, streams, blocks = self.context.method, [False], [False]
        if method.offers_streams:
            streams = [True] if method.prune_residual else [False, True][: 1 + bool(self._streams)]
        if method.offers_blocks:
            blocks = [True] if method.prune_blocks else [False, True][: 1 + bool(self.blocks)]
        return [Candidates(with_streams, with_blocks) for with_blocks in blocks for with_streams in streams]

    @functools.cached_property
    def _streams(self) -> set[str]:
        """The groups that are candidates only as streams."""
        others = {group.name for group in self.context.graph.prunable(False)}
        others |= own_rates(self.context.groups, self.context.method).keys()
        return {group.name for group in self.context.groups if group.name not in others}

    def _within(
        self, candidates: Candidates, cost: Callable[[Mapping[str, int]], float], limit: float
    ) -> tuple[float, dict[str, int]]:
        """The least estimated loss and its widths; infinity, and the narrowest widths, where none fits."""
        graph, method = self.context.graph, self.context.method
        whole = set() if candidates.streams else self._streams
        best: tuple[float, dict[str, int]] = math.inf, {}
        widths: dict[str, int] = {}
        for count in range(len(self.blocks.names) + 1 if candidates.blocks and self.blocks else 1):
            rise = self.blocks.rise(count) if count else 0.0
            if rise >= best[0]:
                break
            gone = self.blocks.names[:count] if count else []
            inside = graph.groups_inside([block for block in graph.blocks if block.name in gone])
            apart = {*inside, *whole}
            others = {name: width for name, width in self.context.widths.items() if name not in apart}
            others |= dict.fromkeys(gone, 0)
            fits = lambda widths, others=others: cost({**others, **widths}) <= limit  # noqa: E731
            left = [group for group in self.free if group.name not in apart]
            widths = {**others, **allocate(left, self.prices, fits, method.round_to, method.min_channels)}
            if not self.rises:
                return 0.0, widths
            loss = rise + sum(self.rises[g.name][: g.size - widths[g.name]].sum() for g in left)
            if loss < best[0] and fits(widths):
                best = float(loss), widths
        return best if best[1] else (math.inf, widths)


def _key(widths: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(widths.items()))
