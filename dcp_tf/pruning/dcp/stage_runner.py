"""Step 2 of Algorithm 1 (Liu et al. 2021): stage by stage, unit by unit, Algorithm 2."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor
from dcp_tf.pruning.activations.memory import images_at_once
from dcp_tf.pruning.activations.selection_images import SelectionImages
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.dcp.dispatch import choose, choose_kernels
from dcp_tf.pruning.elimination.fisher import fisher_matrices
from dcp_tf.pruning.importance.criterion import Scores
from dcp_tf.pruning.methods import Guided
from dcp_tf.pruning.plan import GroupPlan, KernelPlan
from dcp_tf.pruning.problem.algorithm2 import Selection
from dcp_tf.pruning.problem.consumers import ConsumerKernel, KernelMasks, with_kernels
from dcp_tf.pruning.problem.problem import ChannelProblem, SubProblem
from dcp_tf.pruning.problem.stages import Stage, Unit
from dcp_tf.settings.budget import Adaptive

UnitPlan = GroupPlan | KernelPlan


class StageRunner:
    """The cursor over all units, and what they share.

    Attributes:
        masks: what is still there of all kernels.
        plans: what is selected so far.
    """

    def __init__(
        self,
        context: Context,
        graph: ChannelGraph,
        baseline: ChannelGraph,
        scores: Scores,
        variables: Sequence[Any],
    ):
        """Takes up what a stopped run has selected.

        Args:
            context: of the run.
            graph: of the model that is being pruned.
            baseline: of M^b.
            scores: of channels, where a criterion chooses; else empty.
            variables: all that a resumed run needs back.
        """
        self._context, self._graph, self._baseline = context, graph, baseline
        self._method: Guided = context.method
        self._scores, self._variables = scores, variables
        self._images, self._cache = _selection_images(context, graph)
        self._labels = self._images.labels
        self.masks = KernelMasks()
        self.plans: list[UnitPlan] = []
        self._fisher: Callable[[], Mapping[int, np.ndarray]] | None = None
        self._done = context.state.load_selection(variables)
        self._cursors = self._new_cursors()

    @property
    def ahead(self) -> bool:
        """Whether the next unit was selected by the run that is being resumed."""
        return len(self.plans) < len(self._done)

    def restart(self) -> None:
        """Sends the images back to the first layer: where weights that they passed have changed."""
        for cursor in self._cursors:
            cursor.close()
        self._cursors = self._new_cursors()

    def look_ahead(self, stages: Sequence[Stage]) -> None:
        """Tells which stages come, as one pass measures the Fisher matrices of all, where they are asked for at all."""
        trace = self._baseline.trace
        reading = [({i for unit in stage.units for i in unit.calls}, stage.loss) for stage in stages]
        self._fisher = functools.cache(
            lambda: fisher_matrices(trace, trace.inputs, self._images, self._labels, reading)
        )

    def run(self, stage: Stage, bar: Any) -> None:
        """Selects the units of one stage, shallow to deep."""
        for unit in stage.units:
            if self.ahead:
                plan = self._done[len(self.plans)]
                self._hold(unit, plan)
            elif self._has_nothing_to_do(unit):
                everything = list(range(unit.size))
                selection = Selection(
                    np.ones(unit.size, bool), {"kept": [unit.size], "loss": [0.0], "added": [everything]}
                )
                plan = self._plan(unit, self.masks.consumer_kernels(unit.consumers), selection)
                progress.say(f"kept whole {len(self.plans) + 1}/{bar.total}  {unit.name}: {unit.size} channels")
            else:
                self._advance_to(unit.calls[0])
                plan = self._select(unit, stage, bar)
            self.plans.append(plan)
            if len(self.plans) > len(self._done):
                self._context.state.save_selection(self.plans, self._variables)
            bar.update()

    def close(self) -> None:
        """Frees the memory and deletes the files."""
        for cursor in self._cursors:
            cursor.close()
        self._images.close()
        self._cache.close()

    def _new_cursors(self) -> tuple[ActivationCursor, ActivationCursor]:
        return tuple(ActivationCursor(g.trace, self._images, self._cache) for g in (self._graph, self._baseline))

    def _advance_to(self, cut: int) -> None:
        # A group that is read before and behind an auxiliary loss waits for a later stage: then the way is back.
        if any(cursor.cut > cut for cursor in self._cursors):
            self.restart()
        for cursor in self._cursors:
            cursor.advance(cut)

    def _has_nothing_to_do(self, unit: Unit) -> bool:
        """Whether a group keeps all channels while its inputs are still those of the baseline: its kernels fit then."""
        method = self._method
        if unit.kernels or method.per_stage or method.passes or method.selection != "fast" or method.chooser:
            return False
        whole = (isinstance(plan, GroupPlan) and len(plan.kept) == plan.size for plan in self.plans)
        if isinstance(method, Adaptive) or self._context.removed:
            return False
        return self._context.widths[unit.name] == unit.size and all(whole)

    def _hold(self, unit: Unit, plan: UnitPlan) -> None:
        """Takes over what was selected before; the weights themselves were restored."""
        consumers = self.masks.consumer_kernels(unit.consumers)
        if isinstance(plan, GroupPlan):
            mask = np.zeros(plan.size, bool)
            mask[list(plan.kept)] = True
            self.masks.drop(consumers, mask)
        else:
            for consumer in consumers:
                kernel = consumer.kernel
                self.masks.restrict(kernel, plan.matrix().reshape([1] * (len(kernel.shape) - 2) + list(plan.shape)))

    def _select(self, unit: Unit, stage: Stage, bar: Any) -> UnitPlan:
        """Algorithm 2 on one unit."""
        started, number = time.perf_counter(), len(self.plans)
        consumers, size = self.masks.consumer_kernels(unit.consumers), unit.size
        if unit.kernels:
            consumers, size = with_kernels(consumers, np.ones(unit.size, bool))
        method = self._method
        settings = SubProblem(
            method.reconstruction,
            method.discrimination,
            learning_rate=method.selection_lr,
            passes=method.passes,
            score=method.score or "reduction",
        )
        rng = np.random.default_rng([self._context.seed, number])
        problem = ChannelProblem(
            self._graph,
            unit.name,
            consumers,
            size,
            stage.loss,
            self._cursors,
            self._labels,
            settings,
            self._cache,
            rng,
            self._fisher,
            unit,
        )
        what = "kernels" if unit.kernels else "channels"

        def show(kept: int, limit: int, loss: float) -> None:
            bar.set_postfix_str(f"{unit.name}: {kept}/{limit} {what}, loss {loss:.4g}")

        if unit.kernels:
            selection = choose_kernels(problem, method, show)
        else:
            selection = choose(problem, method, self._context.widths[unit.name], self._scores.get(unit.name), show)
        problem.close()
        self.masks.drop(consumers, selection.selected)
        progress.say(
            f"selected {number + 1}/{bar.total}  {unit.name}: {int(selection.selected.sum())} of {size} {what}  "
            f"loss {selection.history['loss'][-1]:.4g}  {time.perf_counter() - started:.1f} s"
        )
        return self._plan(unit, consumers, selection)

    def _plan(self, unit: Unit, consumers: Sequence[ConsumerKernel], selection: Selection) -> UnitPlan:
        if not unit.kernels:
            kept = tuple(np.flatnonzero(selection.selected).tolist())
            layers = tuple(dict.fromkeys(record.path for record, *_ in unit.consumers))
            return GroupPlan(unit.name, unit.size, kept, layers, selection.history)
        record, index, *_ = unit.consumers[0]
        # Millions of kernels: which came in at which step is not kept.
        history = {name: values for name, values in selection.history.items() if name != "added"}
        return KernelPlan.of(record.path, index, self.masks.matrix(consumers[0].kernel), history)


def _selection_images(context: Context, graph: ChannelGraph) -> tuple[SelectionImages, Cache]:
    """The selection set, in batches that fit into memory, and the cache for what layers make of it."""
    method: Guided = context.method
    cache = Cache.of_gib(method.cache_gib, method.cache_disk_gib)
    batch = method.selection_batch
    if method.selection == "fast" and not method.passes:  # else it is that of SGD, on which the result depends
        batch = images_at_once(graph.trace, method.cache_gib, batch)
    samples, teacher = method.selection_samples, context.labels_from_model()
    return SelectionImages(context.selection_data or context.data, samples, batch, context.seed, teacher, cache), cache
