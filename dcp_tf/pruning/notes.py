"""What is logged of a run: what its widths remove and what stays, and how good the model is before and after."""

import dataclasses
from collections.abc import Callable, Mapping

import keras

from dcp_tf import progress
from dcp_tf.graph import ChannelGraph
from dcp_tf.models.time_distributed import note_of_wrapped_models
from dcp_tf.pruning.budget import cost_at
from dcp_tf.pruning.context import Context, choose_widths
from dcp_tf.text_table import some
from dcp_tf.training.baseline_check import check_baseline
from dcp_tf.training.joint_objective import each_output
from dcp_tf.training.label_checks import numbering_note
from dcp_tf.training.objectives import output_shape

_MUCH = 1 / 3  # more or less than the plain rate removes


def announce(context: Context, looks_at_baseline: bool) -> None:
    """Logs where rounding removes much more or less than the rate, which units stay, and how good the model is.

    Args:
        context: of the run.
        looks_at_baseline: whether the model is measured; one that is trained from scratch never is.
    """
    graph, method = context.graph, context.method
    if method.round_to > 1 and method.target is None:
        widths_at = lambda step: choose_widths(graph, context.groups, dataclasses.replace(method, round_to=step))  # noqa: E731
        if note := rounding_note(graph, widths_at, method.round_to):
            progress.say(note, "round_to")
    if note := note_of_wrapped_models(context.model):
        progress.say(f"note: {note}")
    units = [group.name for group in graph.prunable(residual=True) if group.recurrent]
    if units and method.chooses_channels and not method.offers_streams:
        progress.say(
            f"note: recurrent units stay ({some(units)}); prune_residual=True prunes them too",
            "prune_residual",
        )
    if not looks_at_baseline or method.from_scratch:
        return
    for name, objective, model, (data, validation) in each_output(
        context.objective, context.model, context.data, context.validation
    ):
        is_classes = objective.name in ("softmax", "sigmoid")
        if is_classes and (note := numbering_note(data.labels, output_shape(model, data))):
            progress.say(f"{name}: {note}" if name else note)
        check = check_baseline(model, objective, data, validation, seed=context.seed)
        headline = f"baseline, output {name!r}" if name else "baseline"
        for line in [] if check is None else [check.headline(headline), *check.lines()]:
            progress.say(line)


def announce_cut(context: Context, small: keras.Model) -> Mapping[str, float]:
    """Measures the smaller model right after surgery; logs and returns the metrics, if there is validation data."""
    metrics, primary = context.validate(small), context.objective.primary
    if metrics and not context.method.from_scratch:
        progress.say(f"after surgery, before fine-tuning: {primary} {metrics[primary]:.4f}")
    return metrics


def rounding_note(graph: ChannelGraph, widths_at: Callable[[int], Mapping[str, int]], round_to: int) -> str | None:
    """A line where rounding removes a third more or less multiply-accumulates than the plain rate; else None.

    Args:
        graph: of the model.
        widths_at: `round_to` -> group name -> width, at the rate that was asked for.
        round_to: what the widths are rounded to.
    """
    full = cost_at(graph, {}).macs

    def removed(step: int) -> float:
        return 1 - cost_at(graph, widths_at(step)).macs / max(full, 1)

    plain, rounded = removed(1), removed(round_to)
    if round_to == 1 or not plain or abs(rounded - plain) < _MUCH * plain:
        return None
    finer = next(step for step in (8, 4, 2, 1) if step < round_to and abs(removed(step) - plain) < _MUCH * plain)
    return (
        f"widths in multiples of {round_to} remove {rounded:.0%} of the MACs, the plain rate would remove {plain:.0%}; "
        f"round_to={finer} removes {removed(finer):.0%}"
    )
