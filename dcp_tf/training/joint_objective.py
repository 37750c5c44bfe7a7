"""The objective of a model with several outputs: one objective for each, with a weight."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.data.structure import join_batch
from dcp_tf.errors import UsageError
from dcp_tf.evaluation import predict_function
from dcp_tf.models.signature import pack
from dcp_tf.training.joint_loss import JointLoss, as_tuple, own_weights
from dcp_tf.training.keras_metrics import with_metrics
from dcp_tf.training.losses import loss_of
from dcp_tf.training.objectives import Objective
from dcp_tf.training.targets import split_batch

_CACHED_BYTES = 2**30  # of outputs; beyond, the model runs once more for each output that is measured


@dataclasses.dataclass(frozen=True)
class Joint(Objective):
    """Several outputs, each with its own objective. Labels and sample weights are dicts by the outputs' names.

    Attributes:
        parts: name of the output, its objective, and the weight of its loss, in the order of the model's outputs.
        imitated: names of outputs that are to stay as the baseline's, whatever labels there are.
    """

    parts: tuple[tuple[str, Objective, float], ...]
    imitated: tuple[str, ...] = ()
    name = "joint"
    primary = "loss"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the outputs, in the order of the model."""
        return tuple(name for name, _, _ in self.parts)

    def part(self, name: str) -> Objective:
        """The objective of one output."""
        return next(objective for part, objective, _ in self.parts if part == name)

    @property
    def is_dense(self) -> bool:
        """See `Objective`: whether one output at least has a prediction per position."""
        return any(objective.is_dense for _, objective, _ in self.parts)

    @property
    def primaries(self) -> tuple[str, ...]:
        """See `Objective`."""
        return (self.primary, *(f"{name}_{objective.primary}" for name, objective, _ in self.parts))

    @property
    def loss(self) -> JointLoss:
        """See `Objective`: of the outputs as a tuple."""
        return self._joint(self.names, lambda objective: objective.loss)

    @property
    def head_loss(self) -> JointLoss:
        """See `Objective`: of a head that serves all outputs; `head_loss_of` has those of others."""
        return self.head_loss_of(self.names)

    def head_loss_of(self, names):
        """See `Objective`."""
        return self._joint(names, lambda objective: objective.head_loss)

    def _joint(self, names: Sequence[str], loss: Callable) -> JointLoss:
        chosen = [(name, loss(objective), weight) for name, objective, weight in self.parts if name in names]
        return JointLoss(*map(tuple, zip(*chosen, strict=True)))

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`; `shape` is the tuple of the outputs' shapes."""
        parts = []
        for number, (name, objective, weight) in enumerate(self.parts):
            own_model = None if model is None else of_output(model, number)
            own_data = data_of(data, name, name in self.imitated)
            bound = objective.bind(shape[number], own_data, own_model, _named(what, name))
            parts.append((name, with_metrics(bound, objective.keras_metrics), weight))
        return dataclasses.replace(self, parts=tuple(parts))

    def check(self, labels, shape, what="the data"):
        """See `Objective`; outputs without labels are not checked."""
        for number, (name, objective, _) in enumerate(self.parts):
            if labels is not None and name in labels and name not in self.imitated:
                objective.check(labels[name], shape[number], _named(what, name))

    def head_ranks(self, output_rank):
        """See `Objective`; asked of each part."""
        raise TypeError("the parts of a joint objective have head_ranks")

    def head(self, name, shape, output_shape, data_format, names=None):
        """See `Objective`: one head with an output for each of `names`, in the order of the model's outputs.

        Args:
            name: of the head.
            shape: of the feature map.
            output_shape: of all outputs of the model, a tuple of shapes.
            data_format: of the feature map.
            names: of the outputs that it serves; None: all.
        """
        feature_map = keras.Input(batch_shape=shape)
        heads = [
            part.head(f"{name}_{number}", shape, output_shape[number], data_format)
            for number, (output, part, _) in enumerate(self.parts)
            if names is None or output in names
        ]
        return keras.Model(feature_map, pack([head(feature_map) for head in heads]), name=name)

    def loss_head(self, model, data):
        """See `Objective`: from the tuple of outputs to the tuple of what the losses take."""
        heads = []
        for number, (name, objective, _) in enumerate(self.parts):
            own_data = None if data is None else data_of(data, name, name in self.imitated)
            heads.append(objective.loss_head(of_output(model, number), own_data))
        if all(head is None for head in heads):
            return None
        inputs = [keras.Input(batch_shape=output.shape, dtype=output.dtype) for output in model.outputs]
        outputs = [x if head is None else head(x) for head, x in zip(heads, inputs, strict=True)]
        return keras.Model(pack(inputs), pack(outputs), name="loss_head")

    def as_labels(self, outputs):
        """See `Objective`: by name."""
        pairs = zip(self.parts, as_tuple(outputs), strict=True)
        return {name: objective.as_labels(output) for (name, objective, _), output in pairs}

    def targets(self, model, data):
        """See `Objective`: by name."""
        with_head = self.with_loss_head(model, data)
        return lambda inputs: keras.tree.map_structure(
            tf.stop_gradient, self.as_labels(with_head(inputs, training=False))
        )

    def lacks_labels(self, data):
        """See `Objective`."""
        labels = data.labels or {}
        return any(name not in labels or name in self.imitated for name in self.names)

    def training_data(self, data):
        """See `Objective`."""
        if not set(self.imitated) & set(data.labels or ()):
            return data

        def without(inputs, labels, weights):
            labels, weights = (
                {n: x for n, x in part.items() if n not in self.imitated} if isinstance(part, Mapping) else part
                for part in (labels, weights)
            )
            return inputs, labels or None, weights or None

        return data.converted(without)

    def evaluate(self, model_or_predict, batches):
        """See `Objective`: those of each output as `{name}_{metric}`, its loss, and `loss`, their weighted sum.

        Outputs without labels are left out, and those whose loss needs a loss head have no loss here.
        """
        replay = _Replay(predict_function(model_or_predict), batches)
        figures: dict[str, float] = {}
        total, is_measured = 0.0, False
        for number, (name, objective, weight) in enumerate(self.parts):
            if name in self.imitated or not replay.has_labels(name):
                continue
            measured = dict(objective.evaluate(lambda outputs: outputs, replay.of(number, name)))
            measured.pop("loss", None)
            if type(objective).loss_head is Objective.loss_head:
                loss = _mean_loss(objective.loss, replay.of(number, name))
                total, is_measured = total + weight * loss, True
                measured = {"loss": loss, **measured}
            figures |= {f"{name}_{metric}": value for metric, value in measured.items()}
        if not figures:
            raise UsageError("evaluation needs labels of one output at least")
        return {"loss": total, **figures} if is_measured else figures

    def describe(self):
        """See `Objective`."""
        weighted = [
            (f"{name}: {part.describe()}", f" x {weight:g}" * (weight != 1)) for name, part, weight in self.parts
        ]
        return ", ".join(loss + factor for loss, factor in weighted)


def each_output(
    objective: Objective, model: keras.Model, *splits: Any
) -> Iterator[tuple[str, Objective, keras.Model, list]]:
    """Each output that is measured by labels: its name, its objective, the model with it alone, and its data.

    A model with one output has no names: then its own model, objective and splits come back, under the name "".
    """
    if not isinstance(objective, Joint):
        yield "", objective, model, list(splits)
        return
    for number, (name, part, _) in enumerate(objective.parts):
        if name not in objective.imitated:
            own = [None if split is None else data_of(split, name) for split in splits]
            yield name, part, of_output(model, number), own


def of_output(model: keras.Model, number: int) -> keras.Model:
    """The model with one of its outputs alone; it shares all layers."""
    return keras.Model(pack(model.inputs), model.outputs[number], name=model.name)


def data_of(data: Any, name: str, is_imitated: bool = False) -> Any:
    """A split with the labels and sample weights of one output alone, or without labels where it has none."""

    def own(inputs, labels, weights):
        if is_imitated or not isinstance(labels, Mapping) or name not in labels:
            return inputs, None, None
        return inputs, labels[name], own_weights(weights, name)

    return data.converted(own)


def _named(what: str, name: str) -> str:
    return f"{what} (output {name!r})"


def _mean_loss(loss: Any, batches: Iterable) -> float:
    total, count = 0.0, 0
    for outputs, labels, weights in map(split_batch, batches):
        total += len(outputs) * float(loss_of(loss, labels, outputs, weights=weights))
        count += len(outputs)
    return total / count


class _Replay:
    """The outputs of a model, one at a time, over the same batches; they are computed once where memory allows it."""

    def __init__(self, predict: Callable, batches: Iterable):
        self._predict, self._batches = predict, batches
        self._stored: list[tuple] | None = []
        used = 0
        for item in self._run():
            self._stored.append(item)
            used += sum(output.nbytes for output in item[0])
            if used > _CACHED_BYTES:
                self._first, self._stored = item, None
                break
        else:
            if not self._stored:
                raise UsageError("there are no inputs to measure on")
            self._first = self._stored[0]

    def has_labels(self, name: str) -> bool:
        return name in (self._first[1] or {})

    def of(self, number: int, name: str) -> Iterator[tuple]:
        """Batches of the outputs of that number in place of inputs, with its labels and sample weights."""
        for outputs, labels, weights in self._stored if self._stored is not None else self._run():
            yield join_batch(outputs[number], labels[name], own_weights(weights, name))

    def _run(self) -> Iterator[tuple]:
        for batch in self._batches:
            inputs, labels, weights = split_batch(batch)
            yield [np.asarray(output, np.float32) for output in as_tuple(self._predict(inputs))], labels, weights
