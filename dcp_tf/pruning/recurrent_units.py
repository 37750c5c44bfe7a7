"""Units of recurrent layers, which stay unless the residual streams lose channels too."""

from dcp_tf import progress
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.methods import Method


def announce_units(graph: ChannelGraph, method: Method) -> None:
    """Says that the units of recurrent layers stay, where they could be pruned: they often hold most parameters."""
    if method.prune_residual or not method.chooses_channels:
        return
    names = [group.name for group in graph.prunable(residual=True) if group.recurrent]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        progress.say(
            f"note: recurrent units stay ({', '.join(names[:3])}{more}); prune_residual=True prunes them too",
            "prune_residual",
        )
