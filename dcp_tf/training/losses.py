"""Losses: cross-entropies on logits or probabilities, squared errors, distillation and label smoothing."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import keras
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training.sample_weights import mean_of, weighted_mean

OUTPUT_KINDS = ("logits", "softmax", "sigmoid")

# Floors under a logarithm. A softmax output far below float32's epsilon still has a correct gradient, so its floor only
# keeps 0 finite; 1 - p is never nearer to 0 than half a unit in the last place of 1.
_SMALLEST = 1e-30
_SMALLEST_COMPLEMENT = 2.0**-24
_TEACHER_WEIGHT = 0.5


class Loss(Protocol):
    """A differentiable loss; any callable of this form works.

    It may also have

    * `accuracy(labels, outputs) -> (batch,) floats`: training reports its mean, as `top1` or under the name in
      `accuracy_name`;
    * `distance(teacher_outputs, outputs, temperature) -> scalar`: `Distillation` needs it;
    * `clip_norm`: the largest global norm of the gradient, if the training sets none;
    * `sampled(outputs, seed) -> scalar`: for the fast selection. Its gradient for the outputs of one image is random,
      and the mean of its square is the curvature of the loss (Fisher or Gauss-Newton matrix). Without it the gradient
      of the loss itself is used.

    Where data has sample weights, a loss and its `distance` need an argument `weights`, (batch,) or one per position;
    the mean is that of weight times loss. A loss that returns one value per sample needs no such argument.
    """

    def __call__(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the scalar mean over the batch, float32."""


@dataclasses.dataclass(frozen=True)
class ClassificationLoss:
    """Cross-entropy for the model's last activation; stable and finite for all finite outputs.

    Outputs are `(batch, classes)`, or `(batch, ..., classes)` with one prediction per position, over which the loss is
    the mean. Labels are integers, `(batch, ...)` or with a last axis of 1, or one row of targets per prediction,
    `(batch, ..., classes)`: one-hot or soft, and with binary outputs several classes at once. A single output, as
    logit or as sigmoid probability, is binary with labels 0 and 1.

    Attributes:
        outputs_kind: `logits`; `softmax`, probabilities that sum to 1; or `sigmoid`, one probability per class.
        independent: whether each output is binary, independent of the others; sigmoid outputs always are.
        accuracy_name: the name of the mean of `accuracy` in training.
    """

    outputs_kind: str
    independent: bool = False
    accuracy_name: str = "top1"

    def __post_init__(self):
        if self.outputs_kind not in OUTPUT_KINDS:
            raise UsageError(f"Expected outputs of a kind in {OUTPUT_KINDS}. Received: {self.outputs_kind!r}")
        if self.independent and self.outputs_kind == "softmax":
            raise UsageError("The outputs of a softmax cannot be independent. End the model in a sigmoid, or in logits")

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        """Mean cross-entropy, a float32 scalar; with binary outputs the mean over the classes too.

        Raises:
            UsageError: labels and outputs do not fit each other.
            tf.errors.InvalidArgumentError: an integer label names no class.
        """
        outputs = self._checked(outputs)
        targets = as_targets(labels, outputs)
        if not self._is_binary(outputs):
            if self.outputs_kind == "logits":
                values = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
                return weighted_mean(values, weights)
            return -weighted_mean(tf.reduce_sum(targets * _log(outputs, _SMALLEST), axis=-1), weights)
        if self.outputs_kind == "logits":
            return weighted_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=outputs), weights)
        no = _log(1.0 - outputs, _SMALLEST_COMPLEMENT)
        return -weighted_mean(targets * _log(outputs, _SMALLEST) + (1.0 - targets) * no, weights)

    def accuracy(self, labels, outputs) -> tf.Tensor:
        """Per image, the fraction of correct predictions: `(batch,)` floats.

        It is top-1, by the largest entry of soft targets; for a single output and for rows of binary labels it is the
        fraction of correct ones.
        """
        outputs = self._checked(outputs)
        targets = as_targets(labels, outputs)
        if self._is_binary(outputs) and (outputs.shape[-1] == 1 or not _is_class_index(labels, outputs)):
            threshold = 0.0 if self.outputs_kind == "logits" else 0.5
            correct = (outputs > threshold) == (targets > 0.5)
        else:
            correct = tf.argmax(outputs, axis=-1) == tf.argmax(targets, axis=-1)
        return tf.reduce_mean(tf.cast(correct, tf.float32), axis=list(range(1, len(correct.shape))))

    def distance(self, teacher_outputs, outputs, temperature: float, weights=None) -> tf.Tensor:
        """`T^2 KL(teacher_T || outputs_T)` of the two probabilities (Hinton et al. 2015), a mean like the loss.

        `X_T` is the softmax of the logits of X divided by the temperature T, or their sigmoid for binary outputs. The
        factor T^2 keeps the gradients' size as T grows.
        """
        student = self.as_logits(outputs)
        binary = self._is_binary(student)
        teacher = ClassificationLoss("sigmoid" if binary else "softmax").as_logits(teacher_outputs)
        student, teacher = student / temperature, teacher / temperature
        if binary:
            divergence = weighted_mean(_binary_divergence(teacher, student), weights)
        else:
            difference = tf.nn.log_softmax(teacher) - tf.nn.log_softmax(student)
            divergence = weighted_mean(tf.reduce_sum(tf.nn.softmax(teacher) * difference, axis=-1), weights)
        return temperature**2 * divergence

    def sampled(self, outputs, seed: tf.Tensor) -> tf.Tensor:
        """The loss, summed over the images, with labels that are sampled from the outputs; see `Loss`.

        The mean over m predictions has 1/m of the curvature of one, while its squared gradient has 1/m^2.
        """
        outputs = self._checked(outputs)
        probabilities = tf.stop_gradient(self.as_probabilities(outputs))
        predictions = tf.shape(outputs)[1:] if self._is_binary(outputs) else tf.shape(outputs)[1:-1]
        if self._is_binary(outputs):
            labels = tf.cast(tf.random.stateless_uniform(tf.shape(outputs), seed) < probabilities, tf.float32)
        else:
            logits = tf.reshape(_log(probabilities, _SMALLEST), (-1, outputs.shape[-1]))
            labels = tf.one_hot(tf.random.stateless_categorical(logits, 1, seed)[:, 0], outputs.shape[-1])
            labels = tf.reshape(labels, tf.shape(outputs))
        images = tf.cast(tf.shape(outputs)[0], tf.float32)
        return images * tf.sqrt(tf.cast(tf.reduce_prod(predictions), tf.float32)) * self(labels, outputs)

    def as_logits(self, outputs) -> tf.Tensor:
        """The outputs as logits, of the same shape, float32, whatever their kind."""
        outputs = self._checked(outputs)
        if self.outputs_kind == "logits":
            return outputs
        if self.outputs_kind == "softmax":
            return _log(outputs, _SMALLEST)
        return _log(outputs, _SMALLEST) - _log(1.0 - outputs, _SMALLEST_COMPLEMENT)

    def as_probabilities(self, outputs) -> tf.Tensor:
        """The outputs as probabilities, of the same shape, float32, whatever their kind."""
        outputs = self._checked(outputs)
        if self.outputs_kind != "logits":
            return outputs
        return tf.sigmoid(outputs) if self._is_binary(outputs) else tf.nn.softmax(outputs)

    def _is_binary(self, outputs) -> bool:
        one_logit = self.outputs_kind == "logits" and outputs.shape[-1] == 1
        return self.independent or self.outputs_kind == "sigmoid" or one_logit

    def _checked(self, outputs) -> tf.Tensor:
        outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
        if outputs.shape.rank < 2:
            raise UsageError(f"Expected outputs of shape (batch, ..., classes). Received: {outputs.shape}")
        if self.outputs_kind == "softmax" and outputs.shape[-1] == 1:
            raise UsageError(
                "A softmax over a single output is always 1. End the model in a sigmoid, or in two classes"
            )
        return outputs


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """`mean(((label - output) / scale)^2)` over all values.

    Attributes:
        scale: one number, or one for each entry of the last axis of the outputs, such as the standard deviations of
            the labels.
    """

    scale: float | tuple[float, ...] = 1.0

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        """The mean, a float32 scalar. Labels have the shape of the outputs; a last axis of 1 may be omitted.

        Raises:
            UsageError: labels and outputs do not fit each other.
        """
        outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
        labels = tf.cast(tf.convert_to_tensor(labels), tf.float32)
        if labels.shape.rank == outputs.shape.rank - 1 and outputs.shape[-1] == 1:
            labels = labels[..., None]
        if not labels.shape.is_compatible_with(outputs.shape):
            raise UsageError(f"Expected labels of the outputs' shape {outputs.shape}. Received: {labels.shape}")
        return weighted_mean(tf.square((labels - outputs) / self.scale), weights)

    def distance(self, teacher_outputs, outputs, temperature: float, weights=None) -> tf.Tensor:
        """The same mean with the teacher's outputs; the temperature is not used."""
        return self(teacher_outputs, outputs, weights)

    def sampled(self, outputs, seed: tf.Tensor) -> tf.Tensor:
        """The loss, summed over the images, with labels sampled around the outputs; see `Loss`.

        The curvature of a mean over m values is 2 / (m scale^2), which is the mean square of its gradient for normal
        labels of the variance m scale^2 / 2.
        """
        outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
        values = tf.cast(tf.reduce_prod(tf.shape(outputs)[1:]), tf.float32)
        noise = tf.sqrt(values / 2.0) * self.scale * tf.random.stateless_normal(tf.shape(outputs), seed)
        images = tf.cast(tf.shape(outputs)[0], tf.float32)
        return images * self(tf.stop_gradient(outputs + noise), outputs)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """`(1 - weight) * loss(labels, student) + weight * distance(teacher, student)` (Hinton et al. 2015).

    Attributes:
        base: the loss of the student's outputs; its `distance` compares them with the teacher's.
        weight: of the teacher, 0 to 1.
        temperature: T, above 0; it softens both probabilities.
    """

    base: Any
    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self):
        if not 0.0 <= self.weight <= 1.0:
            raise UsageError(f"Expected a distillation weight between 0 and 1. Received: {self.weight}")
        if not self.temperature > 0.0:
            raise UsageError(f"Expected a distillation temperature above 0. Received: {self.temperature}")
        if self.weight and not hasattr(self.base, "distance"):
            raise UsageError(f"The loss {self.base!r} has no `distance` to a teacher; leave out the distillation")

    def __call__(self, labels, outputs, teacher_outputs, weights=None) -> tf.Tensor:
        """The weighted sum, a float32 scalar.

        Args:
            labels: as for the base loss.
            outputs: of the student.
            teacher_outputs: the teacher's targets, as `Objective.targets` or `soft_targets` gives them.
            weights: of the samples, if there are any.
        """
        if hasattr(self.base, "with_parts"):  # each part of a joint loss learns from its own output of the teacher
            parts = self.base.with_parts(lambda part: dataclasses.replace(self, base=part) if _distils(part) else part)
            return parts(labels, outputs, teacher_outputs, weights)
        distance = mean_of(self.base.distance, teacher_outputs, outputs, self.temperature, weights=weights)
        of_labels = mean_of(self.base, labels, outputs, weights=weights)
        return (1.0 - self.weight) * of_labels + self.weight * distance

    def __getattr__(self, name: str):
        # Those of the base loss, if it has them.
        if name in ("accuracy", "accuracy_name", "clip_norm", "names", "figures", "figure_names"):
            return getattr(self.base, name)
        raise AttributeError(name)


def loss_of(loss: Loss | Distillation, labels, outputs, teacher_outputs=None, weights=None) -> tf.Tensor:
    """A loss that may learn from a teacher too, float32.

    Args:
        loss: any; those of several outputs take dicts by name in place of labels, and tuples in place of outputs.
        labels: of the batch.
        outputs: of the model.
        teacher_outputs: of the baseline; None: there is none.
        weights: of the samples; None: all 1.
    """
    if isinstance(loss, Distillation) or hasattr(loss, "with_parts"):
        return tf.cast(loss(labels, outputs, teacher_outputs, weights), tf.float32)
    return mean_of(loss, labels, outputs, weights=weights)


def _distils(loss: Loss) -> bool:
    return hasattr(loss, "distance")


def distillation_weight(loss: Any, weight: float | None = None) -> float:
    """The weight of a `Distillation`: the given one or, for None, 0.5 if the loss has a distance to a teacher.

    On CIFAR-10 a ResNet-20 without half of its multiply-accumulates learns more in one epoch with its teacher than in
    two, which take longer, without (benchmarks/finetuned_quality.py).
    """
    if weight is not None:
        return weight
    return _TEACHER_WEIGHT if hasattr(loss, "distance") else 0.0


def soft_targets(model: keras.Model, outputs_kind: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """A teacher for training: a function from images to the probabilities `(batch, classes)` of `model`.

    The model runs in inference mode without gradients.
    """
    kind = ClassificationLoss(outputs_kind)
    return lambda images: tf.stop_gradient(kind.as_probabilities(model(images, training=False)))


def smoothed(loss: Any, smoothing: float) -> Any:
    """The loss whose targets are `(1 - smoothing) * target + smoothing / classes` (Szegedy et al. 2016, sec. 7).

    Args:
        loss: of classes, or a `Distillation` of such a loss, whose own targets then are smoothed. Binary
            targets are smoothed toward 1/2.
        smoothing: 0 does not change the loss.

    Raises:
        UsageError: the loss is not one of classes.
    """
    if not smoothing:
        return loss
    if isinstance(loss, Distillation):
        return dataclasses.replace(loss, base=smoothed(loss.base, smoothing))
    if hasattr(loss, "with_parts") and any(isinstance(part, ClassificationLoss) for part in loss.losses):
        return loss.with_parts(lambda p: smoothed(p, smoothing) if isinstance(p, ClassificationLoss) else p)
    if not isinstance(loss, ClassificationLoss):
        raise UsageError(f"label smoothing is for classes, the loss is {loss!r}; leave out label_smoothing")
    return _Smoothed(loss, smoothing)


class _Smoothed:
    """Cross-entropy is linear in its targets, so that of smoothed targets is a mean of two."""

    def __init__(self, base: ClassificationLoss, smoothing: float):
        self._base, self._smoothing = base, smoothing

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        shape = tf.shape(outputs)
        binary = self._base.independent or self._base.outputs_kind == "sigmoid" or outputs.shape[-1] == 1
        even = tf.fill(shape, 0.5) if binary else tf.ones(shape) / tf.cast(shape[-1], tf.float32)
        given, uniform = self._base(labels, outputs, weights), self._base(even, outputs, weights)
        return (1.0 - self._smoothing) * given + self._smoothing * uniform

    def __getattr__(self, name: str):
        if name.startswith("__"):  # such as copying asks for before there is a base
            raise AttributeError(name)
        return getattr(self._base, name)


def _binary_divergence(teacher, student) -> tf.Tensor:
    """KL divergence of two binary distributions given by logits: cross-entropy minus entropy."""
    yes = tf.sigmoid(teacher)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=yes, logits=student)
    return cross_entropy - tf.nn.sigmoid_cross_entropy_with_logits(labels=yes, logits=teacher)


def _is_class_index(labels, outputs) -> bool:
    """Whether each label is one number (a class, or 0 or 1) and not a row of targets."""
    rank = len(outputs.shape)
    return len(labels.shape) == rank - 1 or (len(labels.shape) == rank and labels.shape[-1] == 1)


def as_targets(labels, outputs) -> tf.Tensor:
    """Labels of any allowed form as one row of targets per prediction, of the outputs' shape, float32."""
    labels, classes = tf.convert_to_tensor(labels), outputs.shape[-1]
    index = _is_class_index(labels, outputs)
    positions = labels.shape[:-1] if len(labels.shape) == len(outputs.shape) else labels.shape
    if not positions.is_compatible_with(outputs.shape[:-1]) or not (index or labels.shape[-1] in (classes, None)):
        shape = ", ".join(["batch", *map(str, outputs.shape[1:-1])])
        raise UsageError(
            f"Expected labels of shape ({shape},) or ({shape}, {classes}), for the model's {classes} outputs. "
            f"Received: {labels.shape}"
        )
    if not index:
        return tf.cast(labels, tf.float32)
    if len(labels.shape) == len(outputs.shape):
        labels = labels[..., 0]
    if classes == 1:
        return tf.cast(_in_range(labels, 1), tf.float32)[..., None]
    return tf.one_hot(_in_range(_whole(labels), classes - 1), classes)


def _whole(labels: tf.Tensor) -> tf.Tensor:
    """Class numbers as integers; raises for floats with fractions."""
    if labels.dtype.is_integer:
        return labels
    message = "Expected whole-number labels or one row of targets per image"
    if tf.executing_eagerly():
        if not tf.reduce_all(labels == tf.floor(labels)):
            raise UsageError(f"{message}. Received: {labels.dtype.name} with fractions")
        return tf.cast(labels, tf.int32)
    with tf.control_dependencies([tf.debugging.assert_equal(labels, tf.floor(labels), message=message)]):
        return tf.cast(labels, tf.int32)


def _in_range(labels, largest: int) -> tf.Tensor:
    """Raises for labels outside of 0..largest: `one_hot` would turn them into rows of zeros without any loss."""
    message = f"Expected labels in 0..{largest} for this model"
    low = tf.debugging.assert_non_negative(labels, message=message)
    high = tf.debugging.assert_less_equal(labels, tf.cast(largest, labels.dtype), message=message)
    with tf.control_dependencies([check for check in (low, high) if check is not None]):
        return tf.identity(labels)


def _log(values, floor: float) -> tf.Tensor:
    return tf.math.log(tf.maximum(values, floor))
