"""Pruning in several steps with training in between, and one plan of all of them."""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.models.signature import with_flat_signature
from dcp_tf.pruning.budget import pricing
from dcp_tf.pruning.context import Context, choose_widths, prepare
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import PruningPlan
from dcp_tf.pruning.prune_model import PruneResult, prune_prepared


@dataclasses.dataclass(frozen=True, eq=False)
class StepsResult(PruneResult):
    """What pruning in steps gives: model and plan of all steps together.

    Attributes:
        steps: for each step `step`, `params`, `macs`, `seconds`, and the metrics after its training.
    """

    steps: tuple[Mapping[str, Any], ...] = ()


def check_steps(method: Method, steps: int) -> None:
    """Raises UsageError where a method cannot prune in several steps."""
    if steps == 1:
        return
    if isinstance(method, GivenPlan) or method.from_scratch:
        raise UsageError("a plan, and a model trained from scratch, are pruned in one step: leave out steps", "steps")
    if method.chooses_kernels:
        raise UsageError(
            f"{method.name} removes kernels, which a later step would fill again: steps are for channels", "steps"
        )
    if method.target is not None and method.target.cost is not None:
        raise UsageError(
            f"a target of {method.target.measure} is measured on one model: with steps give a rate, or a target of "
            "macs, params or bytes",
            "steps",
        )


def prune_in_steps(
    context: Context,
    steps: int,
    *,
    state_dir: str | os.PathLike | None = None,
    resume: bool = False,
    log_dir: str | None = None,
) -> StepsResult:
    """Prunes to the rate or target of the method in equal ratios, trains after each step, and composes the plans.

    After step k of n a group has its share `(1 - rate)^(k/n)`, or the model its target's share to that power. All
    steps learn from the original.

    Args:
        context: of the whole run; `check_steps` found nothing wrong with its method.
        steps: how many.
        state_dir: folder in which each step keeps what it has done.
        resume: whether the run resumes from what lies there.
        log_dir: folder for TensorBoard scalars.

    Raises:
        UsageError: nothing would be removed, or the run cannot be resumed.
        RunError: a loss became NaN, or a file could not be written.
    """
    plan: PruningPlan | None = None
    model, history, rows, result = context.rotated or context.original, [], [], None
    for number in range(1, steps + 1):
        method = _method_of_step(context, plan, model, number / steps)
        if method is None:
            progress.say(f"step {number} of {steps} removes nothing: the widths are there already")
            continue
        progress.say(f"step {number} of {steps}")
        folder = None if state_dir is None else pathlib.Path(state_dir) / f"step_{number}"
        logs = None if log_dir is None else os.path.join(log_dir, f"step_{number}")
        part = prepare(
            model,
            context.data,
            method,
            validation_data=context.validation,
            objective=context.objective,
            auxiliary=context.auxiliary,
            finetuning=context.finetuning,
            distillation=context.distillation,
            state_dir=folder,
            resume=resume,
            log_dir=logs,
            seed=context.seed,
        )
        part = dataclasses.replace(part, teacher=context.model)
        result = prune_prepared(part, looks_at_baseline=False)
        model, plan = result.model, result.plan if plan is None else plan.then(result.plan)
        history += [{**phase, "name": f"step {number}: {phase['name']}"} for phase in result.history]
        cost = count_cost(model, open_sizes=True)
        seconds = sum(phase["seconds"] for phase in result.history)
        metrics = part.validate(with_flat_signature(model))
        rows.append({"step": number, "params": cost.params, "macs": cost.macs, "seconds": seconds, **metrics})
    if result is None:
        raise UsageError("nothing would be removed in any step; raise the rate or lower round_to")
    history[-len(result.history) :] = result.history  # the last ones have the names that reports know
    return StepsResult(model, plan, history, result.before_finetuning, {}, tuple(rows), rotated=context.rotated)


def changed_groups(original: ChannelGraph, plan: PruningPlan, small: ChannelGraph) -> list[str]:
    """The groups of a pruned model that no plan of the original can name, as pruning made other groups of them."""
    kept = {group.name: len(group.kept) for group in plan.groups}
    before = {g.name: (kept.get(g.name, g.size), g.consumers) for g in original.groups}
    return [g.name for g in small.groups if before.get(g.name) != (g.size, g.consumers)]


def _method_of_step(context: Context, plan: PruningPlan | None, model: Any, share: float) -> Method | None:
    """The method that brings the model to a share of the way; None where it is there."""
    method = context.method
    graph = context.graph if plan is None else ChannelGraph(model, context.shapes, method.ignore_statistics)
    changed = [] if plan is None else changed_groups(context.graph, plan, graph)
    if changed:
        progress.say(f"note: {', '.join(changed)} stay as they are: pruning made other groups of them")
    excluded = (*method.exclude, *map(re.escape, changed))
    if method.target is not None:
        full = pricing(method.target, context.graph)({})
        limit = int(full * (method.target.limit(full) / full) ** share)
        if pricing(method.target, graph)({}) <= limit:
            return None
        target = dataclasses.replace(method.target, text=str(limit))
        return dataclasses.replace(method, target=target, exclude=excluded)
    slower = lambda rate: 1 - (1 - rate) ** share  # noqa: E731
    rates = tuple((pattern, slower(rate)) for pattern, rate in method.rates)
    settings = {"rate": slower(method.rate), **({"rates": rates} if rates else {})}
    widths = choose_widths(context.graph, context.groups, dataclasses.replace(method, **settings))
    # Of channels in attention heads those of one head: heads may have gone before.
    widths = {name: width // context.graph.group(name).heads for name, width in widths.items()}
    sizes = {group.name: group.size // group.heads for group in graph.groups}
    rates = tuple((re.escape(n), 1 - w / sizes[n]) for n, w in widths.items() if n not in changed and w < sizes[n])
    if not rates:
        return None
    stay = tuple(re.escape(n) for n, w in widths.items() if n not in changed and w >= sizes[n])
    return dataclasses.replace(method, rates=rates, exclude=(*excluded, *stay))
