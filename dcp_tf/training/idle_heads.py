"""Which auxiliary heads learned nothing: those that do hardly better than a constant output."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.training.heads import AugmentedModel
from dcp_tf.training.joint_loss import outputs_for, own_weights
from dcp_tf.training.losses import ClassificationLoss, Loss, MeanSquaredError, loss_of
from dcp_tf.training.objectives import Objective
from dcp_tf.training.targets import complete_labels, split_batch

_AT_CHANCE = 0.97  # of the loss of a constant output, from which a head has learned nothing
_LABELS = 512  # are enough to know the frequency of each class, and few enough to fit
_VALUES = 2**22


@dataclasses.dataclass(frozen=True)
class HeadLoss:
    """The loss of a trained head beside that of the best constant output.

    Attributes:
        layer: that the head reads.
        output: that it serves; empty for all.
        loss: of the head.
        constant: of the best constant output.
    """

    layer: str
    output: str
    loss: float
    constant: float

    @property
    def is_at_chance(self) -> bool:
        """Whether the head is hardly better than a constant output."""
        return not self.loss < _AT_CHANCE * self.constant

    def __str__(self) -> str:
        of_output = f" for {self.output}, a constant answer {self.constant:.3g}" if self.output else ""
        return f"{self.layer} (loss {self.loss:.3g}{of_output})"


def head_losses(
    augmented: AugmentedModel, objective: Objective, labels: Any, record: Mapping[str, Any]
) -> list[HeadLoss]:
    """The losses of trained heads of which the best constant output is known, output by output where they are measured.

    Args:
        augmented: the model with its heads.
        objective: of the model.
        labels: of the training inputs.
        record: of the last epoch, as `fit` and `train_pooled_heads` return it.
    """
    measured = []
    for number, (position, head) in enumerate(zip(augmented.positions, augmented.heads, strict=True)):
        shapes = dict(zip(position.names or [""], [x.shape for x in head.outputs], strict=True))
        by_output = {name: record[f"{name}_losses"][number] for name in position.names if f"{name}_losses" in record}
        for output, value in (by_output or {"": record["losses"][number]}).items():
            names = (output,) if output else position.names
            loss = objective.head_loss_of(names)
            # A head's own weight does not count in the loss of one of its outputs.
            loss, own = (loss.losses[0], labels.get(output)) if output else (loss, labels)
            shape = shapes[output] if output in shapes else list(shapes.values())
            constant = None if own is None else constant_loss(loss, own, shape)
            if constant is not None:
                measured.append(HeadLoss(position.layer, output, float(value), constant))
    return measured


def output_losses(
    augmented: AugmentedModel, objective: Objective, data: Any, teacher: Callable | None, batch_size: int
) -> dict[str, list[float | None]]:
    """The loss of each head for each of the outputs that it serves, on some of the inputs, as records have them.

    Args:
        augmented: the model with its heads.
        objective: of a model with several outputs.
        data: of the training.
        teacher: from inputs to labels, for outputs without any.
        batch_size: inputs at a time.
    """
    losses = augmented.losses(objective)[:-1]
    names = dict.fromkeys(name for loss in losses for name in loss.names)
    sums = {name: np.zeros(len(losses)) for name in names}
    order = np.random.default_rng(0).permutation(data.size)[:_LABELS]
    for inputs, labels, weights in map(split_batch, data.batches(batch_size, indices=order)):
        labels = complete_labels(labels, None if teacher is None else teacher(inputs))
        flat = keras.tree.flatten(augmented.model(inputs, training=False))
        count = sum(len(loss.names) for loss in losses)
        for number, (loss, outputs) in enumerate(zip(losses, outputs_for(losses, flat[:count]), strict=True)):
            for name, part, output in zip(loss.names, loss.losses, outputs, strict=True):
                value = loss_of(part, labels[name], output, weights=own_weights(weights, name))
                sums[name][number] += float(value) * len(output)
    serves = {name: [name in loss.names for loss in losses] for name in names}
    return {
        f"{name}_losses": [s / len(order) if own else None for s, own in zip(sums[name], serves[name], strict=True)]
        for name in names
    }


def constant_loss(loss: Loss, labels: Any, output_shape: Sequence) -> float | None:
    """The loss of the best constant output; None for losses of which it is not known.

    Args:
        loss: of logits, or of numbers, or a joint loss of such.
        labels: of the training inputs, (N, ...); by name for a joint loss.
        output_shape: of what the loss compares, with the batch axis; for a joint loss those of its outputs.
    """
    if hasattr(loss, "names"):
        if any(name not in labels for name in loss.names):
            return None
        parts = zip(loss.losses, loss.names, output_shape, strict=True)
        values = [constant_loss(part, labels[name], shape) for part, name, shape in parts]
        return None if None in values else float(np.dot(loss.loss_weights, values))
    if None in output_shape[1:]:
        return None
    count = max(1, min(_LABELS, _VALUES // math.prod(output_shape[1:])))
    chosen = np.random.default_rng(0).permutation(len(labels))[:count]
    labels = tf.constant(np.asarray(labels)[chosen])
    shape = (len(labels), *output_shape[1:])
    if isinstance(loss, MeanSquaredError):
        numbers = tf.reshape(tf.cast(labels, tf.float32), shape)
        means = tf.reduce_mean(numbers, list(range(len(shape) - 1)))
        return float(loss(numbers, tf.broadcast_to(means, shape)))
    if not isinstance(loss, ClassificationLoss) or loss.outputs_kind != "logits":
        return None
    zeros, classes = tf.zeros(shape[-1]), shape[-1]
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        value = loss(labels, tf.broadcast_to(zeros, shape))
    slopes = tape.gradient(value, zeros)  # equal probabilities less the frequency of each class, times a constant
    if loss.independent or classes == 1:
        frequencies = tf.clip_by_value(0.5 - classes * slopes, 1e-6, 1 - 1e-6)
        logits = tf.math.log(frequencies) - tf.math.log(1 - frequencies)
    else:
        logits = tf.math.log(tf.maximum(1 / classes - slopes, 1e-6))
    return float(loss(labels, tf.broadcast_to(logits, shape)))
