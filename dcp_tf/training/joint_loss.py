"""The loss of several outputs: the weighted sum of one loss for each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training.losses import Distillation, Loss, loss_of
from dcp_tf.training.sample_weights import mean_of
from dcp_tf.training.targets import complete_labels


@dataclasses.dataclass(frozen=True)
class JointLoss:
    """`sum over the outputs of loss_weight * loss(labels[name], output)`, as Keras computes it.

    It has `sampled`, and `clip_norm` and `distance` if one of its parts has them; see `dcp_tf.training.Loss`.

    Attributes:
        names: of the outputs that it reads.
        losses: one per output.
        loss_weights: one per output, 0 or more.
    """

    names: tuple[str, ...]
    losses: tuple[Loss | Distillation, ...]
    loss_weights: tuple[float, ...]

    def __call__(self, labels, outputs, teacher_outputs=None, weights=None) -> tf.Tensor:
        """The weighted sum, a float32 scalar.

        Args:
            labels: by name of the output; those of other outputs are not read.
            outputs: one per name, in that order.
            teacher_outputs: the teacher's targets by name, for parts that distill.
            weights: of the samples, by name, or for all outputs alike.

        Raises:
            UsageError: an output has no labels, or they do not fit it.
        """
        teacher_outputs = teacher_outputs or {}

        def value(name, loss, output):
            return loss_of(loss, _of(labels, name), output, teacher_outputs.get(name), own_weights(weights, name))

        return self._sum(value, outputs)

    def with_parts(self, change: Callable[[Loss], Loss]) -> "JointLoss":
        """The same with other losses, each made from the one that is there."""
        return dataclasses.replace(self, losses=tuple(change(loss) for loss in self.losses))

    def figures(self, labels, outputs) -> dict[str, tf.Tensor]:
        """The means that training reports of each output: its loss and, of classes, its accuracy."""
        figures = {}
        for name, loss, output in zip(self.names, self.losses, as_tuple(outputs), strict=True):
            figures[f"{name}_loss"] = loss_of(loss, _of(labels, name), output)
            if hasattr(loss, "accuracy"):
                metric = f"{name}_{getattr(loss, 'accuracy_name', 'top1')}"
                figures[metric] = tf.reduce_mean(loss.accuracy(_of(labels, name), output))
        return figures

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The names of `figures`, in order."""
        pairs = zip(self.names, self.losses, strict=True)
        of_outputs = [(f"{n}_loss", f"{n}_{getattr(x, 'accuracy_name', 'top1')}")[: 1 + _scores(x)] for n, x in pairs]
        return tuple(name for names in of_outputs for name in names)

    def distance_targets(self, labels: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
        """What `distance` compares outputs with: a teacher's answers, or labels for losses that have no distance."""
        labels = complete_labels(labels, answers)
        pairs = zip(self.names, self.losses, strict=True)
        return {name: answers[name] if hasattr(loss, "distance") else _of(labels, name) for name, loss in pairs}

    def sampled(self, outputs, seed: tf.Tensor, labels: Any = None) -> tf.Tensor:
        """See `dcp_tf.training.Loss`: parts are drawn apart, so that the mean squares of their gradients add up.

        Parts that cannot draw labels take the given ones, each batch with a random sign.
        """
        values = []
        for number, (loss, output) in enumerate(zip(self.losses, as_tuple(outputs), strict=True)):
            own_seed = seed + tf.constant([number, 0], seed.dtype)
            root = self.loss_weights[number] ** 0.5
            if hasattr(loss, "sampled"):
                values.append(root * loss.sampled(output, own_seed))
                continue
            sign = 2.0 * tf.cast(tf.random.stateless_uniform((), own_seed) < 0.5, tf.float32) - 1.0
            images = tf.cast(tf.shape(output)[0], tf.float32)
            values.append(root * sign * images * mean_of(loss, _of(labels, self.names[number]), output))
        return tf.add_n(values)

    def _distance(self, teacher_outputs, outputs, temperature: float, weights=None) -> tf.Tensor:
        """See `dcp_tf.training.Loss`; `distance_targets` says what the outputs are compared with."""

        def value(name, loss, output):
            own = own_weights(weights, name)
            if hasattr(loss, "distance"):
                return mean_of(loss.distance, teacher_outputs[name], output, temperature, weights=own)
            return mean_of(loss, _of(teacher_outputs, name), output, weights=own)

        return self._sum(value, outputs)

    def __getattr__(self, name: str):
        if name == "distance" and any(hasattr(loss, "distance") for loss in self.losses):
            return self._distance
        norms = [x.clip_norm for x in self.losses if hasattr(x, "clip_norm")] if name == "clip_norm" else []
        if norms:
            return min(norms)
        raise AttributeError(name)

    def _sum(self, value: Callable, outputs: Any) -> tf.Tensor:
        parts = zip(self.names, self.losses, as_tuple(outputs), strict=True)
        values = [weight * value(*part) for weight, part in zip(self.loss_weights, parts, strict=True)]
        return tf.add_n(values)


def as_tuple(outputs: Any) -> Sequence[Any]:
    """The outputs of a model or a head; a single one is a tensor."""
    return outputs if isinstance(outputs, list | tuple) else (outputs,)


def own_weights(weights: Any, name: str) -> Any:
    """The sample weights of one output; None where it has none."""
    return weights.get(name) if isinstance(weights, dict) else weights


def outputs_for(losses: Sequence[Loss], outputs: Sequence[Any]) -> list[Any]:
    """What each loss takes of a model's flat outputs: a tensor, or a tuple for a loss of several outputs.

    Raises:
        UsageError: there are not as many outputs as the losses take.
    """
    counts = [len(getattr(loss, "names", ("",))) for loss in losses]
    if sum(counts) != len(outputs):
        raise UsageError(f"Expected one loss per output of the model, {len(outputs)}. Received: {sum(counts)}")
    taken, start = [], 0
    for loss, count in zip(losses, counts, strict=True):
        part = tuple(outputs[start : start + count])
        taken.append(part if hasattr(loss, "names") else part[0])
        start += count
    return taken


def _scores(loss: Any) -> bool:
    return hasattr(loss, "accuracy")


def _of(labels: Any, name: str) -> Any:
    if not isinstance(labels, Mapping):
        raise UsageError(f"Expected labels by the name of the output, such as {{{name!r}: ...}}")
    if name not in labels:
        raise UsageError(f"the output {name!r} has no labels, and there is no teacher whose answers could replace them")
    return labels[name]
