"""The widths drawn over the network: a bar for each layer in order, kept channels inside of all of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dcp_tf.report import formats

_STEP, _HEIGHT = 10, 100  # of a layer, in the drawing's own units
_RECT = Markup('<rect class="{}" x="{:g}" width="{:g}" y="{:.2f}" height="{:.2f}">{}</rect>')


def layers_of(summary: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The layers of `summary.json`; of a run before these were recorded the groups of its plan."""
    layers = summary.get("layers")
    if isinstance(layers, list) and layers and all(_is_layer(layer) for layer in layers):
        return layers
    return [{"layer": g["name"], "before": g["size"], "after": len(g["kept"])} for g in groups]


def _is_layer(layer: Any) -> bool:
    widths = [layer.get("before"), layer.get("after")] if isinstance(layer, dict) else [None]
    return all(isinstance(width, int) and width > 0 for width in widths) and isinstance(layer.get("layer"), str)


def draw_network(layers: Sequence[Mapping[str, Any]]) -> Markup | None:
    """One bar for each layer, as high as the root of its channels; None for fewer than two layers."""
    if len(layers) < 2:
        return None
    widest = max(layer["before"] for layer in layers)
    bars = []
    for number, layer in enumerate(layers):
        before, after = layer["before"], layer["after"]
        height = _HEIGHT * math.sqrt(before / widest)
        title = f"{layer['layer']}: {after:,} of {before:,} channels"
        if formats.is_number(layer.get("macs_before")) and formats.is_number(layer.get("macs_after")):
            title += f", MACs {formats.short_count(layer['macs_before'])} → {formats.short_count(layer['macs_after'])}"
        title = Markup("<title>{}</title>").format(title)
        x, width = _STEP * number + 1, _STEP - 2
        kept = height * min(1.0, after / before)
        if after < before:
            bars.append(_RECT.format("removed", x, width, (_HEIGHT - height) / 2, height, title))
        bars.append(_RECT.format("kept" if after < before else "whole", x, width, (_HEIGHT - kept) / 2, kept, title))
    label = f"{len(layers)} layers from left to right; {sum(x['after'] < x['before'] for x in layers)} lost channels."
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>').format(
        label, _STEP * len(layers), _HEIGHT, Markup("").join(bars)
    )
