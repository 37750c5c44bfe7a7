"""What training minimises: classification losses on logits or probabilities, hard or soft labels, and distillation."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import keras
import tensorflow as tf

from dcp_tf.errors import UsageError

OUTPUT_KINDS = ("logits", "softmax", "sigmoid")

# Floors under a logarithm. A softmax output far below float32's epsilon still has a true gradient, so its floor is only
# there to keep 0 finite; 1 - p cannot come nearer to 0 than half a unit in the last place of 1.
_SMALLEST = 1e-30
_SMALLEST_COMPLEMENT = 2.0**-24


class Loss(Protocol):
    """A differentiable loss; any callable of this form will do.

    If it also has `accuracy(labels, outputs) -> (batch,) floats`, training reports the mean of that as `top1`.
    """

    def __call__(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the scalar mean over the batch, float32."""


@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
    """Cross-entropy that suits the model's last activation; stable and finite for all finite outputs.

    Labels are integers `(batch,)` or `(batch, 1)`, or one row per image `(batch, classes)`: one-hot or soft targets,
    and for sigmoid outputs several classes at once (multi-label). A single output, as logit or as sigmoid
    probability, is a yes / no question with labels 0 and 1.

    Attributes:
        outputs_kind: `logits`; `softmax`, probabilities that sum to 1; or `sigmoid`, one probability per class.
    """

    outputs_kind: str

    def __post_init__(self):
        if self.outputs_kind not in OUTPUT_KINDS:
            raise UsageError(f"Expected outputs of a kind in {OUTPUT_KINDS}. Received: {self.outputs_kind!r}")

    def __call__(self, labels, outputs) -> tf.Tensor:
        """Mean cross-entropy, a float32 scalar; over sigmoid outputs it is the mean over classes too.

        Raises:
            UsageError: labels and outputs do not fit each other.
            tf.errors.InvalidArgumentError: an integer label names no class.
        """
        outputs = self._checked(outputs)
        targets = _targets(labels, outputs.shape[-1])
        if not self._is_binary(outputs):
            if self.outputs_kind == "logits":
                return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=outputs))
            return -tf.reduce_mean(tf.reduce_sum(targets * _log(outputs, _SMALLEST), axis=-1))
        if self.outputs_kind == "logits":
            return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=outputs))
        no = _log(1.0 - outputs, _SMALLEST_COMPLEMENT)
        return -tf.reduce_mean(targets * _log(outputs, _SMALLEST) + (1.0 - targets) * no)

    def accuracy(self, labels, outputs) -> tf.Tensor:
        """Per image, whether the answer is right: `(batch,)` floats.

        It is top-1, where soft targets count by their largest entry; for one output and for multi-label rows it is
        the share of right yes / no answers.
        """
        outputs = self._checked(outputs)
        targets = _targets(labels, outputs.shape[-1])
        if self._is_binary(outputs) and (outputs.shape[-1] == 1 or not _is_class_index(labels)):
            threshold = 0.0 if self.outputs_kind == "logits" else 0.5
            return tf.reduce_mean(tf.cast((outputs > threshold) == (targets > 0.5), tf.float32), axis=-1)
        return tf.cast(tf.argmax(outputs, axis=-1) == tf.argmax(targets, axis=-1), tf.float32)

    def as_logits(self, outputs) -> tf.Tensor:
        """The outputs as logits, `(batch, classes)` float32, whatever their kind."""
        outputs = self._checked(outputs)
        if self.outputs_kind == "logits":
            return outputs
        if self.outputs_kind == "softmax":
            return _log(outputs, _SMALLEST)
        return _log(outputs, _SMALLEST) - _log(1.0 - outputs, _SMALLEST_COMPLEMENT)

    def as_probabilities(self, outputs) -> tf.Tensor:
        """The outputs as probabilities, `(batch, classes)` float32, whatever their kind."""
        outputs = self._checked(outputs)
        if self.outputs_kind != "logits":
            return outputs
        return tf.sigmoid(outputs) if self._is_binary(outputs) else tf.nn.softmax(outputs)

    def _is_binary(self, outputs) -> bool:
        return self.outputs_kind == "sigmoid" or (self.outputs_kind == "logits" and outputs.shape[-1] == 1)

    def _checked(self, outputs) -> tf.Tensor:
        outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
        if outputs.shape.rank != 2:
            raise UsageError(f"Expected classification outputs of shape (batch, classes). Received: {outputs.shape}")
        if self.outputs_kind == "softmax" and outputs.shape[-1] == 1:
            raise UsageError(
                "A softmax over a single output is always 1. End the model in a sigmoid, or in two classes"
            )
        return outputs


def classification_loss(outputs_kind: str) -> ClassificationLoss:
    """The classification loss for outputs that are `logits`, `softmax` or `sigmoid` probabilities."""
    return ClassificationLoss(outputs_kind)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """`(1 - weight) * CE(labels, student) + weight * T^2 * KL(teacher_T || student_T)` (Hinton et al. 2015).

    `X_T` is the softmax of the logits of X divided by the temperature T; for sigmoid outputs it is the sigmoid, and KL
    is the mean over classes, as the cross-entropy is. The factor T^2 keeps the gradients' size as T grows.

    Attributes:
        base: the classification loss of the student's outputs.
        weight: the share of the teacher, 0 to 1.
        temperature: T, above 0.
    """

    base: ClassificationLoss
    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self):
        if not 0.0 <= self.weight <= 1.0:
            raise UsageError(f"Expected a distillation weight between 0 and 1. Received: {self.weight}")
        if not self.temperature > 0.0:
            raise UsageError(f"Expected a distillation temperature above 0. Received: {self.temperature}")

    def __call__(self, labels, outputs, taught) -> tf.Tensor:
        """The weighted sum, a float32 scalar.

        Args:
            labels: as for the base loss.
            outputs: of the student, `(batch, classes)`.
            taught: the teacher's probabilities, `(batch, classes)`.
        """
        student = self.base.as_logits(outputs)
        binary = self.base._is_binary(student)
        teacher = ClassificationLoss("sigmoid" if binary else "softmax").as_logits(taught)
        student, teacher = student / self.temperature, teacher / self.temperature
        if binary:
            divergence = tf.reduce_mean(_binary_divergence(teacher, student))
        else:
            gap = tf.nn.log_softmax(teacher) - tf.nn.log_softmax(student)
            divergence = tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(teacher) * gap, axis=-1))
        return (1.0 - self.weight) * self.base(labels, outputs) + self.weight * self.temperature**2 * divergence

    def accuracy(self, labels, outputs) -> tf.Tensor:
        """As the base loss has it."""
        return self.base.accuracy(labels, outputs)


def soft_targets(model: keras.Model, outputs_kind: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """A teacher for training: a function from images to the probabilities `(batch, classes)` that `model` gives them.

    The model runs in inference mode, and no gradient reaches it.
    """
    kind = ClassificationLoss(outputs_kind)
    return lambda images: tf.stop_gradient(kind.as_probabilities(model(images, training=False)))


def _binary_divergence(teacher, student) -> tf.Tensor:
    """KL of two yes / no distributions given by logits: cross-entropy less entropy."""
    yes = tf.sigmoid(teacher)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=yes, logits=student)
    return cross_entropy - tf.nn.sigmoid_cross_entropy_with_logits(labels=yes, logits=teacher)


def _is_class_index(labels) -> bool:
    """Whether each label is one number (a class, or yes / no) and not a row of targets."""
    return len(labels.shape) == 1 or (len(labels.shape) == 2 and labels.shape[-1] == 1)


def _targets(labels, classes: int) -> tf.Tensor:
    """Labels of any allowed form as a distribution `(batch, classes)`, float32."""
    labels = tf.convert_to_tensor(labels)
    index = _is_class_index(labels)
    if not index and (labels.shape.rank != 2 or labels.shape[-1] not in (classes, None)):
        raise UsageError(
            f"Expected labels of shape (batch,) or (batch, {classes}), for the model's {classes} outputs. "
            f"Received: {labels.shape}"
        )
    if index and classes > 1 and not labels.dtype.is_integer:
        raise UsageError(f"Expected whole-number labels or one row of targets per image. Received: {labels.dtype.name}")
    if not index:
        return tf.cast(labels, tf.float32)
    if classes == 1:
        return tf.reshape(tf.cast(_in_range(labels, 1), tf.float32), (-1, 1))
    return tf.one_hot(_in_range(tf.reshape(labels, (-1,)), classes - 1), classes)


def _in_range(labels, largest: int) -> tf.Tensor:
    """Refuses labels outside 0..largest: `one_hot` would turn them into rows of zeros, which cost nothing."""
    message = f"Expected labels in 0..{largest} for this model"
    low = tf.debugging.assert_non_negative(labels, message=message)
    high = tf.debugging.assert_less_equal(labels, tf.cast(largest, labels.dtype), message=message)
    with tf.control_dependencies([check for check in (low, high) if check is not None]):
        return tf.identity(labels)


def _log(values, floor: float) -> tf.Tensor:
    return tf.math.log(tf.maximum(values, floor))
