"""The objective that a model is compiled with: its losses, loss weights and metrics, as they stand."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import tree

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.models.compiled_like import compile_arguments
from dcp_tf.models.signature import output_names
from dcp_tf.training.choose_joint import as_objective, checked_weights
from dcp_tf.training.joint_objective import Joint, data_of, of_output
from dcp_tf.training.keras_metrics import KerasMetrics, with_metrics
from dcp_tf.training.keras_objectives import objective_of_loss
from dcp_tf.training.objectives import Objective
from dcp_tf.training.trial import try_losses


def resolve_objective(
    objective: Any,
    compiled: keras.Model,
    model: keras.Model,
    data: Any,
    outputs_kind: Any = None,
    loss_weights: Any = None,
) -> Objective:
    """The objective argument of `prune`, fitted to the model and its data; for None what the model is compiled with.

    Args:
        objective: as for `as_objective`.
        compiled: the model as its user has it.
        model: the same with flat inputs and outputs.
        data: bound to the model.
        outputs_kind: as for `as_objective`; given, nothing is taken from `compile`.
        loss_weights: as for `as_objective`.

    Raises:
        UsageError: these do not fit each other.
    """
    taken = None
    if objective is None and outputs_kind is None:
        taken = compiled_objective(compiled, model, data, loss_weights)
    objective = taken or as_objective(objective, model, data, outputs_kind, loss_weights)
    try_losses(objective, model, objective.training_data(data))
    return objective


def compiled_objective(
    compiled: keras.Model,
    model: keras.Model,
    data: Any,
    loss_weights: Any = None,
    what: str = "the data",
    say: Callable[[str], Any] = progress.say,
) -> Objective | None:
    """The objective of a model that is compiled with a loss, fitted to the model and its data; it is logged in a line.

    Outputs whose loss is None stay as the model's own, and so do those without labels.

    Args:
        compiled: the model as a user compiled it.
        model: the same with flat inputs and outputs.
        data: bound to the model.
        loss_weights: those that replace the compiled ones.
        what: the name of the data in errors.
        say: gets the line.

    Returns:
        None for a model that is not compiled with a loss, or that computes a loss of its own.

    Raises:
        UsageError: losses and outputs, or losses and data, do not fit each other.
    """
    arguments = compile_arguments(compiled)
    if arguments.get("loss") is None or _computes_its_own(compiled):
        return None
    names = output_names(model)
    losses = by_output(arguments["loss"], compiled, "loss")
    if all(loss is None for loss in losses):
        return None
    metrics = _metrics(arguments, compiled)
    if len(names) == 1:
        checked_weights(loss_weights, names)
        objective, told = objective_of_loss(losses[0], model, data, what)
        weight = by_output(arguments.get("loss_weights"), compiled, "loss_weights")[0]
        unused = "" if weight in (None, 1) else f" (not its weight {weight:g}: it is the only loss)"
        say(f"loss taken from model.compile: {told}{unused}")
        return with_metrics(objective, metrics[0])
    weights = by_output(arguments.get("loss_weights"), compiled, "loss_weights")
    given = dict(zip(names, (1.0 if weight is None else weight for weight in weights), strict=True))
    weights = checked_weights(given if loss_weights is None else loss_weights, names)
    imitated = tuple(name for name, loss in zip(names, losses, strict=True) if loss is None)
    parts, taken = [], []
    for number, (name, loss) in enumerate(zip(names, losses, strict=True)):
        own_data, own_model = data_of(data, name, loss is None), of_output(model, number)
        objective, told = objective_of_loss(loss, own_model, own_data, f"{what} (output {name!r})")
        parts.append((name, with_metrics(objective, metrics[number]), weights[name]))
        taken.append(f"{name} {told} x{weights[name]:g}")
    say(f"loss taken from model.compile: {', '.join(taken)}")
    return Joint(tuple(parts), imitated)


def _metrics(arguments: Mapping[str, Any], model: keras.Model) -> list[KerasMetrics]:
    """The compiled metrics of each output."""
    both = []
    for argument in ("metrics", "weighted_metrics"):
        given = arguments.get(argument) or []
        if len(model.outputs) == 1:
            both.append([tree.flatten(given)])
        else:
            own = by_output(given, model, argument) if given else [[]] * len(model.outputs)
            both.append([tree.flatten(metrics) for metrics in own])
    return [KerasMetrics(*([m for m in own if m is not None] for own in pair)) for pair in zip(*both, strict=True)]


def by_output(given: Any, model: keras.Model, argument: str) -> list[Any]:
    """What `compile` was given for each output, in the order of `model.outputs`.

    Args:
        given: one thing for all, or a list in the order of the outputs, a dict by their names, or nested as they are.
        model: whose outputs these are.
        argument: the name for errors.

    Raises:
        UsageError: it does not fit the outputs.
    """
    count = len(model.outputs)
    if not isinstance(given, Mapping | list | tuple):
        return [given] * count
    names, layers = output_names(model), getattr(model, "output_names", [])
    keys = [{name, layer} for name, layer in zip(names, layers or names, strict=True)]
    if isinstance(given, Mapping) and all(any(key in own for own in keys) for key in given):
        return [next((given[key] for key in own if key in given), None) for own in keys]
    paths = [path for path, _ in tree.flatten_with_path(getattr(model, "_outputs_struct", model.outputs))]
    is_flat = all(len(path) < 2 for path in paths) or not any(map(tree.is_nested, given))
    if isinstance(given, list | tuple) and len(given) == count and is_flat:
        return list(given)
    try:
        return [_at(given, path, argument) for path in paths]
    except (KeyError, IndexError, TypeError):
        raise UsageError(
            f"the {argument} that {model.name!r} is compiled with does not fit its outputs, {', '.join(names)}; give "
            "objective by their names"
        ) from None


def _at(given: Any, path: tuple, argument: str) -> Any:
    for key in path:
        if not isinstance(given, Mapping | list | tuple):
            break
        given = given[key]
    if isinstance(given, Mapping | list | tuple) and not argument.endswith("metrics"):  # an output may have several
        raise KeyError(path)
    return given


def _computes_its_own(model: keras.Model) -> bool:
    """Whether a model's class computes its loss itself, which is logged."""
    kind = type(model)
    if kind.compute_loss is keras.Model.compute_loss or kind.__module__.startswith("keras."):
        return False
    progress.say(
        f"note: {kind.__name__} computes its loss itself, which pruning cannot read; give it as objective=..., or the "
        "loss is read off the outputs and the labels"
    )
    return True
