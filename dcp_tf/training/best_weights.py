"""The weights of the epoch that does best on inputs that the training does not look at."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.training.losses import Distillation, Loss

_ENOUGH = 100  # inputs whose accuracy is taken as it is


class BestWeights:
    """Keeps the weights that were best so far, those before the first epoch included.

    Better is a higher accuracy, as the loss tells it, and among equal ones a lower loss. A loss that is not finite is
    the worst. With less than 100 inputs an epoch must be better than the weights before the first by two standard
    deviations.

    Args:
        model: what is trained, on one device. Its last output is looked at.
        loss: of that output.
        batches: gives the held-out inputs, the same each time.
        teacher: as for `fit`.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Loss | Distillation,
        batches: Callable[[], tf.data.Dataset],
        teacher: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ):
        self._model, self._loss, self._batches, self._teacher = model, loss, batches, teacher
        self._tells_accuracy = hasattr(loss, "accuracy")
        self.metric = getattr(loss, "accuracy_name", "top1") if self._tells_accuracy else "loss"
        self._best = [keras.Variable(v.numpy(), trainable=False, dtype=v.dtype, name="best") for v in model.variables]
        # Epoch, loss and accuracy of the best; loss and accuracy before the first epoch.
        self._figures = keras.Variable(np.full(5, np.nan), trainable=False, dtype="float64", name="held_out")
        self._count = 0.0
        self._compiled = tf.function(self._sums, reduce_retracing=True, autograph=False)

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs."""
        return [self._figures, *self._best]

    def begin(self) -> None:
        """Measures the weights as they are now, unless that was done before the run was stopped."""
        if np.isnan(self._figures.numpy()[0]):
            loss, accuracy = self._measure()
            self._keep(0, loss, accuracy, loss, accuracy)

    def compare(self, epoch: int) -> dict[str, float]:
        """Measures the weights after an epoch (from 1), keeps them if they are better, and returns the figures."""
        loss, accuracy = self._measure()
        best_epoch, best_loss, best_accuracy, *before = self._figures.numpy()
        needed = best_accuracy if best_epoch else best_accuracy + self._noise(best_accuracy)
        if (accuracy, -loss) > (needed, -best_loss):
            self._keep(epoch, loss, accuracy, *before)
        figures = {"held_out_loss": loss}
        return {**figures, f"held_out_{self.metric}": accuracy} if self._tells_accuracy else figures

    def put_into_model(self) -> None:
        """Gives the model its best weights."""
        for variable, best in zip(self._model.variables, self._best, strict=True):
            variable.assign(best.numpy())

    def summary(self) -> dict[str, Any]:
        """Which epoch was kept, 0 for none, and its figure and that before training."""
        epoch, loss, accuracy, loss_before, accuracy_before = self._figures.numpy().tolist()
        kept, before = (accuracy, accuracy_before) if self._tells_accuracy else (loss, loss_before)
        return {"metric": self.metric, "kept_epoch": int(epoch), "kept": kept, "before": before}

    def _keep(self, *figures: float) -> None:
        self._figures.assign(np.asarray(figures, np.float64))
        for best, variable in zip(self._best, self._model.variables, strict=True):
            best.assign(variable.numpy())

    def _noise(self, accuracy: float) -> float:
        """What a few inputs tell wrongly: among many epochs one looks better by chance than what stood before them."""
        if not self._tells_accuracy or self._count >= _ENOUGH or not np.isfinite(accuracy):
            return 0.0
        share = min(max(accuracy, 1 / self._count), 1 - 1 / self._count)
        return 2.0 * (share * (1.0 - share) / self._count) ** 0.5

    def _measure(self) -> tuple[float, float]:
        """Loss and accuracy (0 where the loss tells none) over the held-out inputs."""
        sums = sum(self._compiled(*_as_pair(batch)).numpy() for batch in self._batches())
        count, loss, right = sums.tolist()
        self._count = count
        return (loss / count, right / count) if np.isfinite(loss) else (np.inf, -np.inf)

    def _sums(self, inputs: Any, labels: Any) -> tf.Tensor:
        """How many inputs there are, and the sums of their losses and of the right answers."""
        teacher_outputs = None if self._teacher is None else self._teacher(inputs)
        labels = teacher_outputs if labels is None else labels
        output = keras.tree.flatten(self._model(inputs, training=False))[-1]
        of_teacher = (teacher_outputs,) if isinstance(self._loss, Distillation) else ()
        loss = self._loss(labels, output, *of_teacher)
        right = self._loss.accuracy(labels, output) if self._tells_accuracy else tf.zeros(1)
        count = tf.cast(tf.shape(output)[0], tf.float64)
        return count * tf.cast(tf.stack([1.0, tf.cast(loss, tf.float32), tf.reduce_mean(right)]), tf.float64)


def _as_pair(batch: Any) -> tuple:
    return tuple(batch) if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
