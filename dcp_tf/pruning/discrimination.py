"""Algorithm 1 of Liu et al. 2021: auxiliary losses, then stage by stage, layer by layer, Algorithm 2."""

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.graph import ChannelGraph, ChannelGroup, copy_model
from dcp_tf.pruning.channel_problem import ChannelProblem, SubProblem, Target
from dcp_tf.pruning.choice import choose
from dcp_tf.pruning.layer_inputs import MemoryBudget, Walk
from dcp_tf.pruning.methods import Guided
from dcp_tf.pruning.plan import GroupPlan
from dcp_tf.pruning.readers import HeldPlaces
from dcp_tf.pruning.run_state import RunState
from dcp_tf.training import TrainConfig, classification_loss, fit, soft_targets
from dcp_tf.training.heads import AugmentedModel, augment

_ROOM_FOR_IMAGES = 2**28  # bytes, however small the cache


@dataclasses.dataclass(frozen=True)
class Task:
    """What is pruned, and with which data.

    Attributes:
        data: the training images; see `dcp_tf.data.Split`.
        outputs_kind: of the model, "logits", "softmax" or "sigmoid".
        auxiliary: how the model is fine-tuned with its auxiliary losses.
        seed: of everything that is drawn.
        log_dir: folder for TensorBoard scalars.
    """

    data: Any
    outputs_kind: str
    auxiliary: TrainConfig
    seed: int = 0
    log_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """The groups between two losses.

    Attributes:
        number: p, from 1; the last is P + 1.
        groups: shallow to deep.
        target: the loss L_S^p.
    """

    number: int
    groups: tuple[ChannelGroup, ...]
    target: Target


def select_channels(
    model: keras.Model,
    widths: Mapping[str, int],
    method: Guided,
    task: Task,
    state: RunState,
    phases: list[dict],
    ranking: Mapping[str, np.ndarray] | None = None,
) -> tuple[ChannelGraph, list[GroupPlan]]:
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
        weights, and what each group keeps.
    """
    shapes = [(None, *task.data.shape)]
    graph = ChannelGraph(copy_model(ChannelGraph(model)), shapes, method.ignore_statistics)
    keras.utils.set_random_seed(task.seed)
    augmented = augment(
        graph,
        method.auxiliary_losses if method.discrimination else 0,
        task.outputs_kind,
        method.auxiliary_layers if method.discrimination else (),
        keras.config.image_data_format(),
    )
    if augmented.positions:
        asked = len(method.auxiliary_layers) or method.auxiliary_losses
        fewer = f" ({asked} were asked for, the model has no more places)" if len(augmented.positions) < asked else ""
        progress.say("auxiliary classifiers at " + ", ".join(p.layer for p in augmented.positions) + fewer)
    teacher = soft_targets(model, task.outputs_kind) if task.data.labels is None else None
    if not method.per_stage:
        _fine_tune(augmented, augmented.loss_weights(), task, state, "auxiliary", phases, teacher)
    base = ChannelGraph(copy_model(graph), shapes, method.ignore_statistics)
    stages = _stages(graph, augmented, [graph.group(name) for name in widths], task.outputs_kind)
    selecting = _Selecting(graph, base, augmented, widths, method, task, state, teacher, ranking or {})
    return graph, selecting.run(stages, phases)


class _Selecting:
    """Step 2 of Algorithm 1, and what its stages share."""

    def __init__(
        self,
        graph: ChannelGraph,
        base: ChannelGraph,
        augmented: AugmentedModel,
        widths: Mapping[str, int],
        method: Guided,
        task: Task,
        state: RunState,
        teacher: Callable | None,
        ranking: Mapping[str, np.ndarray],
    ):
        self._graph, self._base, self._augmented, self._widths = graph, base, augmented, widths
        self._method, self._task, self._state, self._teacher = method, task, state, teacher
        self._ranking = ranking
        self._budget = MemoryBudget(int(method.cache_gib * 2**30))
        self._held = HeldPlaces()
        self._images, self._labels = selection_batches(task.data, method, task.seed, teacher)
        self._walks: tuple[Walk, Walk] = self._new_walks()

    def run(self, stages: Sequence[Stage], phases: list[dict]) -> list[GroupPlan]:
        done = self._state.load_selection(self._augmented.model.variables)
        plans: list[GroupPlan] = []
        started, total = time.perf_counter(), sum(len(stage.groups) for stage in stages)
        for plan in done:
            group = self._graph.group(plan.name)
            self._held.drop(self._held.readers(self._graph, group), _as_mask(plan))
        with progress.bar(what="selecting channels", total=total, unit="layer", initial=len(done)) as bar:
            for stage in stages:
                if self._method.per_stage and stage.groups and len(done) <= len(plans):
                    self._fine_tune_stage(stage, phases)
                # Fine-tuning changes all weights, so the images start again from the first layer.
                if self._method.per_stage:
                    self._restart_walks()
                for group in stage.groups:
                    self._walk_to(first_reader(self._graph, group))
                    if len(plans) < len(done):
                        plans.append(done[len(plans)])
                        continue
                    plans.append(self._select(group, stage, len(plans), total, bar))
                    self._state.save_selection(plans, self._augmented.model.variables)
        phases.append({"name": "selection", "seconds": time.perf_counter() - started})
        return plans

    def _new_walks(self) -> tuple[Walk, Walk]:
        return tuple(Walk(g.trace, self._images, self._budget) for g in (self._graph, self._base))

    def _restart_walks(self) -> None:
        for walk in self._walks:
            walk.close()
        self._walks = self._new_walks()

    def _walk_to(self, cut: int) -> None:
        # A group that is read before and behind an auxiliary loss waits for a later stage: then the way is back.
        if any(walk.cut > cut for walk in self._walks):
            self._restart_walks()
        for walk in self._walks:
            walk.advance(cut)

    def _fine_tune_stage(self, stage: Stage, phases: list[dict]) -> None:
        weights = [float(p == stage.number) for p in range(1, len(self._augmented.positions) + 1)] + [1.0]
        _fine_tune(
            self._augmented,
            weights,
            self._task,
            self._state,
            f"stage_{stage.number}",
            phases,
            self._teacher,
            self._held.masks(),
        )

    def _select(self, group: ChannelGroup, stage: Stage, number: int, total: int, bar) -> GroupPlan:
        """Algorithm 2 on one group."""
        method, started = self._method, time.perf_counter()
        readers = self._held.readers(self._graph, group)
        settings = SubProblem(
            method.reconstruction,
            method.discrimination,
            learning_rate=method.selection_lr,
            passes=method.selection_passes,
        )
        rng = np.random.default_rng([self._task.seed, number])
        problem = ChannelProblem(
            self._graph, group, readers, stage.target, self._walks, self._labels, settings, self._budget, rng
        )

        def show(kept: int, limit: int, loss: float) -> None:
            bar.set_postfix_str(f"{group.name}: {kept}/{limit} channels, loss {loss:.4g}")

        selection = choose(problem, method, self._widths[group.name], self._ranking.get(group.name), show)
        problem.close()
        self._held.drop(readers, selection.selected)
        kept = np.flatnonzero(selection.selected)
        bar.update()
        progress.say(
            f"selected {number + 1}/{total}  {group.name}: {len(kept)} of {group.size} channels  "
            f"loss {selection.history['loss'][-1]:.4g}  {time.perf_counter() - started:.1f} s"
        )
        return GroupPlan(group.name, group.size, tuple(kept.tolist()), group.consumers, selection.history)


def selection_batches(
    data: Any, method: Guided, seed: int, teacher: Callable | None
) -> tuple[list[list[tf.Tensor]], list[tf.Tensor]]:
    """The class-balanced selection set in a fixed, mixed order: per batch the model's inputs, and the labels."""
    subset = data.balanced_subset(min(method.selection_samples, _most_images(data.shape, method)), seed)
    if len(subset) < min(method.selection_samples, data.size):
        progress.say(f"selecting on {len(subset)} images, which is what half of --cache_gib holds")
    order = np.random.default_rng([seed, 0]).permutation(subset)
    images, labels = [], []
    for batch in data.batches(method.selection_batch, indices=order):
        x, y = batch if isinstance(batch, tuple) else (batch, None)
        images.append([x])
        labels.append(teacher(x) if y is None else y)
    return images, labels


def _most_images(shape: tuple[int, ...], method: Guided) -> int:
    """How many images may lie in memory: half of the cache, the other half is for layer inputs."""
    room = max(method.cache_gib * 2**30 / 2, _ROOM_FOR_IMAGES)
    return max(1, int(room / (4 * math.prod(shape))))


def first_reader(graph: ChannelGraph, group: ChannelGroup) -> int:
    """Index of the first call that reads a group."""
    return min(i for record, *_ in graph.consumers(group) for i in graph.calls_of(record))


def _as_mask(plan: GroupPlan) -> np.ndarray:
    mask = np.zeros(plan.size, bool)
    mask[list(plan.kept)] = True
    return mask


def _fine_tune(
    augmented: AugmentedModel,
    loss_weights: Sequence[float],
    task: Task,
    state: RunState,
    name: str,
    phases: list[dict],
    teacher: Callable | None,
    masks: dict | None = None,
) -> None:
    if not augmented.positions or not task.auxiliary.epochs:
        return
    started = time.perf_counter()
    head = classification_loss("sigmoid" if task.outputs_kind == "sigmoid" else "logits")
    losses = [head] * len(augmented.positions) + [classification_loss(task.outputs_kind)]
    if name == "auxiliary":
        # Every run that begins with these weights, losses and images trains the same model here.
        labels = None if teacher else zlib.crc32(np.ascontiguousarray(task.data.labels))
        data = (task.data.size, task.data.shape, labels)
        checkpoint = state.shared_training(name, augmented.model, losses, loss_weights, task.auxiliary, data)
    else:
        checkpoint = state.training(name)
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
        lower="--aux_lr",
    )
    phases.append({"name": name, "seconds": time.perf_counter() - started, "history": list(history)})


def _stages(
    graph: ChannelGraph, augmented: AugmentedModel, groups: Sequence[ChannelGroup], outputs_kind: str
) -> list[Stage]:
    """Each group goes to the first loss that lies behind all layers that read it; groups run shallow to deep."""
    head_loss = classification_loss("sigmoid" if outputs_kind == "sigmoid" else "logits")
    targets = [
        Target(p.tensor, lambda x, head=head: head(x, training=False), head_loss)
        for p, head in zip(augmented.positions, augmented.heads, strict=True)
    ]
    targets.append(Target(graph.trace.outputs[0], lambda x: x, classification_loss(outputs_kind)))
    behind = [set(graph.trace.needed([t.tensor], graph.trace.inputs)) for t in targets]
    stages: list[list[ChannelGroup]] = [[] for _ in targets]
    for group in sorted(groups, key=lambda g: first_reader(graph, g)):
        calls = {i for record, *_ in graph.consumers(group) for i in graph.calls_of(record)}
        stages[next(p for p, before in enumerate(behind) if calls <= before)].append(group)
    return [Stage(p, tuple(g), t) for p, (g, t) in enumerate(zip(stages, targets, strict=True), start=1)]
