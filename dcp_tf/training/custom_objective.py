"""The objective of a user's own loss."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.models.outputs import outputs_kind as read_outputs_kind
from dcp_tf.training.losses import Loss, loss_of
from dcp_tf.training.objectives import Objective, compose, default_head
from dcp_tf.training.targets import split_batch


@dataclasses.dataclass(frozen=True, eq=False)
class Custom(Objective):
    """The objective of a user's own loss.

    Attributes:
        loss: from labels and outputs to a scalar mean; see `dcp_tf.training.Loss` for what else it may have.
        make_head: from name, shape, output shape and data format to an auxiliary head, as `Objective.head`; None: as of
            a classifier, or of maps where outputs are maps, with the last activation of the model.
        head_loss: of the heads' outputs; None: the same.
        metrics: from a model (or function) and batches to metrics; None: the mean loss.
        primary: name of the main metric.
        outputs_kind: the last activation; `bind` sets it.
        is_dense: whether the outputs are maps or sequences; `bind` sets it.
    """

    loss: Loss
    make_head: Callable[[str, tuple, tuple, str], keras.Model] | None = None
    head_loss: Loss | None = None
    metrics: Callable[[Any, Iterable], Mapping[str, float]] | None = None
    primary: str = "loss"
    outputs_kind: str = "logits"
    is_dense: bool = False
    name = "custom"

    def __post_init__(self):
        if self.head_loss is None:
            object.__setattr__(self, "head_loss", self.loss)

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`."""
        kind = self.outputs_kind if model is None else read_outputs_kind(model)
        return dataclasses.replace(self, outputs_kind=kind, is_dense=len(shape) > 2)

    def check(self, labels, shape, what="the data"):
        """See `Objective`; any labels are accepted."""

    def head(self, name, shape, output_shape, data_format):
        """See `Objective`."""
        if self.make_head is not None:
            return self.make_head(name, shape, output_shape, data_format)
        activation = None if self.outputs_kind == "logits" else self.outputs_kind
        return default_head(name, shape, output_shape, data_format, activation)

    def as_labels(self, outputs):
        """See `Objective`: the outputs themselves."""
        return outputs

    def evaluate(self, model_or_predict, batches):
        """See `Objective`."""
        figures = dict((self.metrics or self._mean_loss)(model_or_predict, batches))
        if self.primary not in figures:
            raise UsageError(
                f"primary={self.primary!r} must be one of what metrics gives, {', '.join(figures)}", "primary"
            )
        return figures

    def _mean_loss(self, model_or_predict, batches):
        total, count, predict = 0.0, 0, compose(model_or_predict, tf.identity)
        for images, labels, weights in map(split_batch, batches):
            total += len(images) * float(loss_of(self.loss, labels, predict(images), weights=weights))
            count += len(images)
        if not count:
            raise UsageError("there are no images to measure on")
        return {"loss": total / count}

    def describe(self):
        """See `Objective`."""
        if hasattr(self.loss, "describe"):
            return self.loss.describe()
        return getattr(self.loss, "__qualname__", type(self.loss).__qualname__)

    def __repr__(self) -> str:
        return f"Custom({self.describe()})"
