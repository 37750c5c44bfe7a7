"""A plot of a model's channel groups: every operation is a box, colored by the group that it produces."""

import os
import pathlib
from collections import defaultdict
from typing import TYPE_CHECKING

from dcp_tf import drawing
from dcp_tf.files import write_atomically
from dcp_tf.graph.channel_graph import ChannelGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _COLUMN = 0.32, 3.2  # inches per box
_PINNED = "#d0d0d0"


def plot_groups(graph: ChannelGraph, path: str | os.PathLike) -> pathlib.Path:
    """Writes what `draw_groups` draws.

    Args:
        graph: of the model.
        path: of the image file; its suffix gives the format (.png, .svg, .pdf).

    Returns:
        The path.
    """
    suffix = pathlib.Path(path).suffix.lstrip(".") or "png"
    return write_atomically(path, lambda temporary: draw_groups(graph).savefig(temporary, format=suffix, dpi=120))


def draw_groups(graph: ChannelGraph) -> "Figure":
    """Draws the groups over the graph, from the inputs at the top to the outputs at the bottom.

    Producers of one group share a color; operations that produce no channels are white, pinned groups are gray.
    """
    positions = _box_positions(graph)
    rows = 1 + max((row for row, _ in positions.values()), default=0)
    columns = 1 + max((column for _, column in positions.values()), default=0)
    return drawing.new_figure(
        lambda figure: _draw(figure, graph, positions, rows, columns),
        max(4.0, columns * _COLUMN),
        max(2.0, rows * _ROW + 0.6),
    )


def _draw(figure: "Figure", graph: ChannelGraph, positions: dict, rows: int, columns: int) -> None:
    import matplotlib.colors

    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -1.5)
    trace = graph.trace
    for index, call in enumerate(trace.calls):
        for source in {trace.producer[t] for t in call.inputs if t in trace.producer}:
            (y0, x0), (y1, x1) = positions[source], positions[index]
            # Edges that skip rows bend around the boxes in between.
            bend = -0.25 if y1 - y0 > 1 and x0 == x1 else 0.0
            line = {"arrowstyle": "-", "color": "#909090", "linewidth": 0.6, "connectionstyle": f"arc3,rad={bend}"}
            axes.annotate("", xy=(x1, y1), xytext=(x0, y0), arrowprops=line, zorder=1)
    labels = _labels(graph)
    free = [g for g in graph.groups if g.pinned_because is None]
    colors = {g.name: matplotlib.colors.hsv_to_rgb((i * 0.618 % 1, 0.35, 0.95)) for i, g in enumerate(free)}
    for index, call in enumerate(trace.calls):
        row, column = positions[index]
        group = labels.get(call.path)
        color = "white" if group is None else colors.get(group.name, _PINNED)
        text = call.path if group is None else f"{call.path}  [{group.name}: {group.size}]"
        if group is not None and group.name == call.path:
            kind = " recurrent" if group.recurrent else " residual" if group.residual else ""
            text = f"{call.path}  [{group.size}{kind}]"
        box = {"facecolor": color, "edgecolor": "#606060", "linewidth": 0.5, "boxstyle": "round,pad=0.15"}
        axes.text(column, row, text, ha="center", va="center", fontsize=5.5, bbox=box, zorder=2)
    residual = len(free) - len(graph.prunable())
    streams = f", {residual} with prune_residual" if residual else ""
    pinned = len(graph.groups) - len(free)
    title = f"{trace.model.name}: {len(graph.prunable())} groups can be pruned{streams}, {pinned} are pinned (gray)"
    axes.text(-0.45, -1.0, title, fontsize=8, va="center")


def _box_positions(graph: ChannelGraph) -> dict[int, tuple[int, int]]:
    """For each call its row (depth) and its column among the calls of that depth."""
    trace = graph.trace
    depth: dict[int, int] = {}
    for index, call in enumerate(trace.calls):
        depth[index] = 1 + max((depth[trace.producer[t]] for t in call.inputs if t in trace.producer), default=-1)
    used: dict[int, int] = defaultdict(int)
    positions = {}
    for index, row in depth.items():
        positions[index] = (row, used[row])
        used[row] += 1
    return positions


def _labels(graph: ChannelGraph) -> dict:
    """Operation path -> the first group that it produces."""
    labels = {}
    for group in graph.groups:
        for producer in group.producers:
            labels.setdefault(producer, group)
    return labels
