"""A user's own losses and metrics, called on two samples: what is wrong with them shows before a long run."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

# How Keras finds "accuracy" and what else has several forms; it has no public name.
from keras.src.trainers.compile_utils import get_metric

from dcp_tf.errors import UsageError, first_line
from dcp_tf.training.custom_objective import Custom
from dcp_tf.training.losses import loss_of
from dcp_tf.training.objectives import Objective
from dcp_tf.training.sample_weights import takes_weights
from dcp_tf.training.targets import complete_labels, split_batch

_SAMPLES = 2


def try_losses(objective: Objective, model: keras.Model, data: Any) -> None:
    """Calls the losses that are not of this package, and those that sample weights may not count in.

    Raises:
        UsageError: one fails, or cannot count weights that the data has.
    """
    own = [name for name, part in _parts(objective) if _is_own(part, data.weights is not None)]
    if not own:
        return
    inputs, labels, weights = split_batch(next(iter(data.batches(min(_SAMPLES, data.size)))))
    answers = objective.targets(model, None)(inputs) if objective.lacks_labels(data) else None
    labels = complete_labels(labels, answers)
    outputs = _by_name(objective, objective.with_loss_head(model, None)(inputs, training=False))
    for name, part in _parts(objective):
        if name in own:
            label, weight = _of(labels, name), _of(weights, name)
            try:
                loss_of(part.loss, label, outputs[name], weights=weight)
            except UsageError:
                raise
            except Exception as error:  # a user's own code
                raise _failed(f"the loss {part.describe()}", name, label, outputs[name], error) from error


def try_metrics(metrics: Any, objective: Objective, model: keras.Model, data: Any) -> Any:
    """The metrics for a training as objects, after they measured two samples.

    Args:
        metrics: of Keras, objects or what `compile` takes in their place; by the names of outputs where there are
            several.
        objective: bound to the model and the data.
        model: with flat outputs.
        data: bound to the model.

    Returns:
        A list, or lists by name.

    Raises:
        UsageError: there is no such output or no labels, or one is no metric or fails.
    """
    if not isinstance(metrics, str) and not callable(metrics) and isinstance(metrics, Mapping | list | tuple):
        if not metrics:
            return metrics
    else:
        metrics = [metrics]
    names = [name for name, _ in _parts(objective)]
    if isinstance(metrics, Mapping) != (names != [""]) or (names != [""] and not metrics.keys() <= set(names)):
        expected = "a list" if names == [""] else f"lists by the names of outputs, {', '.join(names)}"
        raise UsageError(f"metrics must be {expected}; received {metrics!r:.80}")
    inputs, labels, weights = split_batch(next(iter(data.batches(min(_SAMPLES, data.size)))))
    outputs = dict(zip(names, keras.tree.flatten(model(inputs, training=False))[-len(names) :], strict=True))
    made = {}
    for name, given in metrics.items() if isinstance(metrics, Mapping) else [("", metrics)]:
        label, weight = _of(labels, name), _of(weights, name)
        if label is None:
            raise UsageError(f"metrics need labels{f' of the output {name}' if name else ''}, the data has none")
        made[name] = []
        for metric in given if isinstance(given, list | tuple) else [given]:
            try:
                made[name].append(get_metric(metric, label, outputs[name]))
                made[name][-1].update_state(label, outputs[name], weight)
                made[name][-1].reset_state()
            except Exception as error:  # a user's own code, or of a kind that no Keras documents
                shown = getattr(metric, "name", None) or repr(metric)[:80]
                raise _failed(f"the metric {shown}", name, label, outputs[name], error) from error
    return made if isinstance(metrics, Mapping) else made[""]


def _parts(objective: Objective) -> Iterator[tuple[str, Objective]]:
    """The objective of each output, by its name; "" where there is one."""
    if not hasattr(objective, "parts"):
        yield "", objective
    else:
        yield from ((name, part) for name, part, _ in objective.parts)


def _is_own(objective: Objective, is_weighted: bool) -> bool:
    of_package = type(objective).__module__.startswith("dcp_tf.") and not isinstance(objective, Custom)
    return not of_package or (is_weighted and not takes_weights(objective.loss))


def _by_name(objective: Objective, outputs: Any) -> dict[str, Any]:
    names = [name for name, _ in _parts(objective)]
    return {"": outputs} if names == [""] else dict(zip(names, outputs, strict=True))


def _of(parts: Any, name: str) -> Any:
    return parts.get(name) if isinstance(parts, Mapping) else parts


def _failed(what: str, name: str, labels: Any, outputs: Any, error: Exception) -> UsageError:
    shapes = [tuple(part.shape) if hasattr(part, "shape") else type(part).__name__ for part in (labels, outputs)]
    return UsageError(
        f"{what}{f' of the output {name!r}' if name else ''} fails on {_SAMPLES} samples, labels {shapes[0]} and "
        f"outputs {shapes[1]}: {type(error).__name__}: {first_line(error)}"
    )
