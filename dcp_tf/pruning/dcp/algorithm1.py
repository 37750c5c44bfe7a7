"""Algorithm 1 of Liu et al. 2021: auxiliary losses, then stage by stage, layer by layer, Algorithm 2."""

import contextlib
import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.data import DataSplit
from dcp_tf.graph import ChannelGraph, copy_model
from dcp_tf.pruning.activations.memory import free_compiled, images_at_once, matrix_bytes
from dcp_tf.pruning.dcp.dead_channels import remove_unread
from dcp_tf.pruning.dcp.stage_runner import Selecting, selection_images
from dcp_tf.pruning.methods import Guided
from dcp_tf.pruning.plan import GroupPlan, KernelPlan
from dcp_tf.pruning.problem.stages import Stage, StageLoss, channel_unit, in_stages, kernel_units, stage_losses
from dcp_tf.pruning.run_state import RunState
from dcp_tf.training import Objective, TrainConfig, fit
from dcp_tf.training.attributes import override_attribute
from dcp_tf.training.chance import heads_at_chance, loss_by_chance
from dcp_tf.training.heads import AugmentedModel, augment
from dcp_tf.training.history import History
from dcp_tf.training.pooled_heads import are_pooled, train_pooled_heads


@dataclasses.dataclass(frozen=True)
class Task:
    """What is pruned, and with which data.

    Attributes:
        data: the training images.
        objective: of the model.
        auxiliary: how the model is fine-tuned with its auxiliary losses.
        seed: of everything that is drawn.
        log_dir: folder for TensorBoard scalars.
    """

    data: DataSplit
    objective: Objective
    auxiliary: TrainConfig
    seed: int = 0
    log_dir: str | None = None


def select_channels(
    model: keras.Model,
    widths: Mapping[str, int],
    method: Guided,
    task: Task,
    state: RunState,
    phases: list[dict],
    ranking: Mapping[str, np.ndarray] | None = None,
) -> tuple[ChannelGraph, ChannelGraph, tuple[list[GroupPlan], list[KernelPlan]]]:
    """Steps 1 and 2 of Algorithm 1.

    Args:
        model: the baseline; it stays as it is.
        widths: the groups that may lose channels, by name, and how many each keeps at most.
        method: Guided or Adapt-DCP with its settings.
        task: the data and the outputs.
        state: where the run keeps what is done.
        phases: gets one entry per phase: name, seconds, history.
        ranking: scores of the channels of each group, where a criterion chooses and only the weights are fitted here.

    Returns:
        The graph of a copy of the model whose remaining weights were fine-tuned and whose removed channels have zero
        weights; the graph of the baseline M^b whose outputs were reconstructed; and what each group and, for methods
        that choose kernels, each layer keeps.
    """
    shapes = [(None, *task.data.shape)]
    graph = ChannelGraph(copy_model(ChannelGraph(model)), shapes, method.ignore_statistics)
    keras.utils.set_random_seed(task.seed)
    augmented = augment(
        graph,
        method.auxiliary_losses if method.discrimination else 0,
        task.objective,
        method.auxiliary_layers if method.discrimination else (),
        keras.config.image_data_format(),
        task.objective.loss_head(model, task.data),
    )
    if augmented.positions:
        asked = len(method.auxiliary_layers) or method.auxiliary_losses
        fewer = f" ({asked} were asked for, the model has no more places)" if len(augmented.positions) < asked else ""
        progress.say("auxiliary classifiers at " + ", ".join(p.layer for p in augmented.positions) + fewer)
    teacher = task.objective.targets(model, task.data) if task.data.labels is None else None
    if not method.per_stage:
        frozen = None if method.auxiliary_trains == "all" else graph
        if frozen is not None and are_pooled(augmented.heads):
            _train_heads(augmented, graph, method, task, state, phases, teacher)
        else:
            _fine_tune(augmented, augmented.loss_weights(), task, state, "auxiliary", phases, teacher, frozen=frozen)
        _name_idle_heads(augmented, task, phases)
    base = ChannelGraph(copy_model(graph), shapes, method.ignore_statistics)
    losses = stage_losses(graph, augmented, task.objective)
    images, cache = selection_images(task.data, graph, method, task.seed, teacher)
    variables = augmented.model.variables
    selecting = Selecting(graph, base, widths, method, images, state, task.seed, ranking or {}, variables, cache)

    def fine_tune(stage: Stage) -> None:
        weights = [float(p == stage.number) for p in range(1, len(augmented.positions) + 1)] + [1.0]
        _fine_tune(
            augmented, weights, task, state, f"stage_{stage.number}", phases, teacher, selecting.masks.for_training()
        )

    return graph, base, _select(selecting, graph, losses, widths, method, fine_tune, phases)


def _select(
    selecting: Selecting,
    graph: ChannelGraph,
    losses: Sequence[StageLoss],
    widths: Mapping[str, int],
    method: Guided,
    fine_tune: Callable[[Stage], None],
    phases: list[dict],
) -> tuple[list[GroupPlan], list[KernelPlan]]:
    """Step 2 of Algorithm 1: first the channels of all groups, then the kernels of all layers."""
    started = time.perf_counter()
    channels = [channel_unit(graph, graph.group(name)) for name in widths] if method.chooses_channels else []
    kernels = kernel_units(graph, method.excludes) if method.chooses_kernels else []
    with progress.bar(what="selecting", total=len(channels) + len(kernels), unit="layer") as bar:
        _sweep(selecting, in_stages(graph, channels, losses), method, bar, fine_tune)
        if kernels:
            chosen = {plan.name: plan.kept for plan in selecting.plans}
            selecting.masks.drop_filters(graph, graph.kept(chosen))
            selecting.restart()
            stages = in_stages(graph, kernels, losses)
            _sweep(selecting, stages, method, bar, (lambda stage: None) if channels else fine_tune)
    selecting.close()
    free_compiled()
    plans = _after_kernels(graph, widths, selecting) if kernels else (list(selecting.plans), [])
    phases.append({"name": "selection", "seconds": time.perf_counter() - started})
    return plans


def _after_kernels(
    graph: ChannelGraph, widths: Mapping[str, int], selecting: Selecting
) -> tuple[list[GroupPlan], list[KernelPlan]]:
    """What is left once channels that no kernel needs any more are gone too."""
    groups = [graph.group(name) for name in widths]
    kept = remove_unread(graph, groups, selecting.masks)
    histories = {plan.name: plan.history for plan in selecting.plans if isinstance(plan, GroupPlan)}
    channels = [GroupPlan(g.name, g.size, kept[g.name], g.consumers, histories.get(g.name, {})) for g in groups]
    records = {record.path: record for record in graph.records.values()}
    kernels = []
    for plan in selecting.plans:
        if isinstance(plan, KernelPlan):
            kernel = records[plan.layer].operation.weights[plan.weight]
            kernels.append(KernelPlan.of(plan.layer, plan.weight, selecting.masks.matrix(kernel), plan.history))
    return channels, kernels


def _sweep(
    selecting: Selecting,
    stages: Sequence[Stage],
    method: Guided,
    bar: Any,
    fine_tune: Callable[[Stage], None] = lambda stage: None,
) -> None:
    """All stages once, shallow to deep."""
    selecting.look_ahead(stages)
    for stage in stages:
        if method.per_stage and stage.units:
            if not selecting.ahead:
                fine_tune(stage)
            # Fine-tuning changes all weights, so the images start again from the first layer.
            selecting.restart()
        selecting.run(stage, bar)


def _fine_tune(
    augmented: AugmentedModel,
    loss_weights: Sequence[float],
    task: Task,
    state: RunState,
    name: str,
    phases: list[dict],
    teacher: Callable | None,
    masks: dict | None = None,
    frozen: ChannelGraph | None = None,
) -> None:
    if not augmented.positions or not task.auxiliary.epochs:
        return
    started = time.perf_counter()
    losses = [task.objective.head_loss] * len(augmented.positions) + [task.objective.loss]
    if name == "auxiliary":
        # Every run that begins with these weights, losses and images trains the same model here.
        labels = None if teacher else zlib.crc32(np.ascontiguousarray(task.data.labels))
        data = (task.data.size, task.data.shape, labels)
        checkpoint = state.shared_training(
            name, augmented.model, losses, loss_weights, task.auxiliary, data, frozen is not None
        )
    else:
        checkpoint = state.training(name)
    with _frozen(frozen):
        history = fit(
            augmented.model,
            task.data,
            losses,
            task.auxiliary,
            loss_weights=loss_weights,
            masks=masks,
            teacher=teacher,
            checkpoint=checkpoint,
            phase="auxiliary fine-tuning" if name == "auxiliary" else name.replace("_", " "),
            log_dir=task.log_dir,
            lr_setting="auxiliary.learning_rate",
        )
    phases.append({"name": name, "seconds": time.perf_counter() - started, "history": list(history)})


def _train_heads(
    augmented: AugmentedModel,
    graph: ChannelGraph,
    method: Guided,
    task: Task,
    state: RunState,
    phases: list[dict],
    teacher: Callable | None,
) -> None:
    """Step 1 where the auxiliary losses train their classifiers alone."""
    if not augmented.positions or not task.auxiliary.epochs:
        return
    started, loss = time.perf_counter(), task.objective.head_loss
    labels = None if teacher else zlib.crc32(np.ascontiguousarray(task.data.labels))
    data = (task.data.size, task.data.shape, labels)
    checkpoint = state.shared_training("auxiliary", augmented.model, loss, task.auxiliary, data, "pooled")
    settings = {"phase": "auxiliary classifiers", **dataclasses.asdict(task.auxiliary)}
    variables = augmented.model.variables
    history = checkpoint.restore(settings, variables, []) if checkpoint is not None else []
    if not history:
        batch = images_at_once(graph.trace, method.cache_gib, method.selection_batch)
        room = matrix_bytes(method.cache_gib)
        record = train_pooled_heads(augmented, graph.trace, task.data, loss, task.auxiliary, teacher, batch, room)
        history = History([record])
        if checkpoint is not None:
            checkpoint.save(settings, variables, [], history, finished=True)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in record.items() if name in ("loss", "top1"))
        progress.say(f"auxiliary classifiers on held-out images  {shown}  {record['seconds']:.0f} s")
    phases.append({"name": "auxiliary", "seconds": time.perf_counter() - started, "history": list(history)})


def _name_idle_heads(augmented: AugmentedModel, task: Task, phases: Sequence[Mapping[str, Any]]) -> None:
    """Logs which auxiliary classifiers learned nothing: what they say of channels means nothing either."""
    trained = next((phase for phase in phases if phase["name"] == "auxiliary"), None)
    if trained is None or task.data.labels is None:
        return
    shape = augmented.model.outputs[0].shape
    by_chance = loss_by_chance(task.objective.head_loss, task.data.labels, shape)
    if by_chance is None:
        return
    losses = trained["history"][-1]["losses"][: len(augmented.positions)]
    idle = heads_at_chance(losses, by_chance)
    trained["heads_at_chance"] = [augmented.positions[number].layer for number in idle]
    if idle:
        named = ", ".join(f"{augmented.positions[n].layer} (loss {losses[n]:.3g})" for n in idle)
        progress.say(
            f"hardly better than a constant answer (loss {by_chance:.3g}): the auxiliary classifiers at {named}; train "
            "them longer (auxiliary.epochs), on more images, or put them deeper (auxiliary_layers)",
            setting=("auxiliary.epochs", "auxiliary_layers"),
        )


def _frozen(graph: ChannelGraph | None) -> contextlib.AbstractContextManager:
    """Keeps the layers of a model as they are, BatchNormalization's statistics too; nothing is done without a model."""
    records = [] if graph is None else graph.records.values()
    return override_attribute(
        [r.operation for r in records if isinstance(r.operation, keras.Layer)], "trainable", False
    )
