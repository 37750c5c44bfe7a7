"""`prune`: from a trained model to a smaller one (Liu et al. 2021, Algorithm 1)."""

import dataclasses
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.data import as_split
from dcp_tf.errors import RunError, UsageError
from dcp_tf.evaluation import accuracy
from dcp_tf.graph import ChannelGraph, ChannelGroup, rebuild
from dcp_tf.models import check_functional
from dcp_tf.models import outputs_kind as read_outputs_kind
from dcp_tf.pruning.budget import Widths, matching
from dcp_tf.pruning.criteria import CRITERIA, Evidence, Scores, largest
from dcp_tf.pruning.discrimination import Task, select_channels
from dcp_tf.pruning.methods import Method
from dcp_tf.pruning.plan import GroupPlan, PruningPlan
from dcp_tf.pruning.run_state import RunState
from dcp_tf.pruning.stopping import FixedRate
from dcp_tf.training import Distillation, TrainConfig, classification_loss, fit, soft_targets
from dcp_tf.training.heads import find_positions

AUXILIARY = TrainConfig(epochs=3, learning_rate=0.01)
FINETUNING = TrainConfig(epochs=10, learning_rate=0.01)


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


def prune(
    model: keras.Model,
    train_data: Any,
    method: Method,
    *,
    validation_data: Any = None,
    outputs_kind: str | None = None,
    auxiliary: TrainConfig = AUXILIARY,
    finetuning: TrainConfig = FINETUNING,
    distillation: float = 0.0,
    state_dir: str | os.PathLike | None = None,
    resume: bool = False,
    shared_dir: str | os.PathLike | None = None,
    log_dir: str | None = None,
    seed: int = 0,
) -> PruneResult:
    """Finds channels without discriminative power, removes them and fine-tunes what is left.

    Args:
        model: trained, functional or Sequential, with one output of shape (batch, classes). It stays as it is.
        train_data: a `dcp_tf.data.Split`, a `tf.data.Dataset` of (image, label) batches, or arrays (images, labels).
            Where labels are left out, the model's own predictions are the targets.
        method: which channels, such as `dcp_tf.DCP(rate=0.5)`.
        validation_data: of the same kinds, for the accuracy after each epoch.
        outputs_kind: "logits", "softmax" or "sigmoid"; None reads it off the model's last activation.
        auxiliary: fine-tuning with auxiliary losses (DCP only).
        finetuning: of the pruned model; 0 epochs leave it out.
        distillation: weight of the baseline's soft predictions in the fine-tuning, 0 to 1.
        state_dir: folder in which the run keeps what it has done.
        resume: go on with what lies in `state_dir`.
        shared_dir: folder in which the model is kept that the auxiliary losses fine-tuned. Runs that begin with the
            same model, images, labels and settings of that phase share it, whatever they prune then.
        log_dir: folder for TensorBoard scalars.
        seed: of everything that is drawn.

    Returns:
        The smaller model, its plan and how it came about.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
        RunError: a loss became NaN, or a file could not be written.
    """
    train, validation = as_split(train_data), None if validation_data is None else as_split(validation_data)
    kind = outputs_kind or read_outputs_kind(check_functional(model))
    graph, widths = check(model, train, method, kind, distillation)
    settings = _settings(graph, train, method, kind, auxiliary, finetuning, distillation, seed)
    state = RunState(state_dir, settings, resume, shared_dir)
    phases: list[dict[str, Any]] = []
    started = time.perf_counter()
    ranking = _rank(Evidence(graph, train, kind, method, seed), widths)
    if method.guided:
        task = Task(train, kind, dataclasses.replace(auxiliary, seed=seed), seed, log_dir)
        selected, plans = select_channels(model, widths, method, task, state, phases, ranking)
    else:
        selected, plans = graph, _keep_best(graph, widths, ranking)
        phases.append({"name": "selection", "seconds": time.perf_counter() - started})
    plan = PruningPlan(graph.fingerprint(), tuple(plans), method.name, dataclasses.asdict(method))
    if all(len(p.kept) == p.size for p in plan.groups):
        raise RunError("the selection found every channel necessary; raise the rate or epsilon")
    small = rebuild(selected, plan.kept(selected))

    def validate() -> Mapping[str, float]:
        return {} if validation is None else accuracy(small, validation.batches(256), outputs_kind=kind)

    before = validate()
    if before:
        progress.say(f"after surgery, before fine-tuning: top1 {before['top1']:.4f}")
    _fine_tune(small, model, train, kind, finetuning, distillation, state, phases, validate, log_dir, seed)
    return PruneResult(small, plan, phases, before)


def check(
    model: keras.Model, data: Any, method: Method, outputs_kind: str, distillation: float = 0.0
) -> tuple[ChannelGraph, dict[str, int]]:
    """Everything that can be wrong with the arguments of `prune`, found in moments and before anything is written.

    Returns:
        The model's graph, and for each group that will be pruned (by name) how many channels it keeps at most.

    Raises:
        UsageError: the model, the data or the settings cannot be used.
    """
    check_task(check_functional(model), data, outputs_kind)
    graph = ChannelGraph(model, [(None, *data.shape)], method.ignore_statistics)
    groups = choose_groups(graph, method)
    method.check(graph, groups)
    if method.guided and method.discrimination:
        find_positions(graph, method.auxiliary_losses, method.auxiliary_layers)
    widths = choose_widths(graph, groups, method)
    if all(widths[g.name] == g.size for g in groups) and isinstance(method.stopping(method.rate), FixedRate):
        raise UsageError(
            f"nothing would be removed at rate {method.rate} with round_to {method.round_to}; "
            "raise the rate or lower round_to"
        )
    Distillation(classification_loss(outputs_kind), distillation)
    return graph, widths


def check_task(model: keras.Model, data: Any, outputs_kind: str) -> None:
    """Raises UsageError unless the model is a classifier of such images and labels."""
    if len(model.inputs) != 1:
        raise UsageError(f"pruning with data needs a model with one input, {model.name!r} has {len(model.inputs)}")
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        shapes = [tuple(x.shape) for x in model.outputs]
        raise UsageError(f"pruning with data needs one output of shape (batch, classes), {model.name!r} has {shapes}")
    expected = tuple(model.inputs[0].shape[1:])
    if len(expected) != len(data.shape) or any(e not in (None, s) for e, s in zip(expected, data.shape, strict=True)):
        raise UsageError(f"the model takes images of shape {expected}, the data has {tuple(data.shape)}")
    outputs = model.outputs[0].shape[-1]
    if data.labels is not None and outputs_kind != "sigmoid":
        largest_label = int(np.max(data.labels))
        if largest_label >= max(2, outputs):
            raise UsageError(f"the data has the label {largest_label}, but the model has {outputs} outputs")


def choose_groups(graph: ChannelGraph, method: Method) -> list[ChannelGroup]:
    """The groups that the method may prune.

    Raises:
        UsageError: there is none, or an excluded name does not exist.
    """
    excluded = {g.name for pattern in method.exclude for g in matching(graph.groups, pattern)}
    groups = [g for g in graph.prunable(method.prune_residual) if g.name not in excluded]
    if groups:
        return groups
    reasons = {g.pinned_because for g in graph.groups if g.pinned_because}
    residual = "" if method.prune_residual or not graph.prunable(True) else "; residual streams need --prune_residual"
    raise UsageError(f"the model has no group of channels to prune ({'; '.join(sorted(reasons)[:3])}{residual})")


def choose_widths(graph: ChannelGraph, groups: Sequence[ChannelGroup], method: Method) -> dict[str, int]:
    """How many channels each group keeps (at most, for methods that find widths themselves).

    Raises:
        UsageError: a pattern of `rates` matches nothing, or the target cannot be reached.
    """
    rates: dict[str, float] = {}
    for pattern, rate in method.rates:
        for group in matching(groups, pattern):
            rates.setdefault(group.name, rate)
    widths = Widths(graph, groups, method.round_to, method.min_channels, rates)
    return widths.at_rate(method.rate) if method.target is None else widths.within(method.target)


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


def _fine_tune(
    small, baseline, train, kind, config, distillation, state: RunState, phases, validate, log_dir, seed
) -> None:
    started = time.perf_counter()
    loss, teacher = classification_loss(kind), None
    if distillation or train.labels is None:
        teacher = soft_targets(baseline, kind)
    if distillation:
        loss = Distillation(loss, distillation)
    history = fit(
        small,
        train,
        [loss],
        dataclasses.replace(config, seed=seed),
        validation=validate,
        teacher=teacher,
        checkpoint=state.training("finetuning"),
        phase="fine-tuning",
        log_dir=log_dir,
        lower="--finetune_lr",
    )
    if history:
        phases.append({"name": "fine-tuning", "seconds": time.perf_counter() - started, "history": list(history)})


def _settings(graph, train, method, kind, auxiliary, finetuning, distillation, seed) -> dict[str, Any]:
    return {
        "fingerprint": graph.fingerprint(),
        "weights": _digest(graph.trace.model),
        "images": train.size,
        "method": method.name,
        **dataclasses.asdict(method),
        "outputs": kind,
        "auxiliary": dataclasses.asdict(auxiliary),
        "finetuning": dataclasses.asdict(finetuning),
        "distillation": distillation,
        "seed": seed,
    }


def _digest(model: keras.Model) -> int:
    """A number that tells equal models with other weights apart: a run goes on with the model it began with."""
    return zlib.crc32(b"".join(keras.ops.convert_to_numpy(w).tobytes() for w in model.weights))
