"""`prune`: from a trained model to a smaller one (Liu et al. 2021, Algorithm 1)."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from dcp_tf import progress
from dcp_tf.data import DataSplit, as_split, digest, images_per_measurement
from dcp_tf.errors import RunError, UsageError
from dcp_tf.field_types import whole_number
from dcp_tf.graph import ChannelGraph, ChannelGroup, check_layers, rebuild
from dcp_tf.models import check_functional
from dcp_tf.models.weights_digest import weights_digest
from dcp_tf.pruning.allocation.global_allocation import global_widths
from dcp_tf.pruning.arguments import check_arguments, shape_hint, usable_model
from dcp_tf.pruning.budget import Widths, kernel_rate, matching, meet
from dcp_tf.pruning.dcp.algorithm1 import Task, select_channels
from dcp_tf.pruning.from_scratch import reinitialize_weights, with_heads
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.importance import CRITERIA, Evidence, Scores, largest
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import GroupPlan, PruningPlan
from dcp_tf.pruning.problem.stages import kernel_units
from dcp_tf.pruning.recovery.block_outputs import recover_weights
from dcp_tf.pruning.recurrent_units import announce_units
from dcp_tf.pruning.rounding import rounding_note
from dcp_tf.pruning.run_state import RunState
from dcp_tf.pruning.stopping import FixedRate
from dcp_tf.settings.training import AUXILIARY, FINETUNING, TrainConfig
from dcp_tf.training import (
    Distillation,
    Loss,
    Objective,
    as_objective,
    distillation_weight,
    finetuning_advice,
    fit,
)
from dcp_tf.training.advice import ADVISED
from dcp_tf.training.baseline_check import check_baseline
from dcp_tf.training.heads import find_positions
from dcp_tf.training.label_checks import numbering_note
from dcp_tf.training.objectives import output_shape


@dataclasses.dataclass(frozen=True, eq=False)
class PruneResult:
    """What pruning gives.

    Attributes:
        model: the smaller model, fine-tuned.
        plan: what each group keeps and how that was found.
        history: one entry per phase: `name`, `seconds` and, of training phases, `history`.
        before_finetuning: metrics of the model right after surgery, where validation data was given.
    """

    model: keras.Model
    plan: PruningPlan
    history: list[dict[str, Any]]
    before_finetuning: Mapping[str, float]

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value:.4f} before fine-tuning" for name, value in self.before_finetuning.items())
        return f"<PruneResult {self.model.name}: {self.model.count_params():,} parameters, {self.plan!r}{figures}>"


def prune(
    model: keras.Model,
    train_data: Any,
    method: Method | PruningPlan,
    *,
    validation_data: Any = None,
    objective: Objective | str | Loss | None = None,
    outputs_kind: str | None = None,
    auxiliary: TrainConfig = AUXILIARY,
    finetuning: TrainConfig = FINETUNING,
    distillation: float | None = None,
    state_dir: str | os.PathLike | None = None,
    resume: bool = False,
    shared_dir: str | os.PathLike | None = None,
    log_dir: str | None = None,
    looks_at_baseline: bool = True,
    seed: int = 0,
) -> PruneResult:
    """Finds channels without discriminative power, removes them and fine-tunes what is left.

    (With `WidthMultiplier` there is no choice: all weights of the smaller model are drawn anew.)

    Args:
        model: trained, functional or Sequential, with one output of shape (batch, ..., values). It stays as it is.
        train_data: a `dcp_tf.data.DataSplit`, `tf.data.Dataset` of (image, label) batches, or arrays (images, labels).
            Where labels are left out, the model's own predictions are the targets.
        method: which channels, such as `dcp_tf.DCP(rate=0.5)`; or a plan, which is applied in place of a choice.
        validation_data: of the same kinds, for what is measured after each epoch.
        objective: what the model is for: an `Objective`, one of `dcp_tf.training.LOSSES` by name, or a loss (labels,
            outputs) -> scalar mean. None reads it off the model's last activation and the labels.
        outputs_kind: "logits", "softmax" or "sigmoid"; None reads it off the model's last activation.
        auxiliary: fine-tuning with auxiliary losses (DCP only).
        finetuning: of the pruned model; 0 epochs leave it out. It ends with the epoch that does best on held-out
            training images, or with the model as it was before.
        distillation: weight of the baseline's soft predictions in the fine-tuning, 0 to 1; None: a half, where the loss
            has a distance to them.
        state_dir: folder in which the run keeps what it has done.
        resume: go on with what lies in `state_dir`.
        shared_dir: folder in which the model is kept that the auxiliary losses fine-tuned. Runs that begin with the
            same model, images, labels and settings of that phase share it, whatever they prune then.
        log_dir: folder for TensorBoard scalars.
        looks_at_baseline: measure the model first, and warn where it is no better than chance on this data.
        seed: of everything that is drawn.

    Returns:
        The smaller model, its plan and how it came about.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
        RunError: a loss became NaN, or a file could not be written.
    """
    method = GivenPlan.of(method) if isinstance(method, PruningPlan) else method
    check_arguments(method, auxiliary, finetuning, distillation)
    seed = whole_number(seed, "seed")
    train, validation = as_split(train_data), None if validation_data is None else as_split(validation_data)
    check_shapes(model, train)
    model = usable_model(model)
    objective = as_objective(objective, model, train, outputs_kind)
    if validation is not None:
        _check_validation(model, validation, objective)
    distillation = distillation_weight(objective.loss, distillation)
    graph, widths = check(model, train, method, objective, distillation)
    _announce_rounding(graph, method)
    announce_units(graph, method)
    method = resolve(graph, widths, method)
    settings = _settings(graph, train, method, objective, auxiliary, finetuning, distillation, seed)
    state = RunState(state_dir, settings, resume, shared_dir)
    task = Task(train, objective, dataclasses.replace(auxiliary, seed=seed), seed, log_dir)
    phases: list[dict[str, Any]] = []
    if looks_at_baseline and not method.from_scratch:
        _look(model, objective, train, validation, seed)
    selected, base, plan = _select(graph, widths, method, task, state, phases)
    small = rebuild(selected, plan.kept(selected))
    masks = plan.kernel_masks(selected, ChannelGraph(small)) if plan.kernels else None
    if method.from_scratch:
        reinitialize_weights(small, seed)
    if method.guided:
        phases += recover_weights(base, small, plan.kept(base), method, task.data, state, seed, masks)

    def validate() -> Mapping[str, float]:
        if validation is None:
            return {}
        return objective.evaluate(small, validation.batches(images_per_measurement(validation.shape)))

    before = validate()
    if before and not method.from_scratch:
        progress.say(f"after surgery, before fine-tuning: {objective.primary} {before[objective.primary]:.4f}")
    trained, heads = _trainable(small, method, task)
    config = dataclasses.replace(finetuning, seed=seed)
    _fine_tune(trained, heads, model, task, config, distillation, state, phases, validate, masks)
    return PruneResult(small, plan, phases, before)


def _look(model: keras.Model, objective: Objective, train: DataSplit, validation: DataSplit | None, seed: int) -> None:
    """Says how good the model is before anything is done to it, and what is odd about the data."""
    if objective.name in ("softmax", "sigmoid") and (note := numbering_note(train.labels, output_shape(model, train))):
        progress.say(note, "round_to")
    found = check_baseline(model, objective, train, validation, seed=seed)
    for line in [] if found is None else [found.headline(), *found.lines()]:
        progress.say(line)


def check(
    model: keras.Model, data: DataSplit, method: Method, objective: Objective, distillation: float | None = None
) -> tuple[ChannelGraph, dict[str, int]]:
    """Everything that can be wrong with the arguments of `prune`, found in moments and before anything is written.

    Args:
        model: as for `prune`.
        data: see `dcp_tf.data.as_split`.
        method: as for `prune`.
        objective: fitted to the model and the data; see `dcp_tf.training.as_objective`.
        distillation: as for `prune`.

    Returns:
        The model's graph, and for each group that will be pruned (by name) how many channels it keeps at most.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
    """
    check_shapes(model, data)
    graph = ChannelGraph(model, [(None, *data.shape)], method.ignore_statistics)
    check_layers(graph)
    groups = choose_groups(graph, method)
    method.check(graph, groups)
    if method.uses_heads:
        find_positions(graph, method.auxiliary_losses, objective, method.auxiliary_layers)
    widths = choose_widths(graph, groups, method)
    if method.chooses_kernels:
        kernel_units(graph, method.excludes)
        resolve(graph, widths, method)
    elif all(widths[g.name] == g.size for g in groups) and isinstance(method.stopping(method.rate), FixedRate):
        raise UsageError(
            f"nothing would be removed at rate {method.rate} with round_to {method.round_to}; "
            "raise the rate or lower round_to"
        )
    Distillation(objective.loss, distillation_weight(objective.loss, distillation))
    return graph, widths


def _check_validation(model: keras.Model, data: DataSplit, objective: Objective) -> None:
    """Raises UsageError unless the model can be measured on the data."""
    check_shapes(model, data, "validation_data")
    if data.labels is None:
        raise UsageError("validation_data has no labels to measure the model by; give some, or leave it out")
    objective.check(data.labels, output_shape(model, data), "validation_data")


def check_shapes(model: keras.Model, data: DataSplit, what: str = "the data") -> None:
    """Raises UsageError unless the model is functional, takes such images and gives one value or more for each."""
    check_functional(model)
    if len(model.inputs) != 1:
        raise UsageError(f"pruning with data needs a model with one input, {model.name!r} has {len(model.inputs)}")
    if len(model.outputs) != 1 or len(model.outputs[0].shape) < 2:
        shapes = [tuple(x.shape) for x in model.outputs]
        raise UsageError(f"pruning with data needs one output of shape (batch, ...), {model.name!r} has {shapes}")
    expected = tuple(model.inputs[0].shape[1:])
    if len(expected) != len(data.shape) or any(e not in (None, s) for e, s in zip(expected, data.shape, strict=True)):
        hint = shape_hint(expected, data)
        raise UsageError(f"the model takes images of shape {expected}, {what} has {tuple(data.shape)}{hint}")


def choose_groups(graph: ChannelGraph, method: Method) -> list[ChannelGroup]:
    """The groups that the method may prune.

    Raises:
        UsageError: there is none, or an excluded name does not exist.
    """
    if isinstance(method, GivenPlan):
        return list(method.groups(graph))
    layers = [unit.name for unit in kernel_units(graph)] if method.chooses_kernels else []
    for pattern in method.exclude:
        matching(graph.groups, pattern, layers)
    groups = [g for g in graph.prunable(method.prune_residual) if not method.excludes(g.name)]
    if groups or not method.chooses_channels:
        return groups
    reasons = {g.pinned_because for g in graph.groups if g.pinned_because}
    kinds = {"recurrent units" if g.recurrent else "residual streams" for g in graph.prunable(True)}
    residual = "" if method.prune_residual or not kinds else f"; {' and '.join(sorted(kinds))} need prune_residual=True"
    raise UsageError(
        f"the model has no group of channels to prune ({'; '.join(sorted(reasons)[:3])}{residual})",
        "prune_residual" if residual else (),
    )


def choose_widths(graph: ChannelGraph, groups: Sequence[ChannelGroup], method: Method) -> dict[str, int]:
    """How many channels each group keeps (at most, for methods that find widths themselves).

    Raises:
        UsageError: a pattern of `rates` matches nothing, or the target cannot be reached.
    """
    if isinstance(method, GivenPlan):
        return method.widths()
    if not method.chooses_channels:
        return {group.name: group.size for group in groups}
    widths = Widths(graph, groups, method.round_to, method.min_channels, own_rates(groups, method))
    if method.target is None or method.chooses_kernels:
        return widths.at_rate(method.rate)
    if method.allocates == "global":  # where only what it ends in is measured
        return widths.within(dataclasses.replace(method.target, measured=None))
    return meet(method.target, widths.within)


def _announce_rounding(graph: ChannelGraph, method: Method) -> None:
    """Says so where rounding the widths removes much more or less than the rate."""
    if not method.chooses_channels or method.target is not None:
        return
    groups = choose_groups(graph, method)
    widths_at = lambda step: choose_widths(graph, groups, dataclasses.replace(method, round_to=step))  # noqa: E731
    if note := rounding_note(graph, widths_at, method.round_to):
        progress.say(note, "round_to")


def own_rates(groups: Sequence[ChannelGroup], method: Method) -> dict[str, float]:
    """The rates of single groups, by name; the first pattern that matches counts."""
    rates: dict[str, float] = {}
    for pattern, rate in method.rates:
        for group in matching(groups, pattern):
            rates.setdefault(group.name, rate)
    return rates


def resolve(graph: ChannelGraph, widths: Mapping[str, int], method: Method) -> Method:
    """The method with the share of kernels that its target asks for; others stay as they are."""
    if not method.chooses_kernels or method.target is None:
        return method
    layers = [unit.name for unit in kernel_units(graph, method.excludes)]
    kept = graph.kept({name: range(width) for name, width in widths.items()})
    return method.with_kernel_rate(kernel_rate(graph, kept, layers, method.target))


def _select(
    graph: ChannelGraph,
    widths: Mapping[str, int],
    method: Method,
    task: Task,
    state: RunState,
    phases: list[dict[str, Any]],
) -> tuple[ChannelGraph, ChannelGraph, PruningPlan]:
    """Chooses what stays; appends to `phases`.

    Returns:
        The graph of the model that is cut (`select_channels` fits the kernels of a copy), that of the baseline, and the
        plan.

    Raises:
        RunError: nothing would be removed.
    """
    started = time.perf_counter()
    if isinstance(method, GivenPlan):
        return method.plan.with_zero_kernels(graph), graph, method.plan
    evidence = Evidence(graph, task.data, task.objective, method, task.seed)
    ranking = _rank(evidence, widths)
    if method.allocates == "global":
        fixed = own_rates([graph.group(name) for name in widths], method)
        widths = global_widths(evidence, widths, ranking, fixed)
        phases.append({"name": "allocation", "seconds": time.perf_counter() - started})
    if method.guided:
        model = graph.trace.model
        selected, base, (plans, kernels) = select_channels(model, widths, method, task, state, phases, ranking)
    else:
        selected, base, plans, kernels = graph, graph, _keep_best(graph, widths, ranking), []
        phases.append({"name": "selection", "seconds": time.perf_counter() - started})
    plan = PruningPlan(graph.fingerprint(), tuple(plans), method.name, method.settings(), tuple(kernels))
    if all(len(p.kept) == p.size for p in plan.groups) and all(p.matrix().all() for p in plan.kernels):
        raise RunError("the selection found everything necessary; raise the rate or epsilon")
    return selected, base, plan


def _rank(evidence: Evidence, widths: Mapping[str, int]) -> Scores | None:
    """The scores of all channels by the method's criterion; None where the method chooses layer by layer."""
    criterion = CRITERIA.get(evidence.method.name)
    return None if criterion is None else criterion(evidence, [evidence.graph.group(name) for name in widths])


def _keep_best(graph: ChannelGraph, widths: Mapping[str, int], ranking: Scores) -> list[GroupPlan]:
    plans = []
    for name, width in widths.items():
        group = graph.group(name)
        kept = largest(ranking[name], width)
        plans.append(GroupPlan(group.name, group.size, tuple(kept.tolist()), group.consumers))
    return plans


def _trainable(small: keras.Model, method: Method, task: Task) -> tuple[keras.Model, list[float] | None]:
    """The smaller model with what its losses read, and their weights where it has auxiliary heads (from scratch)."""
    objective, data = task.objective, task.data
    if method.from_scratch and method.uses_heads:
        augmented = with_heads(small, method.auxiliary_losses, method.auxiliary_layers, objective, data, task.seed)
        return augmented.model, augmented.loss_weights()
    return objective.with_loss_head(small, None if method.from_scratch else data), None


def _fine_tune(
    trained: keras.Model,
    weights: list[float] | None,
    baseline: keras.Model,
    task: Task,
    config: TrainConfig,
    distillation: float,
    state: RunState,
    phases: list[dict[str, Any]],
    validate: Callable[[], Mapping[str, float]],
    masks: Mapping[str | int, Any] | None,
) -> None:
    """Trains the smaller model; `weights` are those of the losses where it has auxiliary heads."""
    started = time.perf_counter()
    if not config.epochs:
        return
    objective, loss, teacher = task.objective, task.objective.loss, None
    if distillation or task.data.labels is None:
        teacher = objective.targets(baseline, task.data)
    if distillation:
        loss = Distillation(loss, distillation)
    history = fit(
        trained,
        task.data,
        [objective.head_loss] * (len(weights or [1.0]) - 1) + [loss],
        config,
        loss_weights=weights,
        validation=validate,
        masks=masks,
        teacher=teacher,
        checkpoint=state.training("finetuning"),
        phase="fine-tuning",
        log_dir=task.log_dir,
        keep_best=True,
        lr_setting="finetuning.learning_rate",
    )
    phases.append(history.phase("fine-tuning", time.perf_counter() - started, distillation=distillation))
    if line := finetuning_advice(history, config, objective, baseline, task.data):
        progress.say(line, ADVISED)


def _settings(graph, train, method, objective, auxiliary, finetuning, distillation, seed) -> dict[str, Any]:
    return {
        "fingerprint": graph.fingerprint(),
        "weights": weights_digest(graph.trace.model),
        "trainable": len(graph.trace.model.trainable_variables),
        "images": train.size,
        "data": digest(train),
        "method": method.name,
        **method.settings(),
        "objective": repr(objective),
        "auxiliary": dataclasses.asdict(auxiliary),
        "finetuning": dataclasses.asdict(finetuning),
        "distillation": distillation,
        "seed": seed,
    }
