"""Why channels stay, in one line."""

import re
from collections.abc import Sequence

# A reason that names a layer: what stands before the name, the name, and the kind of the layer with what it does.
_NAMES_A_LAYER = re.compile(r"(it is read by |it is made by |)(\S+)( \(\w+\).+)")


def in_short(reasons: Sequence[str]) -> str:
    """All reasons in one line; of those that differ in the layer's name alone the first, and how many more there are.

    Args:
        reasons: clauses, such as "norm (LayerNormalization) takes statistics over the channels".
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for reason in reasons:
        parts = _NAMES_A_LAYER.fullmatch(reason)
        alike.setdefault((parts[1], parts[3]) if parts else (reason,), []).append(reason)
    return "; ".join(_with_count(first, len(others)) for first, *others in alike.values())


def _with_count(reason: str, more: int) -> str:
    return f"{reason} (and {more} more layer{'s' * (more > 1)} like it)" if more else reason
