"""The training history of a phase in a form that can be tabled and drawn."""

from collections.abc import Mapping
from typing import Any

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


def is_accuracy(key: str) -> bool:
    """Whether the figure called `key` is a fraction of 1 that is shown in percent."""
    known = key in FIGURES and FIGURES[key].is_share
    return known or key.startswith("top") or any(word in key for word in ("top1", "top5", "accuracy"))
