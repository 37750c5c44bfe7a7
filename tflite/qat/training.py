"""Fine-tunes a model with quantizers: SGD with Nesterov momentum on tf_keras variables. Imports TensorFlow."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.graph_function import graph_function
from dcp_tf.tflite.qat.quantizers import quantizers_in
from dcp_tf.training import cosine_schedule
from dcp_tf.training.losses import loss_of
from dcp_tf.training.masks import resolve_masks

_MOMENTUM = 0.9
_CLIP_NORM = 1.0  # largest norm of the gradient: with rounding, one large gradient can undo the training
_CHECK_EVERY = 50  # steps between two checks that the loss is finite; each check waits for the device

Pairs = Sequence[tuple[Any, tf.Variable]]


def measure_ranges(model: Any, dataset: tf.data.Dataset, batches: int) -> None:
    """Sets the ranges of activations to their means over the first batches, without rounding.

    Args:
        model: with quantizers.
        dataset: of images, or of (images, labels).
        batches: number of batches.
    """
    observe = graph_function(lambda images, share: _observe(model, images, share), reduce_retracing=True)
    count = 0
    with progress.bar(what="measuring ranges", total=batches, unit="batch") as bar:
        for count, batch in enumerate(dataset.take(batches), start=1):
            observe(_images_and_labels(batch)[0], tf.constant(1.0 / count))
            bar.update()
    if count == 0:
        raise UsageError("The training data is empty")


def _observe(model: Any, images: Any, share: tf.Tensor) -> None:
    with quantizers_in("observe", share):
        model(images, training=False)


class QatStep:
    """One step of training on the model with quantizers.

    Args:
        model: the tf_keras model.
        pairs: every weight of the Keras 3 model with its trained variable.
        losses: one per output of the model, as `dcp_tf.training.fit` takes them.
        weight_decay: L2 coefficient, on kernels only.
        masks: per weight of the Keras 3 model, by its path or `id()`, an array of 0 and 1: where it is 0 the weight is
            and stays exactly 0.
        teacher: from images to probabilities, or None.

    Raises:
        UsageError: a mask fits no weight, or there are no trainable weights.
    """

    def __init__(
        self,
        model: Any,
        pairs: Pairs,
        losses: Sequence[Callable],
        *,
        weight_decay: float,
        masks: Mapping[str | int, np.ndarray],
        teacher: Callable | None,
    ):
        self._model, self._losses, self._teacher = model, list(losses), teacher
        self._trained = [(weight, twin) for weight, twin in pairs if weight.trainable]
        if not self._trained:
            raise UsageError(f"The model {model.name} has no trainable weights; unfreeze some layers")
        self._weight_decay = weight_decay
        tells = hasattr(self._losses[-1], "accuracy")
        self.accuracy_name = getattr(self._losses[-1], "accuracy_name", "accuracy") if tells else None
        self._masks = resolve_masks(pairs, masks)
        self._velocities = [tf.Variable(tf.zeros_like(twin), trainable=False) for _, twin in self._trained]
        self._sums = tf.Variable(tf.zeros(3, tf.float64), trainable=False)  # samples, loss, right answers
        self._compiled = graph_function(self._step, reduce_retracing=True)

    def __call__(self, batch: Any, learning_rate: float) -> None:
        """Trains on one batch without waiting for the device."""
        images, labels = _images_and_labels(batch)
        if labels is None and self._teacher is None:
            raise UsageError("The training data has no labels. Give some, or a teacher")
        self._compiled(images, labels, tf.constant(learning_rate, tf.float32))

    def start_epoch(self) -> None:
        """Resets the running means."""
        self._sums.assign(tf.zeros_like(self._sums))

    def means(self) -> tuple[float, float]:
        """Loss and accuracy over the samples of this epoch."""
        samples, loss, right = self._sums.numpy()
        return float(loss / max(samples, 1.0)), float(right / max(samples, 1.0))

    def weights_are_finite(self) -> bool:
        """Whether no weight is NaN or infinite."""
        return all(bool(tf.reduce_all(tf.math.is_finite(twin))) for _, twin in self._trained)

    def _step(self, images, labels, learning_rate) -> None:
        teacher_outputs = None if self._teacher is None else tf.stop_gradient(self._teacher(images))
        labels = teacher_outputs if labels is None else labels
        variables = [twin for _, twin in self._trained]
        with tf.GradientTape() as tape, quantizers_in("train"):
            outputs = tf.nest.flatten(self._model(images, training=True))
            loss = tf.add_n([loss_of(loss, labels, x, teacher_outputs) for loss, x in self._heads(outputs)])
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), _CLIP_NORM)
        for gradient, velocity, (weight, twin) in zip(gradients, self._velocities, self._trained, strict=True):
            if gradient is not None:
                self._descend(weight, twin, tf.convert_to_tensor(gradient), velocity, learning_rate)
        tells = self.accuracy_name is not None
        right = self._losses[-1].accuracy(labels, outputs[-1]) if tells else tf.zeros(1)
        samples = tf.cast(tf.shape(outputs[-1])[0], tf.float64)
        self._sums.assign_add(samples * tf.cast(tf.stack([1.0, loss, tf.reduce_mean(right)]), tf.float64))

    def _heads(self, outputs: list) -> list[tuple]:
        if len(outputs) != len(self._losses):
            raise UsageError(
                f"Expected one loss per output of the model, {len(outputs)}. Received: {len(self._losses)}"
            )
        return list(zip(self._losses, outputs, strict=True))

    def _descend(self, weight, twin, gradient, velocity, learning_rate) -> None:
        """Nesterov momentum as in Keras, then the mask."""
        if self._weight_decay and len(twin.shape) > 1:
            gradient += self._weight_decay * twin
        velocity.assign(_MOMENTUM * velocity - learning_rate * gradient)
        new = twin + _MOMENTUM * velocity - learning_rate * gradient
        mask = self._masks.get(id(weight))
        twin.assign(new if mask is None else new * mask)


def train(
    step: QatStep, batches: Callable[[int], tf.data.Dataset], epochs: int, learning_rate: float, lower: str
) -> None:
    """Runs the epochs with a cosine from `learning_rate` to 0 and logs each.

    Raises:
        RunError: the loss or a weight became NaN or infinite.
    """
    rate = cosine_schedule(learning_rate, epochs)
    for epoch in range(epochs):
        started = time.perf_counter()
        _run_epoch(step, batches(epoch), rate, epoch, epochs, lower, learning_rate)
        loss, accuracy = step.means()
        right = "" if step.accuracy_name is None else f"{step.accuracy_name} {accuracy:.4f}  "
        progress.say(f"qat {epoch + 1}/{epochs}  loss {loss:.4g}  {right}{time.perf_counter() - started:.0f} s")


def _run_epoch(step, dataset, rate, epoch: int, epochs: int, lower: str, learning_rate: float) -> None:
    length = int(dataset.cardinality())
    if length == tf.data.INFINITE_CARDINALITY:
        raise UsageError("The training data never ends; leave out .repeat(), or add .take(steps_per_epoch)")
    steps = length if length > 0 else None
    step.start_epoch()
    with progress.bar(what=f"qat {epoch + 1}/{epochs}", total=steps, unit="step") as bar:
        for number, batch in enumerate(dataset, start=1):
            step(batch, rate(epoch + ((number - 0.5) / steps if steps else 0.5)))
            bar.update()
            if number % _CHECK_EVERY == 0:
                _check(np.isfinite(step.means()[0]), epoch, lower, learning_rate)
    _check(np.isfinite(step.means()[0]) and step.weights_are_finite(), epoch, lower, learning_rate)


def _check(fine: bool, epoch: int, lower: str, learning_rate: float) -> None:
    if not fine:
        raise RunError(
            f"the loss or a weight became NaN in quantization-aware training (epoch {epoch + 1}); lower {lower} (now "
            f"{learning_rate:g})",
            setting=lower,
        )


def _images_and_labels(batch: Any) -> tuple[Any, Any]:
    parts = tuple(batch) if isinstance(batch, list | tuple) else (batch,)
    if len(parts) not in (1, 2):
        raise UsageError(f"Expected batches of images or of (images, labels). Received: tuples of {len(parts)}")
    return parts[0], parts[1] if len(parts) == 2 else None
