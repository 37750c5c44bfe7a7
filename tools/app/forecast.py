"""Predicts what pruning leaves of a model at a rate or a target, without building it."""

import re
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.budget import Budget
from dcp_tf.tools.cli.flags_from_settings import read, values_of
from dcp_tf.tools.cli.program import name_flags
from dcp_tf.tools.cli.pruning_flags import read_target


def forecast(graph: Any, flags: Any) -> dict[str, Any]:
    """What pruning at a rate or to a target would leave, counted without building it."""
    from dcp_tf.graph import count_cost
    from dcp_tf.pruning import Widths, profile, rounding_note

    read(values_of(flags), Budget)  # checks the rate
    target = read_target(flags)
    if target is not None and flags.rate is not None:
        raise UsageError("give --rate or a target, not both")
    scope = _scope(graph, flags)
    round_to = 1 if flags.paper_scope and not flags["round_to"].present else flags.round_to  # the papers do not round
    widths_at = lambda step: Widths(graph, scope, step, flags.min_channels)  # noqa: E731
    widths = widths_at(round_to)
    kept = widths.at_rate(flags.rate) if target is None else widths.within(target)
    note = None if target else rounding_note(graph, lambda step: widths_at(step).at_rate(flags.rate), round_to)
    note = note and name_flags(note, ["round_to"])
    before, after = count_cost(graph), widths.cost(kept)
    report = {"model": graph.trace.model.name, "rate": flags.rate}
    for name in ("params", "macs", "flops"):
        full, left = getattr(before, name), getattr(after, name)
        report |= {name: left, f"baseline_{name}": full, f"{name}_reduction_percent": 100 * (1 - left / max(full, 1))}
    return report | {"note": note, "widths": kept, "reachable": profile(widths)}


def _scope(graph: Any, flags: Any) -> list:
    """The groups that lose channels."""
    if not flags.paper_scope:
        groups = graph.prunable(flags.prune_residual)
    else:
        from dcp_tf.models import paper_scope

        if not flags.model.startswith("zoo:"):
            raise UsageError("--paper_scope is for the networks of the papers: --model=zoo:NAME")
        patterns = paper_scope(flags.model.removeprefix("zoo:"))
        groups = [g for g in graph.groups if any(re.fullmatch(pattern, g.name) for pattern in patterns)]
    if not groups:
        free = graph.prunable(residual=True)
        kinds = dict.fromkeys("recurrent units" if group.recurrent else "residual streams" for group in free)
        hint = f"its {' and '.join(kinds)} need --prune_residual" if free else "without --rate the reasons are listed"
        raise UsageError(f"the model has no group of channels to prune; {hint}")
    return groups
