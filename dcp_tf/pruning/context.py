"""What one pruning run works with: model, data and settings, checked and resolved once."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from dcp_tf import progress
from dcp_tf.data import DataSplit, digest, images_per_measurement, with_class_weight
from dcp_tf.errors import UsageError
from dcp_tf.field_types import whole_number
from dcp_tf.files import folder_path
from dcp_tf.graph import ChannelGraph, ChannelGroup, check_layers
from dcp_tf.graph.blocks import ResidualBlock
from dcp_tf.graph.rotation import is_rotated, rotated
from dcp_tf.models.time_distributed import note_of_wrapped_models
from dcp_tf.models.weights_digest import weights_digest
from dcp_tf.pruning.arguments import bound_data, check_arguments, check_validation, usable_model
from dcp_tf.pruning.budget import Widths, fit_measured_budget, kernel_rate, matching, pricing
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import PruningPlan
from dcp_tf.pruning.problem.stages import kernel_units
from dcp_tf.pruning.run_state import RunState
from dcp_tf.settings.budget import Adaptive
from dcp_tf.settings.training import AUXILIARY, FINETUNING, TrainConfig
from dcp_tf.training import Distillation, Objective, as_objective, distillation_weight
from dcp_tf.training.callbacks import callbacks_by_phase
from dcp_tf.training.compiled import resolve_objective
from dcp_tf.training.heads import find_positions
from dcp_tf.training.optimizer import with_compiled_optimizer
from dcp_tf.training.trial import try_metrics


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a run works with; `prepare` makes it, `rebind` fits it to another run of the model.

    Attributes:
        graph: of the trained model.
        method: with its settings; of kernels it removes the share that its target asks for.
        groups: those that may lose channels.
        widths: how many channels each of them keeps (at most, for methods that find widths themselves), by name.
        kernel_layers: paths of the layers that lose kernels.
        data: the training images.
        validation: what is measured on, or None.
        objective: bound to the model and the data.
        auxiliary: how auxiliary losses are trained.
        finetuning: how the smaller model is trained.
        distillation: weight of the baseline's predictions in that training.
        seed: of everything that is drawn.
        original: the model as the user gave it, such as compiled.
        state: where the run keeps what is done.
        log_dir: folder for TensorBoard scalars.
        callbacks: of Keras, for the trainings called "auxiliary" and "finetuning".
        metrics: of Keras, for the fine-tuning; by the names of outputs where there are several.
        history: one entry per finished phase: `name`, `seconds`, and what else it tells.
        teacher: whose answers the fine-tuning learns from; None: the trained model's.
        selection_data: what kernels are fitted on, where it is not `data`: several views of few images.
        class_weight: as given; the data have it as sample weights.
    """

    graph: ChannelGraph
    method: Any
    groups: tuple[ChannelGroup, ...]
    widths: Mapping[str, int]
    kernel_layers: tuple[str, ...]
    data: DataSplit
    validation: DataSplit | None
    objective: Objective
    auxiliary: TrainConfig
    finetuning: TrainConfig
    distillation: float
    seed: int
    original: keras.Model
    state: RunState = dataclasses.field(default_factory=lambda: RunState(None, {}, False))
    log_dir: str | None = None
    callbacks: Mapping[str, list] = dataclasses.field(default_factory=dict)
    metrics: Any = ()
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    selection_data: DataSplit | None = None
    class_weight: Any = None
    teacher: keras.Model | None = None

    @property
    def model(self) -> keras.Model:
        """The trained model."""
        return self.graph.trace.model

    @property
    def rotated(self) -> keras.Model | None:
        """The trained model, if its streams were rotated for this run."""
        return self.model if is_rotated(self.model) and not is_rotated(self.original) else None

    @property
    def shapes(self) -> list[tuple]:
        """The shape of a batch of each input, as `ChannelGraph` takes it."""
        return [(None, *shape) for shape in self.data.shapes]

    @property
    def removed(self) -> tuple[ResidualBlock, ...]:
        """The residual blocks that go as a whole."""
        return tuple(block for block in self.graph.blocks if self.widths.get(block.name) == 0)

    def labels_from_model(self) -> Callable | None:
        """From inputs to what the trained model answers, where the data lacks labels of an output; else None."""
        return self.objective.targets(self.model, self.data) if self.objective.lacks_labels(self.data) else None

    def validate(self, model: keras.Model) -> Mapping[str, float]:
        """How good a model is on the validation images; empty without any."""
        if self.validation is None:
            return {}
        return self.objective.evaluate(model, self.validation.batches(images_per_measurement(self.validation.shape)))

    def rebind(
        self,
        method: Method | PruningPlan | None = None,
        train_data: Any = None,
        *,
        state_dir: str | os.PathLike | None = None,
        resume: bool = False,
        shared_dir: str | os.PathLike | None = None,
        log_dir: str | None = None,
        seed: int | None = None,
    ) -> "Context":
        """The context of another run of the same model; only what depends on the changes is resolved again.

        Args:
            method: another method; None: the same.
            train_data: other training images; None: the same.
            state_dir: as for `prune`, and so are the others, which belong to one run.
            resume: whether the run resumes.
            shared_dir: folder of trainings that several runs begin with.
            log_dir: folder for TensorBoard scalars.
            seed: another seed; None: the same.

        Raises:
            UsageError: the model, the data and the method do not fit each other, or the run cannot be resumed.
        """
        changes: dict[str, Any] = {"log_dir": log_dir, "history": [], "seed": self.seed if seed is None else seed}
        for phase in ("auxiliary", "finetuning"):
            changes[phase] = dataclasses.replace(getattr(self, phase), seed=changes["seed"])
        if train_data is not None and train_data is not self.data:
            data = with_class_weight(bound_data(self.original, train_data), self.class_weight)
            objective = changes["objective"] = as_objective(self.objective, self.model, data)
            changes["data"] = objective.training_data(data)
        if method is not None and (method := _as_method(method)) != self.method:
            graph = self.graph
            if method.rotate_streams and not is_rotated(self.model):
                raise UsageError("either all methods of one run rotate streams, or none does", "rotate_streams")
            if method.ignore_statistics != graph.ignore_statistics:
                graph = ChannelGraph(self.model, self.shapes, method.ignore_statistics)
            changes |= {"graph": graph, **_scope(graph, method, changes.get("objective", self.objective))}
        context = dataclasses.replace(self, **changes)
        settings = {} if state_dir is None else context.settings()
        return dataclasses.replace(context, state=RunState(state_dir, settings, resume, shared_dir))

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, by name."""
        return {
            "fingerprint": self.graph.fingerprint(),
            "weights": weights_digest(self.model),
            "trainable": len(self.model.trainable_variables),
            "images": self.data.size,
            "data": digest(self.data),
            "method": self.method.name,
            **self.method.settings(),
            "objective": repr(self.objective),
            "auxiliary": dataclasses.asdict(self.auxiliary),
            "finetuning": dataclasses.asdict(self.finetuning),
            "distillation": self.distillation,
            "seed": self.seed,
        }

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a phase and adds it to the history at its end; the block may add to the entry."""
        entry, started = {"name": name, "seconds": 0.0}, time.perf_counter()
        yield entry
        entry["seconds"] = time.perf_counter() - started
        self.history.append(entry)


def prepare(
    model: keras.Model,
    train_data: Any,
    method: Method | PruningPlan,
    *,
    validation_data: Any = None,
    objective: Any = None,
    loss_weights: Any = None,
    class_weight: Any = None,
    outputs_kind: Any = None,
    auxiliary: TrainConfig = AUXILIARY,
    finetuning: TrainConfig | None = FINETUNING,
    distillation: float | None = None,
    state_dir: str | os.PathLike | None = None,
    resume: bool = False,
    shared_dir: str | os.PathLike | None = None,
    log_dir: str | None = None,
    seed: int = 0,
    callbacks: Any = None,
    metrics: Any = (),
) -> Context:
    """Finds in moments all that can be wrong with the arguments of `prune`, and resolves them; they are the same.

    Without `state_dir` nothing is written.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
    """
    method = _as_method(method)
    finetuning = TrainConfig(epochs=0) if finetuning is None else finetuning
    check_arguments(method, auxiliary, finetuning, distillation)
    seed = whole_number(seed, "seed")
    state_dir, shared_dir, log_dir = (
        folder_path(path, name)
        for path, name in ((state_dir, "state_dir"), (shared_dir, "shared_dir"), (log_dir, "log_dir"))
    )
    if not isinstance(resume, bool) or (resume and state_dir is None):
        raise UsageError(f"resume is True or False, and True needs a state_dir; received {resume!r:.80}", "resume")
    data = with_class_weight(bound_data(model, train_data), class_weight)
    validation = None if validation_data is None else bound_data(model, validation_data, "validation_data")
    original, model = model, usable_model(model)
    objective = resolve_objective(objective, original, model, data, outputs_kind, loss_weights)
    data = objective.training_data(data)
    if validation is not None:
        check_validation(model, validation, objective)
    metrics = try_metrics(metrics, objective, model, data)
    distillation = distillation_weight(objective.loss, distillation)
    Distillation(objective.loss, distillation)
    if method.rotate_streams and not is_rotated(model):
        model, lines = rotated(model, data)
        for line in lines:
            progress.say(line)
    graph = ChannelGraph(model, [(None, *shape) for shape in data.shapes], method.ignore_statistics)
    check_layers(graph)
    if finetuning.epochs:
        finetuning = with_compiled_optimizer(finetuning, original, "fine-tuning")
    if auxiliary.epochs and method.trains_whole:
        auxiliary = with_compiled_optimizer(auxiliary, original, "auxiliary fine-tuning")
    context = Context(
        graph=graph,
        **_scope(graph, method, objective),
        data=data,
        validation=validation,
        objective=objective,
        auxiliary=auxiliary,
        finetuning=finetuning,
        callbacks=callbacks_by_phase(callbacks),
        metrics=metrics,
        distillation=distillation,
        seed=seed,
        original=original,
        class_weight=class_weight,
    )
    return context.rebind(state_dir=state_dir, resume=resume, shared_dir=shared_dir, log_dir=log_dir)


def _as_method(method: Method | PruningPlan) -> Method:
    return GivenPlan.of(method) if isinstance(method, PruningPlan) else method


def _scope(graph: ChannelGraph, method: Method, objective: Objective) -> dict[str, Any]:
    """The fields of `Context` that follow from the method: itself, its groups, their widths, its layers of kernels.

    Raises:
        UsageError: the method does not suit the model, or would remove nothing.
    """
    layers = [unit.name for unit in kernel_units(graph)] if method.chooses_kernels else []
    groups = choose_groups(graph, method, layers)
    method.check(graph, groups)
    method.check_blocks(graph)
    if method.uses_heads:
        find_positions(graph, method.auxiliary_losses, objective, method.auxiliary_layers)
    widths = choose_widths(graph, groups, method)
    layers = [name for name in layers if not method.excludes(name)]
    if method.chooses_kernels:
        if not layers:
            raise UsageError("the model has no layer whose kernels could be pruned but those that are excluded")
        if method.target is not None:
            kept = graph.at_widths(widths)
            method = method.with_kernel_rate(kernel_rate(graph, kept, layers, method.target))
    elif all(widths[g.name] == g.size for g in groups) and not isinstance(method, Adaptive):
        raise UsageError(
            f"nothing would be removed at rate {method.rate} with round_to {method.round_to}; "
            "raise the rate or lower round_to"
        )
    return {"method": method, "groups": tuple(groups), "widths": widths, "kernel_layers": tuple(layers)}


def choose_groups(graph: ChannelGraph, method: Method, layers: Sequence[str] = ()) -> list[ChannelGroup]:
    """The groups that the method may prune.

    Args:
        graph: of the model.
        method: with its settings.
        layers: paths of the layers whose kernels could go, which `exclude` may name too.

    Raises:
        UsageError: there is none, or an excluded name does not exist.
    """
    if isinstance(method, GivenPlan):
        return list(method.groups(graph))
    for pattern in method.exclude:
        matching(graph.groups, pattern, layers)
    groups = [g for g in graph.prunable(method.offers_streams) if not method.excludes(g.name)]
    if groups or not method.chooses_channels:
        return groups
    reasons = {g.pinned_because for g in graph.groups if g.pinned_because}
    others = {g.name for g in graph.prunable(False)}
    streams = [g for g in graph.prunable(True) if g.name not in others]
    kinds = {"recurrent units" if g.recurrent else "residual streams" for g in streams}
    residual = "" if method.offers_streams or not kinds else f"; {' and '.join(sorted(kinds))} need prune_residual=True"
    if graph.prunable(method.offers_streams):
        excluded = f"exclude={', '.join(method.exclude)} leaves no group of channels to prune{residual}"
        raise UsageError(excluded, ["exclude", *(["prune_residual"] if residual else [])])
    wrapped = note_of_wrapped_models(graph.trace.model)
    raise UsageError(
        f"the model has no group of channels to prune ({wrapped or '; '.join(sorted(reasons)[:3])}{residual})",
        "prune_residual" if residual else (),
    )


def choose_widths(graph: ChannelGraph, groups: Sequence[ChannelGroup], method: Method) -> dict[str, int]:
    """How many channels each group keeps (at most, for methods that find widths themselves).

    Raises:
        UsageError: a pattern of `rates` matches nothing, or the target cannot be reached.
    """
    if isinstance(method, GivenPlan):
        return method.widths(graph)
    if not method.chooses_channels:
        return {group.name: group.size for group in groups}
    widths = Widths(graph, groups, method.round_to, method.min_channels, own_rates(groups, method))
    if method.target is None or method.chooses_kernels:
        return widths.at_rate(method.rate)
    if method.allocates == "global":  # where only what it ends in is measured
        try:
            return widths.within(dataclasses.replace(method.target, measured=None))
        except UsageError:
            narrowest, cost = widths.at_rate(1.0), pricing(method.target, graph)
            without = {**narrowest, **{block.name: 0 for block in graph.blocks}}
            if not method.offers_blocks or cost(without) > method.target.limit(cost({})):
                raise
            return narrowest
    return fit_measured_budget(method.target, widths.within)


def own_rates(groups: Sequence[ChannelGroup], method: Method) -> dict[str, float]:
    """The rates of single groups, by name; the first pattern that matches counts."""
    rates: dict[str, float] = {}
    for pattern, rate in method.rates:
        for group in matching(groups, pattern):
            rates.setdefault(group.name, rate)
    return rates
