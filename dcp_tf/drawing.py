"""Figures of results, for notebooks and for the report: their colors, and what both draw.

matplotlib is imported when a figure is drawn, without pyplot: there is no window and no global state.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# First layer to last; each shade stands out from a light and from a dark page.
DEPTH_COLORS = ("#3f8fd6", "#b35bb0", "#e0782f")
_MOST_NAMES = 60  # of layers in one figure


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colors of a figure."""

    ink: str
    muted: str
    line: str
    baseline: str
    pruned: str
    third: str
    paper: str


LIGHT = Palette("#1b1f24", "#57606a", "#d9dee3", "#7d8793", "#0a7f78", "#a3478f", "#ffffff")


def style(palette: Palette) -> dict[str, Any]:
    """Settings of matplotlib for a figure in these colors, on a transparent ground."""
    return {
        "axes.axisbelow": True,
        "axes.edgecolor": palette.line,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.labelcolor": palette.muted,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": palette.ink,
        "figure.constrained_layout.use": True,
        "figure.facecolor": "none",
        "font.size": 12,
        "grid.color": palette.line,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.labelcolor": palette.ink,
        "text.color": palette.ink,
        "text.parse_math": False,  # a layer may be called "a$b$"
        "xtick.color": palette.line,
        "xtick.labelcolor": palette.muted,
        "ytick.color": palette.line,
        "ytick.labelcolor": palette.muted,
    }


def new_figure(draw: Callable[["Figure"], Any], width: float, height: float) -> "Figure":
    """A figure of so many inches on white, drawn by `draw`, that a notebook shows without pyplot."""
    import matplotlib
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=100)
            return stream.getvalue()

    with matplotlib.rc_context({**style(LIGHT), "figure.facecolor": LIGHT.paper, "font.size": 10}):
        figure = ShownFigure(figsize=(width, height))
        draw(figure)
        figure.draw_without_rendering()  # labels of ticks are made now, in these settings
    return figure


def relative_loss(size: int, history: Mapping[str, Sequence[float]]) -> list[tuple[float, float]]:
    """The percentage of a group's channels that was taken, and the loss relative to its start; or nothing."""
    loss, taken = list(history.get("loss", ())), list(history.get("kept", ()))
    if len(taken) == len(loss) - 1:
        taken = [0, *taken]  # the first loss was taken before the first step
    if len(loss) < 2 or len(taken) != len(loss) or not all(isinstance(x, (int, float)) for x in [*loss, *taken]):
        return []
    return [(100 * count / size, value / loss[0]) for count, value in zip(taken, loss, strict=True)] if loss[0] else []


def draw_selection(axes: Any, lines: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Every layer's loss relative to its start over the percentage of channels taken, colored by depth."""
    from matplotlib.colors import LinearSegmentedColormap

    shade = LinearSegmentedColormap.from_list("depth", DEPTH_COLORS)
    for number, line in enumerate(lines):
        color = shade(number / max(1, len(lines) - 1))
        axes.plot(*zip(*line, strict=True), color=color, linewidth=1.4 if len(lines) < 40 else 0.9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("channels taken (%)")
    axes.set_ylabel("loss / loss at the start")


def plan_figure(kept: Sequence[tuple[str, int, int]], losses: Sequence[Sequence[tuple[float, float]]] = ()) -> "Figure":
    """What each group keeps and, where there are any, the losses of the selection.

    Args:
        kept: name, kept channels and all channels of each group.
        losses: see `draw_selection`; empty ones are left out.
    """
    losses = [line for line in losses if line]

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, 1 + bool(losses), squeeze=False)[0]
        axes, rows = panels[0], range(len(kept))
        axes.barh(rows, [size for _, _, size in kept], color=LIGHT.line, label="removed")
        axes.barh(rows, [count for _, count, _ in kept], color=LIGHT.pruned, label="kept")
        if len(kept) <= _MOST_NAMES:
            axes.set_yticks(rows, [name for name, _, _ in kept], fontsize=8)
            for row, (_, count, size) in enumerate(kept):
                axes.text(size, row, f" {count:,} of {size:,}", va="center", fontsize=7, color=LIGHT.muted)
        else:
            axes.set_ylabel("groups, the first on top")
            axes.set_yticks([])
        axes.set_ylim(len(kept) - 0.5, -0.5)
        axes.set_xlim(right=1.2 * max((size for _, _, size in kept), default=1))
        axes.grid(axis="y", visible=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("channels")
        axes.set_title("kept (green) of each group", fontsize=10)
        if losses:
            draw_selection(panels[1], losses)
            panels[1].set_title("loss of the selection, from first (blue) to last layer", fontsize=10)

    height = min(12.0, max(3.2, 0.2 * len(kept) + 1.2))
    return new_figure(draw, 9.6 if losses else 5.6, height)


def latency_figure(latencies: Mapping[str, tuple[float, float, float]]) -> "Figure":
    """The median latency of each candidate with its 10th and 90th percentile (ms)."""

    def draw(figure: "Figure") -> None:
        axes, rows = figure.subplots(), range(len(latencies))
        median, low, high = zip(*latencies.values(), strict=True)
        errors = [[m - p for m, p in zip(median, low, strict=True)], [p - m for m, p in zip(median, high, strict=True)]]
        colors = [LIGHT.baseline, *[LIGHT.pruned] * (len(latencies) - 1)]
        axes.barh(rows, median, xerr=errors, color=colors, ecolor=LIGHT.ink, height=0.6)
        axes.set_yticks(rows, list(latencies))
        axes.set_ylim(len(latencies) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("latency (ms): median, 10th to 90th percentile")

    return new_figure(draw, 6.4, 1.0 + 0.4 * len(latencies))
