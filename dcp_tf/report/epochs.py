"""The training history of a phase in a form that can be tabled and drawn."""

from collections.abc import Mapping
from typing import Any

from dcp_tf.report import formats
from dcp_tf.report.figures import FIGURES


def epochs(phase: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of the epochs of `phase`, one figure per key.

    A list, such as `losses` of several heads, becomes `losses 1`, `losses 2`, ...; a list of one keeps its name.
    """
    return [_flat(entry) for entry in phase.get("history") or [] if isinstance(entry, dict)]


def _flat(entry: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in entry.items():
        items = value if isinstance(value, list) else [value]
        flat |= {key if len(items) == 1 else f"{key} {number}": item for number, item in enumerate(items, start=1)}
    return flat


def kept(phase: Mapping[str, Any]) -> str:
    """Which epoch was kept and why, such as "kept epoch 7 of 10, held-out top1 95.80% (94.80% before)"; or nothing."""
    held_out = phase.get("held_out")
    if not isinstance(held_out, dict) or not isinstance(held_out.get("kept_epoch"), int):
        return ""
    metric = str(held_out.get("metric"))
    after, before = (
        formats.percent(held_out.get(key)) if is_accuracy(metric) else formats.short(held_out.get(key))
        for key in ("kept", "before")
    )
    if not held_out["kept_epoch"]:
        return f"kept the model as it was before: no epoch did better, held-out {metric} {before}"
    return f"kept epoch {held_out['kept_epoch']} of {len(epochs(phase))}, held-out {metric} {after} ({before} before)"


def is_accuracy(key: str) -> bool:
    """Whether the figure called `key` is a fraction of 1 that is shown in percent."""
    key = key.removeprefix("held_out_")
    known = key in FIGURES and FIGURES[key].is_share
    return known or key.startswith("top") or any(word in key for word in ("top1", "top5", "accuracy"))
