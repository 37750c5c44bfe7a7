"""`prune`: from a trained model to a smaller one (Liu et al. 2021, Algorithm 1)."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.graph import ChannelGraph, count_cost, rebuild
from dcp_tf.models.compiled_like import compiled_like
from dcp_tf.models.signature import with_signature_of
from dcp_tf.pruning.allocation.global_allocation import global_widths
from dcp_tf.pruning.context import Context, prepare
from dcp_tf.pruning.dcp.algorithm1 import select_channels
from dcp_tf.pruning.from_scratch import reinitialize_weights, with_heads
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.importance.criterion import Scores
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.notes import announce, announce_cut
from dcp_tf.pruning.plan import GroupPlan, PruningPlan
from dcp_tf.pruning.recovery.block_outputs import recover_weights
from dcp_tf.pruning.views import with_views
from dcp_tf.settings.training import AUXILIARY, FINETUNING, TrainConfig
from dcp_tf.text_table import ShownAsTables, Table, print_tables, settings_line
from dcp_tf.training import Distillation, Loss, Objective, finetuning_advice, fit
from dcp_tf.training.advice import ADVISED
from dcp_tf.training.masks import MaskedKernels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class PruneResult(ShownAsTables):
    """What pruning gives.

    Attributes:
        model: the smaller model, fine-tuned, and compiled as the original is.
        plan: what each group keeps and how that was found.
        history: one entry per phase: `name`, `seconds` and, of training phases, `history`.
        before_finetuning: metrics of the model right after surgery, where validation data was given.
        masks: what holds removed kernels at zero in training, by the `id()` of a weight of `model`: 0 where they are.
        rotated: with `rotate_streams` the rotated model, which the plan is for; else None.
    """

    model: keras.Model
    plan: PruningPlan
    history: list[dict[str, Any]]
    before_finetuning: Mapping[str, float]
    masks: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    rotated: keras.Model | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value:.4f} before fine-tuning" for name, value in self.before_finetuning.items())
        return f"<PruneResult {self.model.name}: {self.model.count_params():,} parameters, {self.plan!r}{figures}>"

    def summary(self, print_fn: Callable[[str], Any] = print) -> None:
        """Prints what each group keeps, what the model costs now, and the phases with their seconds."""
        print_tables(self._tables(), print_fn)

    def _tables(self) -> list[Table]:
        cost = count_cost(self.model, open_sizes=True)
        costs = f"{self.model.name}: {cost.params:,} parameters, {cost.macs or 0:,} MACs"
        rows = [(phase["name"], round(phase["seconds"], 1)) for phase in self.history]
        figures = [f"before fine-tuning: {settings_line(self.before_finetuning)}"] if self.before_finetuning else []
        return [*self.plan._tables(), Table("phases", ("phase", "seconds"), rows, [costs, *figures])]

    def plot(self) -> "Figure":
        """What each group keeps, and the loss while channels were taken; see `PruningPlan.plot`."""
        return self.plan.plot()

    def masks_callback(self) -> MaskedKernels:
        """Holds removed kernels at exactly zero in a training of your own, with any optimizer.

        Where only channels were removed it holds nothing.

            result.model.fit(images, labels, callbacks=[result.masks_callback()])
        """
        return MaskedKernels(self.masks)


@progress.takes_verbose
def prune(
    model: keras.Model,
    train_data: Any,
    method: Method | PruningPlan,
    *,
    validation_data: Any = None,
    objective: Objective | str | Loss | Mapping | Sequence | None = None,
    loss_weights: Mapping[str, float] | Sequence[float] | None = None,
    class_weight: Mapping | str | None = None,
    outputs_kind: str | Mapping[str, str] | None = None,
    auxiliary: TrainConfig = AUXILIARY,
    finetuning: TrainConfig | None = FINETUNING,
    distillation: float | None = None,
    state_dir: str | os.PathLike | None = None,
    resume: bool = False,
    shared_dir: str | os.PathLike | None = None,
    log_dir: str | None = None,
    looks_at_baseline: bool = True,
    seed: int = 0,
    verbose: int | str = 1,
    callbacks: Any = None,
    metrics: Any = (),
) -> PruneResult:
    """Finds channels without discriminative power, removes them and fine-tunes what is left.

        result = dcp_tf.prune(model, (images, labels), dcp_tf.DCP(rate=0.5), finetuning=None)
        result.model.fit(images, labels, epochs=5)  # compiled as `model` is

    (With `WidthMultiplier` there is no choice: all weights of the smaller model are reinitialized.)

    Args:
        model: trained, functional or Sequential; inputs and outputs nested as you like. It stays as it is.
        train_data: what `fit` takes, nested arrays as (inputs, labels) or (inputs, labels, sample_weight), a
            `tf.data.Dataset` of such batches or a `keras.utils.PyDataset`; or a `dcp_tf.data.DataSplit`. Where labels
            are left out, the model's own predictions are the targets.
        method: which channels, such as `dcp_tf.DCP(rate=0.5)`; or a plan, which is applied in place of a choice.
        validation_data: of the same kinds, for what is measured after each epoch.
        objective: what the model is for: an `Objective`, one of `dcp_tf.training.LOSSES` by name, or a loss (labels,
            outputs) -> mean, or one value per sample. For several outputs a dict of these by name or a list; those left
            out stay as they are. None takes the losses, loss weights and metrics that the model is compiled with, or
            else reads the objective off the last activations and the labels.
        loss_weights: of several outputs, by name or in their order; None: the compiled ones, or 1.
        class_weight: as of `fit`, {class number: weight}, or "balanced" for weights in reverse to how often a class
            occurs; by name of several outputs. It counts in the selection too.
        outputs_kind: "logits", "softmax" or "sigmoid", of several outputs by name; None reads it off the model's last
            activation.
        auxiliary: fine-tuning with auxiliary losses (DCP only).
        finetuning: of the pruned model; None or 0 epochs leave it out, for a `fit` of your own. It ends with the epoch
            that does best on held-out training images, or with the model as it was before. The optimizer is the one
            that the model was compiled with, else SGD, unless `TrainConfig(optimizer=...)` says otherwise.
        distillation: weight of the baseline's soft predictions in the fine-tuning, 0 to 1; None: a half, where the loss
            has a distance to them.
        state_dir: folder in which the run keeps what it has done.
        resume: whether the run resumes from what lies in `state_dir`.
        shared_dir: folder in which the model is kept that the auxiliary losses fine-tuned. Runs that begin with the
            same model, images, labels and settings of that phase share it, whatever they prune then.
        log_dir: folder for TensorBoard scalars.
        looks_at_baseline: measure the model first, and warn where it is no better than chance on this data.
        seed: of everything that is drawn.
        verbose: 0 prints nothing.
        callbacks: of Keras, for the fine-tuning, or {"auxiliary": [...], "finetuning": [...]}. Logs call what is
            measured on held-out training images `val_loss`, `val_accuracy` and so on.
        metrics: of Keras, also measured on these after each epoch of the fine-tuning; by the names of outputs where
            there are several.

    Returns:
        The smaller model, its plan and how it came about. The model is compiled where the original was, with a fresh
        optimizer of the same settings, the same losses and metrics.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
        RunError: a loss became NaN, or a file could not be written.
    """
    context = prepare(
        model,
        train_data,
        method,
        validation_data=validation_data,
        objective=objective,
        loss_weights=loss_weights,
        class_weight=class_weight,
        outputs_kind=outputs_kind,
        auxiliary=auxiliary,
        finetuning=finetuning,
        distillation=distillation,
        state_dir=state_dir,
        resume=resume,
        shared_dir=shared_dir,
        log_dir=log_dir,
        seed=seed,
        callbacks=callbacks,
        metrics=metrics,
    )
    return prune_prepared(context, looks_at_baseline)


def prune_prepared(context: Context, looks_at_baseline: bool = True) -> PruneResult:
    """`prune` with arguments that `prepare` resolved.

    Args:
        context: of the run.
        looks_at_baseline: as for `prune`.

    Raises:
        UsageError: scores of a criterion do not fit the groups.
        RunError: a loss became NaN, or a file could not be written.
    """
    announce(context, looks_at_baseline)
    context = with_views(context)
    selected, baseline, plan = select(context)
    small, masks = rebuild_selected(context, selected, baseline, plan)
    before = announce_cut(context, small.trace.model)
    fine_tune(context, small, masks)
    original = context.original
    smaller = compiled_like(with_signature_of(small.trace.model, original), original)
    return PruneResult(smaller, plan, context.history, before, masks or {}, rotated=context.rotated)


def select(context: Context) -> tuple[ChannelGraph, ChannelGraph, PruningPlan]:
    """Allocates widths to the groups and chooses what stays.

    Returns:
        The graph of the model that is cut, whose remaining weights may be fitted and whose removed kernels are zero;
        the graph of the baseline whose outputs were reconstructed; and the plan.

    Raises:
        RunError: nothing would be removed.
    """
    graph, method = context.graph, context.method
    if isinstance(method, GivenPlan):
        return method.plan.with_zero_kernels(graph), graph, method.plan
    if method.offers_blocks and method.allocates != "global":  # (a target may have come after `prepare`)
        name = "prune_blocks" if method.prune_blocks else "search_scope"
        raise UsageError(
            f"blocks compete with channels: {name} needs a target, or allocation='global'", (name, "allocation")
        )
    # The scores count to the phase that asks for them first.
    scores = functools.cache(lambda: _scores(context))
    if method.allocates == "global":
        with context.phase("allocation") as entry:
            widths = global_widths(context, scores(), entry)
            left = tuple(group for group in context.groups if group.name in widths)
            context = dataclasses.replace(context, widths=widths, groups=left)
    if method.guided:
        selected, baseline, groups, kernels = select_channels(context, scores())
    else:
        selected, baseline, kernels = graph, graph, []
        with context.phase("selection"):
            best = {g.name: np.argsort(-scores()[g.name], kind="stable") for g in context.groups}
            kept = {g.name: g.best(best[g.name], context.widths[g.name]).tolist() for g in context.groups}
            groups = [GroupPlan(g.name, g.size, tuple(kept[g.name]), g.consumers) for g in context.groups]
    in_heads = graph.in_kept_heads({group.name: group.kept for group in groups})
    groups = [dataclasses.replace(group, kept=in_heads[group.name]) for group in groups]
    groups += [GroupPlan(block.name, 1, ()) for block in context.removed]
    plan = PruningPlan(graph.fingerprint(), tuple(groups), method.name, method.settings(), tuple(kernels))
    if all(len(p.kept) == p.size for p in plan.groups) and all(p.matrix().all() for p in plan.kernels):
        raise RunError("the selection found everything necessary; raise the rate or epsilon")
    return selected, baseline, plan


def _scores(context: Context) -> Scores | None:
    """The scores of the method's criterion, if it has one; raises UsageError where there is not one per channel."""
    scores = context.method.score_channels(context, context.groups)
    for group in [] if scores is None else context.groups:
        shape = np.shape(scores.get(group.name, ()))
        if shape != (group.size,):
            raise UsageError(
                f"{context.method.name} must score each of the {group.size} channels of {group.name!r}, "
                f"its scores have the shape {shape}"
            )
    return scores and {name: np.asarray(values) for name, values in scores.items()}


def rebuild_selected(
    context: Context, selected: ChannelGraph, baseline: ChannelGraph, plan: PruningPlan
) -> tuple[ChannelGraph, Mapping[int, np.ndarray] | None]:
    """Surgery, and what all weights need after it.

    Args:
        context: of the run.
        selected: of the model that is cut.
        baseline: of the model whose outputs the smaller one shall have.
        plan: what stays.

    Returns:
        The graph of the smaller model, and the masks that hold its removed kernels at zero, if any.
    """
    method = context.method
    small = ChannelGraph(rebuild(selected, plan.kept(selected)), context.shapes)
    masks = plan.kernel_masks(selected, small) if plan.kernels else None
    if method.from_scratch:
        reinitialize_weights(small, context.seed)
    if method.guided:
        recover_weights(context, baseline, small, plan.kept(baseline), masks)
    return small, masks


def fine_tune(context: Context, small: ChannelGraph, masks: Mapping[int, np.ndarray] | None) -> None:
    """Trains the smaller model, with the baseline as a teacher where the settings say so."""
    method, objective, config = context.method, context.objective, context.finetuning
    if not config.epochs:
        return
    losses, weights = [objective.loss], None
    if method.from_scratch and method.uses_heads:
        augmented = with_heads(context, small)
        trained, losses, weights = augmented.model, augmented.losses(objective), augmented.loss_weights()
    else:
        trained = objective.with_loss_head(small.trace.model, None if method.from_scratch else context.data)
    teacher = context.labels_from_model()
    if context.distillation:
        losses[-1] = Distillation(objective.loss, context.distillation)
        teacher = objective.targets(context.teacher or context.model, context.data)
    with context.phase("fine-tuning") as entry:
        history = fit(
            trained,
            context.data,
            losses,
            config,
            loss_weights=weights,
            validation=lambda: context.validate(small.trace.model),
            masks=masks,
            teacher=teacher,
            checkpoint=context.state.training("finetuning"),
            phase="fine-tuning",
            log_dir=context.log_dir,
            keep_best=True,
            seen=context.method.selection_samples if context.method.guided else 0,
            lr_setting="finetuning.learning_rate",
            callbacks=context.callbacks.get("finetuning", ()),
            metrics=context.metrics,
        )
    entry.update(history.phase("fine-tuning", entry["seconds"], distillation=context.distillation))
    if line := finetuning_advice(history, config, objective, context.model, context.data):
        progress.say(line, ADVISED)
        entry["advice"] = progress.with_names(line, ADVISED)
