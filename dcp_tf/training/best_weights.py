"""The weights that do best on held-out inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.graph_function import graph_function
from dcp_tf.training.losses import Distillation, Loss, loss_of
from dcp_tf.training.targets import complete_labels, split_batch

_ENOUGH = 100  # inputs from which any gain of accuracy counts


class BestWeights:
    """The values of some variables at which a loss was lowest so far.

    Args:
        variables: their values now are the first ones.
        loss: of these.
    """

    def __init__(self, variables: Sequence[keras.Variable], loss: float = np.inf):
        self.loss, self._variables = loss, list(variables)
        self.values = [keras.Variable(v.numpy(), trainable=False, dtype=v.dtype, name="best") for v in self._variables]

    def offer(self, loss: float) -> None:
        """Keeps the present values if their loss is lower."""
        if loss < self.loss:
            self.loss = loss
            self.keep()

    def keep(self) -> None:
        """Keeps the present values."""
        for value, variable in zip(self.values, self._variables, strict=True):
            value.assign(variable.numpy())

    def restore(self) -> None:
        """Sets the variables to the best values."""
        for value, variable in zip(self.values, self._variables, strict=True):
            variable.assign(value.numpy())


class BestEpoch:
    """Keeps the weights of the epoch that does best on held-out inputs, those before the first epoch included.

    Higher accuracy is better, and of equal accuracies the lower loss. A loss that is not finite is the worst. With
    fewer than 100 inputs an epoch must beat the weights before the first by two standard deviations.

    Args:
        model: what is trained, on one device.
        loss: of its last output.
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
        self._has_accuracy = hasattr(loss, "accuracy")
        self.metric = getattr(loss, "accuracy_name", "top1") if self._has_accuracy else "loss"
        self._best = BestWeights(model.variables)
        # Epoch, loss and accuracy of the best; loss and accuracy before the first epoch.
        self._figures = keras.Variable(np.full(5, np.nan), trainable=False, dtype="float64", name="held_out")
        self._count = 0.0
        self._compiled = graph_function(self._sums, reduce_retracing=True)

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs."""
        return [self._figures, *self._best.values]

    def begin(self) -> None:
        """Measures the current weights, unless a stopped run did before."""
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
        return {**figures, f"held_out_{self.metric}": accuracy} if self._has_accuracy else figures

    def put_into_model(self) -> None:
        """Gives the model its best weights."""
        self._best.restore()

    def summary(self) -> dict[str, Any]:
        """Which epoch was kept, 0 for none, and its figure and that before training."""
        epoch, loss, accuracy, loss_before, accuracy_before = self._figures.numpy().tolist()
        kept, before = (accuracy, accuracy_before) if self._has_accuracy else (loss, loss_before)
        return {"metric": self.metric, "kept_epoch": int(epoch), "kept": kept, "before": before}

    def _keep(self, *figures: float) -> None:
        self._figures.assign(np.asarray(figures, np.float64))
        self._best.keep()

    def _noise(self, accuracy: float) -> float:
        """Two standard deviations of a few inputs' accuracy: of many epochs one is better randomly."""
        if not self._has_accuracy or self._count >= _ENOUGH or not np.isfinite(accuracy):
            return 0.0
        rate = min(max(accuracy, 1 / self._count), 1 - 1 / self._count)
        return 2.0 * (rate * (1.0 - rate) / self._count) ** 0.5

    def _measure(self) -> tuple[float, float]:
        """Loss and accuracy (0 if the loss has none) over the held-out inputs."""
        sums = sum(self._compiled(*split_batch(batch)).numpy() for batch in self._batches())
        self._count, loss, correct = sums.tolist()
        return (loss / self._count, correct / self._count) if np.isfinite(loss) else (np.inf, -np.inf)

    def _sums(self, inputs: Any, labels: Any, weights: Any) -> tf.Tensor:
        """The number of inputs, and the sums of their losses and correct answers."""
        teacher_outputs = None if self._teacher is None else self._teacher(inputs)
        labels = complete_labels(labels, teacher_outputs)
        outputs = keras.tree.flatten(self._model(inputs, training=False))
        names = getattr(self._loss, "names", None)
        output = outputs[-1] if names is None else tuple(outputs[-len(names) :])
        loss = loss_of(self._loss, labels, output, teacher_outputs, weights)
        correct = self._loss.accuracy(labels, output) if self._has_accuracy else tf.zeros(1)
        count = tf.cast(tf.shape(outputs[-1])[0], tf.float64)
        return count * tf.cast(tf.stack([1.0, loss, tf.reduce_mean(correct)]), tf.float64)
