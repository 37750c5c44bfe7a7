"""The tables of inspect_model for a log or a narrow terminal: lines of at most 80 characters, names in one piece."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.text_table import some

WIDE = 110  # columns of a terminal from which on the table with borders reads well
_WIDTH = 80
_NAME = 34


def group_lines(groups: Sequence[Mapping[str, Any]], widths: Mapping[str, int] | None = None) -> list[str]:
    """A line for each group with its size, shares and whether it can be pruned, and indented lines that say more.

    Args:
        groups: as inspect_model describes them.
        widths: group name -> channels that stay, where a rate or a target is counted.
    """
    lines = [f"{'group':{_NAME}}{'size':>12}{'params':>8}{'MACs':>8}  can be pruned"]
    for group in groups:
        size = f"{group['size']}" if not widths else f"{widths.get(group['name'], group['size'])} of {group['size']}"
        figures = f"{size:>12}{percent(group['params_share']):>8}{percent(group['macs_share']):>8}  {answer(group)}"
        lines += _named(group["name"], figures)
        if len(group["producers"]) > 1:
            lines += _indented(f"tied together: {some(group['producers'])}")
        if group["consumers"]:
            lines += _indented(f"read by: {some(group['consumers'])}")
        if group["pinned_because"]:
            lines += _indented(f"because {group['pinned_because']}")
    return lines


def layer_lines(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each layer with its parameters and MACs, and an indented one with its kind and shapes."""
    lines = [f"{'layer':{_NAME}}{'parameters':>16}{'MACs':>20}"]
    for layer in layers:
        lines += _named(layer["name"], f"{layer['params']:>16,}{number(layer['macs']):>20}")
        lines += _indented(f"{layer['kind']}: {shapes(layer['outputs'])}")
    return lines


def shapes(outputs: Sequence[Sequence[int | None]]) -> str:
    """Shapes of outputs, as 32 x 32 x 16; an open size is a question mark."""
    return ", ".join(" x ".join("?" if size is None else str(size) for size in shape) for shape in outputs)


def answer(group: Mapping[str, Any]) -> str:
    """Whether a group can be pruned, in a word."""
    if group["pinned_because"]:
        return "no"
    return "recurrent" if group.get("recurrent") else "residual" if group["residual"] else "yes"


def percent(share: float | None) -> str:
    """A share of 1; a question mark where it is unknown."""
    return "?" if share is None else f"{share:.1%}"


def number(count: int | None) -> str:
    """A count; a question mark where it is unknown."""
    return "?" if count is None else f"{count:,}"


def _named(name: str, figures: str) -> list[str]:
    """The name before its figures, or above them where it is too long."""
    return [f"{name:{_NAME}}{figures}"] if len(name) < _NAME else [name, f"{'':{_NAME}}{figures}"]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )
