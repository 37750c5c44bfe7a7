"""Chooses the objectives of a model's outputs, one for each, from what a user says of them."""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from dcp_tf.errors import UsageError
from dcp_tf.models.signature import output_names
from dcp_tf.settings.data import LOSSES
from dcp_tf.training.choose_objective import as_objective as objective_of_output
from dcp_tf.training.joint_objective import Joint, data_of, of_output
from dcp_tf.training.keras_losses import is_of_keras
from dcp_tf.training.keras_objectives import objective_of_loss
from dcp_tf.training.objectives import Objective, output_shape


def as_objective(
    objective: Any,
    model: keras.Model,
    data: Any,
    outputs_kind: str | Mapping[str, str] | None = None,
    loss_weights: Any = None,
    what: str = "the data",
) -> Objective:
    """The objective argument of `prune`, fitted to the model and its data.

    Args:
        objective: for one output an objective, a name of `LOSSES`, a loss of Keras', a loss `(labels, outputs)` -> mean
            or one value per sample, or None for "auto". For several a dict of these by the outputs' names, a list in
            their order, or one name or None for all. Outputs that a dict leaves out, or that have None in it, stay as
            the model's own.
        model: with one output or several.
        data: see `dcp_tf.data.DataSplit`; its labels are by name for several outputs, some of which may have none.
        outputs_kind: as for `choose_objective`; by name for several outputs.
        loss_weights: of several outputs' losses, by name or in their order; None: all 1.
        what: the name of the data in errors.

    Raises:
        UsageError: it is something else, or does not fit.
    """
    names = output_names(model)
    if isinstance(objective, Joint):
        return _bound(objective, names, model, data, loss_weights, what)
    given = _by_name(objective, names, "objective")
    kinds, weights = _by_name(outputs_kind, names, "outputs_kind"), checked_weights(loss_weights, names)
    if len(names) == 1:
        return _of_output(given.get(names[0]), model, data, kinds.get(names[0]), what)
    if isinstance(outputs_kind, str):
        raise UsageError(f"the model has the outputs {', '.join(names)}; give outputs_kind by their names")
    is_partial = isinstance(objective, Mapping | Sequence) and not isinstance(objective, str)
    imitated = tuple(name for name in names if is_partial and given.get(name) is None)
    parts = []
    for number, name in enumerate(names):
        own_data = data_of(data, name, name in imitated)
        part = _of_output(
            given.get(name), of_output(model, number), own_data, kinds.get(name), f"{what} (output {name!r})"
        )
        parts.append((name, part, weights[name]))
    return Joint(tuple(parts), imitated)


def _of_output(given: Any, model: keras.Model, data: Any, kind: str | None, what: str) -> Objective:
    """The objective of one output; a loss of Keras' is what it is in `compile`."""
    if kind is None and given not in LOSSES and is_of_keras(given):
        return objective_of_loss(given, model, data, what)[0]
    return objective_of_output(given, model, data, kind, what)


def _bound(joint: Joint, names: Sequence[str], model: keras.Model, data: Any, loss_weights: Any, what: str) -> Joint:
    if joint.names != tuple(names):
        raise UsageError(f"the objective is for the outputs {', '.join(joint.names)}; the model has {', '.join(names)}")
    if loss_weights is not None:
        raise UsageError("give loss_weights or a Joint objective, which has its own weights, not both")
    return joint.bind(output_shape(model, data), data, model, what)


def _by_name(given: Any, names: Sequence[str], argument: str) -> dict[str, Any]:
    """What is given for each output, by its name; the same for all where it is neither a dict nor a list."""
    if isinstance(given, Mapping):
        if unknown := [key for key in given if key not in names]:
            raise UsageError(f"{argument} names the output {unknown[0]!r}; those of the model are {', '.join(names)}")
        return dict(given)
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise UsageError(f"{argument} has {len(given)} entries; the model has {len(names)} outputs, {_list(names)}")
        return dict(zip(names, given, strict=True))
    if len(names) > 1 and not (given is None or isinstance(given, str)):
        raise UsageError(
            f"the model has {len(names)} outputs: give {argument} for each by its name, "
            f"{argument}={{{names[0]!r}: ..., ...}}"
        )
    return dict.fromkeys(names, given)


def checked_weights(given: Any, names: Sequence[str]) -> dict[str, float]:
    """The weight of each output's loss, from a dict by name or a list; all 1 for None.

    Raises:
        UsageError: a weight is no number from 0, or there is one output, whose loss has nothing to be weighed against.
    """
    if given is None:
        return dict.fromkeys(names, 1.0)
    if len(names) == 1:
        raise UsageError("loss_weights weigh the losses of several outputs; the model has one: leave them out")
    weights = {**dict.fromkeys(names, 1.0), **_by_name(given, names, "loss_weights")}
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real) or not 0 <= weight < float("inf"):
            raise UsageError(f"loss_weights must be numbers from 0; that of {name!r} is {weight!r:.80}")
    if not any(weights.values()):
        raise UsageError("loss_weights are all 0: one output at least must count")
    return {name: float(weight) for name, weight in weights.items()}


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
