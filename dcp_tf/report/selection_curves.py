"""The loss curves of the greedy selection in each layer, from the histories in the plan."""

import base64
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.report import formats

Point = tuple[float, float]

# A small figure is some 150 pixels wide: more points than this would be invisible and only enlarge the file.
MOST_POINTS = 60
WIDTH, HEIGHT = 120, 48  # of a small figure, in its own units


@dataclasses.dataclass(frozen=True)
class Curve:
    """The selection in one layer; every line is a list of (channels or kernels selected, loss).

    Attributes:
        name: the group of channels, or the layer of kernels.
        size: how many channels or kernels it had.
        kept: how many the plan keeps.
        loss: the joint loss that the selection lowers.
        parts: the recorded terms of that loss, by name.
    """

    name: str
    size: int
    kept: int
    loss: list[Point]
    parts: dict[str, list[Point]]

    @property
    def start(self) -> str:
        """The loss before the first step."""
        return formats.short(self.loss[0][1])

    @property
    def end(self) -> str:
        """The loss after the last step."""
        return formats.short(self.loss[-1][1])

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The lines of the small figure, the joint loss last, on top: (name, points of an SVG polyline)."""
        lines = {**self.parts, "loss": self.loss}
        widest = max(taken for taken, _ in self.loss) or 1
        highest = max(value for line in lines.values() for _, value in line) or 1
        return [
            (
                name,
                " ".join(
                    f"{WIDTH * taken / widest:.1f},{HEIGHT - (HEIGHT - 2) * value / highest - 1:.1f}"
                    for taken, value in thinned(line)
                ),
            )
            for name, line in lines.items()
        ]


def curves(groups: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The curves of all groups whose selection left a history of at least two steps, in the order of the plan."""
    curves = (_curve(group, group["name"], group["size"], len(group["kept"])) for group in groups)
    return [curve for curve in curves if curve is not None]


def kernel_curves(layers: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The curves of all layers whose kernels were chosen."""
    curves = (
        _curve(
            layer,
            f"{layer['layer']} (kernels)",
            math.prod(layer["shape"]),
            int.from_bytes(base64.b64decode(layer["kept"]), "big").bit_count(),
        )
        for layer in layers
    )
    return [curve for curve in curves if curve is not None]


def _curve(record: Mapping[str, Any], name: str, size: int, kept: int) -> Curve | None:
    history = record.get("history")
    loss = _line(history, "loss") if isinstance(history, dict) else []
    if len(loss) < 2:
        return None
    parts = {part: _line(history, part) for part in ("reconstruction", "discrimination")}
    return Curve(name, size, kept, loss, {part: line for part, line in parts.items() if len(line) > 1})


def _line(history: Mapping[str, Any], name: str) -> list[Point]:
    values, taken = history.get(name), history.get("kept")
    if not isinstance(values, list):
        return []
    if not isinstance(taken, list):
        taken = list(range(len(values)))
    elif len(taken) == len(values) - 1:
        taken = [0, *taken]  # the first loss was taken before the first step
    pairs = zip(taken, values, strict=False)
    return [(count, value) for count, value in pairs if formats.is_number(count) and formats.is_number(value)]


def thinned(line: Sequence[Point]) -> list[Point]:
    """At most `MOST_POINTS` points of `line`, evenly spread, its ends among them."""
    if len(line) <= MOST_POINTS:
        return list(line)
    last = len(line) - 1
    return [line[round(step * last / (MOST_POINTS - 1))] for step in range(MOST_POINTS)]
