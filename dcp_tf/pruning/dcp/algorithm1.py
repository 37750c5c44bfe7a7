"""Algorithm 1 of Liu et al. 2021: auxiliary losses, then stage by stage, layer by layer, Algorithm 2."""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.data import images_per_measurement
from dcp_tf.graph import ChannelGraph, ChannelGroup, copy_model
from dcp_tf.graph.blocks import branch_weights
from dcp_tf.pruning.activations.memory import free_compiled, images_at_once, matrix_bytes
from dcp_tf.pruning.allocation.stream_readers import READ, fitted_readers
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.dcp.dead_channels import remove_unread
from dcp_tf.pruning.dcp.stage_runner import StageRunner
from dcp_tf.pruning.importance.criterion import Scores
from dcp_tf.pruning.methods import Guided
from dcp_tf.pruning.plan import GroupPlan, KernelPlan
from dcp_tf.pruning.problem.stages import Stage, StageLoss, channel_unit, in_stages, kernel_units, stage_losses
from dcp_tf.training import TrainState, fit
from dcp_tf.training.checkpoint import History
from dcp_tf.training.heads import AugmentedModel, augment
from dcp_tf.training.idle_heads import head_losses, output_losses
from dcp_tf.training.layers import override_attribute
from dcp_tf.training.pooled_heads import are_pooled, train_pooled_heads


def select_channels(
    context: Context, scores: Scores | None = None
) -> tuple[ChannelGraph, ChannelGraph, list[GroupPlan], list[KernelPlan]]:
    """Steps 1 and 2 of Algorithm 1.

    Args:
        context: of the run; the history gets an entry for each phase.
        scores: of the channels of each group, where a criterion chooses and only the weights are fitted here.

    Returns:
        The graph of a copy of the model whose remaining weights were fine-tuned and whose removed channels have zero
        weights; the graph of the baseline M^b whose outputs were reconstructed; and what each group and, for methods
        that choose kernels, each layer keeps.
    """
    method, objective = context.method, context.objective
    graph = ChannelGraph(copy_model(context.graph), context.shapes, method.ignore_statistics)
    keras.utils.set_random_seed(context.seed)
    augmented = augment(
        graph,
        method.auxiliary_losses if method.discrimination else 0,
        objective,
        method.auxiliary_layers if method.discrimination else (),
        keras.config.image_data_format(),
        objective.loss_head(context.model, context.data),
    )
    asked = (len(method.auxiliary_layers) or method.auxiliary_losses) if method.discrimination else 0
    if augmented.positions:
        fewer = f" ({asked} were asked for, the model has no others)" if len(augmented.positions) < asked else ""
        progress.say("auxiliary classifiers at " + augmented.describe_positions(len(context.model.outputs)) + fewer)
    elif asked:
        progress.say("no layer can carry an auxiliary classifier: the loss of the model itself chooses in all of them")
    trains_heads, baseline = bool(augmented.positions and context.auxiliary.epochs), context.graph
    if trains_heads and not method.per_stage:
        _train_auxiliary(context, graph, augmented)
        _describe_heads(context, augmented)
        if method.auxiliary_trains == "all":
            baseline = ChannelGraph(copy_model(graph), context.shapes, method.ignore_statistics)
    if context.removed:
        _fit_readers(context, graph, baseline)
    losses = stage_losses(graph, augmented, objective)
    runner = StageRunner(context, graph, baseline, scores or {}, augmented.model.variables)
    for block in context.removed:
        for weight in branch_weights(graph.trace, block):
            runner.masks.restrict(weight, np.zeros([1] * len(weight.shape), bool))

    def fine_tune(stage: Stage) -> None:
        weights = [float(p == stage.number) for p in range(1, len(augmented.positions) + 1)] + [1.0]
        if trains_heads:
            _fine_tune(context, augmented, weights, f"stage_{stage.number}", masks=runner.masks.for_training())

    return graph, baseline, *_select(context, runner, graph, losses, fine_tune)


def _fit_readers(context: Context, graph: ChannelGraph, baseline: ChannelGraph) -> None:
    """Fits what reads the stream behind the blocks that go, as the selection fits what reads a group."""
    count = min(READ, context.method.selection_samples, context.data.size)
    (fitted,) = fitted_readers(dataclasses.replace(context, graph=baseline), count, [context.removed])
    for record in graph.records.values():
        if record.path in fitted:
            record.operation.kernel.assign(fitted[record.path])


def _select(
    context: Context,
    runner: StageRunner,
    graph: ChannelGraph,
    losses: Sequence[StageLoss],
    fine_tune: Callable[[Stage], None],
) -> tuple[list[GroupPlan], list[KernelPlan]]:
    """Step 2 of Algorithm 1: first the channels of all groups, then the kernels of all layers."""
    method = context.method
    groups = [graph.group(group.name) for group in context.groups]
    channels = [channel_unit(graph, group) for group in groups] if method.chooses_channels else []
    kernels = kernel_units(graph, method.excludes) if method.chooses_kernels else []
    with (
        context.phase("selection"),
        progress.bar(what="selecting", total=len(channels) + len(kernels), unit="layer") as bar,
    ):
        stages = in_stages(graph, channels, losses)
        if len(graph.trace.outputs) > 1 and 0 < len(stages[-1].units) < len(channels):
            names = ", ".join(unit.name for unit in stages[-1].units)
            progress.say(f"beside or behind the auxiliary classifiers, the model's own losses choose: {names}")
        _sweep(runner, stages, method, bar, fine_tune)
        if kernels:
            chosen = {plan.name: plan.kept for plan in runner.plans}
            runner.masks.drop_filters(graph, graph.kept(chosen))
            runner.restart()
            stages = in_stages(graph, kernels, losses)
            _sweep(runner, stages, method, bar, (lambda stage: None) if channels else fine_tune)
        runner.close()
        free_compiled()
        return _after_kernels(graph, groups, runner) if kernels else (list(runner.plans), [])


def _after_kernels(
    graph: ChannelGraph, groups: Sequence[ChannelGroup], runner: StageRunner
) -> tuple[list[GroupPlan], list[KernelPlan]]:
    """What is left once channels that no kernel needs any more are gone too."""
    kept = remove_unread(graph, groups, runner.masks)
    histories = {plan.name: plan.history for plan in runner.plans if isinstance(plan, GroupPlan)}
    channels = [GroupPlan(g.name, g.size, kept[g.name], g.consumers, histories.get(g.name, {})) for g in groups]
    records = {record.path: record for record in graph.records.values()}
    kernels = []
    for plan in runner.plans:
        if isinstance(plan, KernelPlan):
            kernel = records[plan.layer].operation.weights[plan.weight]
            kernels.append(KernelPlan.of(plan.layer, plan.weight, runner.masks.matrix(kernel), plan.history))
    return channels, kernels


def _sweep(
    runner: StageRunner,
    stages: Sequence[Stage],
    method: Guided,
    bar: Any,
    fine_tune: Callable[[Stage], None],
) -> None:
    """All stages once, shallow to deep."""
    runner.look_ahead(stages)
    for stage in stages:
        if method.per_stage and stage.units:
            if not runner.ahead:
                fine_tune(stage)
            # Fine-tuning changes all weights, so the images start again from the first layer.
            runner.restart()
        runner.run(stage, bar)


def _train_auxiliary(context: Context, graph: ChannelGraph, augmented: AugmentedModel) -> None:
    """Step 1: the auxiliary losses train the whole model, or their classifiers alone."""
    method, objective, data, config = context.method, context.objective, context.data, context.auxiliary
    frozen = None if method.auxiliary_trains == "all" else graph
    # Every run that begins with these weights, losses and images trains the same model here.
    labels = None
    for array in keras.tree.flatten([part for part in (data.labels, data.weights) if part is not None]):
        labels = zlib.crc32(np.ascontiguousarray(array), labels or 0)
    data_key = (data.size, data.shape, labels)
    if frozen is None or context.callbacks.get("auxiliary") or not are_pooled(augmented.heads):
        losses, weights = augmented.losses(objective), augmented.loss_weights()
        key = (losses, weights, config, data_key, frozen is not None)
        key += tuple(type(callback).__name__ for callback in context.callbacks.get("auxiliary", ()))
        checkpoint = context.state.shared_training("auxiliary", augmented.model, *key)
        return _fine_tune(context, augmented, weights, "auxiliary", checkpoint, frozen=frozen)
    key = (objective.head_loss, config, data_key, "pooled")
    checkpoint = context.state.shared_training("auxiliary", augmented.model, *key)
    settings, variables = {"phase": "auxiliary classifiers", **dataclasses.asdict(config)}, augmented.model.variables
    with context.phase("auxiliary") as entry:
        history = checkpoint.restore(settings, variables, []) if checkpoint is not None else []
        if not history:
            batch = images_at_once(graph.trace, method.cache_gib, method.selection_batch)
            room, losses, teacher = (
                matrix_bytes(method.cache_gib),
                augmented.losses(objective)[:-1],
                context.labels_from_model(),
            )
            record = train_pooled_heads(augmented, graph.trace, data, losses, config, teacher, batch, room)
            history = History([record])
            if checkpoint is not None:
                checkpoint.save(settings, variables, [], history, finished=True)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in record.items() if name in ("loss", "top1"))
            progress.say(f"auxiliary classifiers on held-out images  {shown}  {record['seconds']:.0f} s")
        entry["history"] = list(history)


def _fine_tune(
    context: Context,
    augmented: AugmentedModel,
    loss_weights: Sequence[float],
    name: str,
    checkpoint: TrainState | None = None,
    masks: dict | None = None,
    frozen: ChannelGraph | None = None,
) -> None:
    """Trains the augmented model in a phase of that name; the layers of `frozen` stay as they are."""
    objective = context.objective
    with context.phase(name) as entry, _frozen(frozen):
        history = fit(
            augmented.model,
            context.data,
            augmented.losses(objective),
            context.auxiliary,
            loss_weights=loss_weights,
            masks=masks,
            teacher=context.labels_from_model(),
            checkpoint=checkpoint or context.state.training(name),
            phase="auxiliary fine-tuning" if name == "auxiliary" else name.replace("_", " "),
            log_dir=context.log_dir,
            lr_setting="auxiliary.learning_rate",
            callbacks=context.callbacks.get("auxiliary", ()),
        )
        entry["history"] = list(history)


def _describe_heads(context: Context, augmented: AugmentedModel) -> None:
    """Adds the heads to their phase, and logs which learned nothing: what they say of channels means nothing either."""
    trained = context.history[-1]
    trained["heads"] = [position.layer for position in augmented.positions]
    if context.data.labels is None or context.data.weights is not None:
        return
    record = trained["history"][-1]
    if any(f"{name}_losses" not in record for position in augmented.positions for name in position.names):
        teacher, batch = context.labels_from_model(), images_per_measurement(context.data.shape)
        record = record | output_losses(augmented, context.objective, context.data, teacher, batch)
    measured = head_losses(augmented, context.objective, context.data.labels, record)
    if not measured:
        return
    trained["head_losses"] = [dataclasses.asdict(head) for head in measured]
    idle = [head for head in measured if head.is_at_chance]
    trained["heads_at_chance"] = list(dict.fromkeys(head.layer for head in idle))
    if idle:
        constant = "" if idle[0].output else f" (loss {idle[0].constant:.3g})"
        named = ", ".join(map(str, idle))
        progress.say(
            f"hardly better than a constant answer{constant}: the auxiliary classifiers at {named}; train "
            "them longer (auxiliary.epochs), on more images, or put them deeper (auxiliary_layers)",
            setting=("auxiliary.epochs", "auxiliary_layers"),
        )


def _frozen(graph: ChannelGraph | None) -> contextlib.AbstractContextManager:
    """Keeps the layers of a model as they are, BatchNormalization's statistics too; nothing is done without a model."""
    records = [] if graph is None else graph.records.values()
    return override_attribute(
        [r.operation for r in records if isinstance(r.operation, keras.Layer)], "trainable", False
    )
