"""Whether rounding the widths removes much more, or much less, than the rate that was asked for."""

from collections.abc import Callable, Mapping

from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.budget import cost_at

_MUCH = 1 / 3  # more or less than the plain rate removes


def rounding_note(graph: ChannelGraph, widths_at: Callable[[int], Mapping[str, int]], round_to: int) -> str | None:
    """A line where rounding removes a third more or less multiply-accumulates than the plain rate; else None.

    Args:
        graph: of the model.
        widths_at: `round_to` -> group name -> width, at the rate that was asked for.
        round_to: what the widths are rounded to.
    """
    full = cost_at(graph, {}).macs

    def removed(step: int) -> float:
        return 1 - cost_at(graph, widths_at(step)).macs / max(full, 1)

    plain, rounded = removed(1), removed(round_to)
    if round_to == 1 or not plain or abs(rounded - plain) < _MUCH * plain:
        return None
    finer = next(step for step in (8, 4, 2, 1) if step < round_to and abs(removed(step) - plain) < _MUCH * plain)
    return (
        f"widths in multiples of {round_to} remove {rounded:.0%} of the MACs, the plain rate would remove {plain:.0%}; "
        f"round_to={finer} removes {removed(finer):.0%}"
    )
