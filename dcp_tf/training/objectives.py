"""The task of a model: its loss, its auxiliary heads, the targets of images without labels, and its metrics.

Everything else (fine-tuning, the selection, measurements, the report) uses an `Objective` and knows no tasks.
"""

import abc
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.evaluation import (
    accuracy,
    measure_dense,
    measure_multilabel,
    measure_regression,
    measure_sequences,
    predict_function,
)
from dcp_tf.models.signature import pack
from dcp_tf.training.head_layers import POOLED_RANKS, map_head, pooled_head
from dcp_tf.training.label_checks import check_class_labels, check_numbers, check_rows, is_index
from dcp_tf.training.losses import ClassificationLoss, Loss, MeanSquaredError

_STATISTICS = 1024  # about so many labels are enough to estimate mean and standard deviation


class Objective(abc.ABC):
    """The task of a model. `bind` fits an objective to a model and its data; call it before all other methods.

    Attributes:
        loss: of the model's output (after its `loss_head`).
        head_loss: of the auxiliary heads' outputs, with the same labels.
        name: of the loss, one of `dcp_tf.training.LOSSES`.
        outputs_kind: "logits", "softmax" or "sigmoid"; "logits" for all but classes.
        is_dense: whether there is one prediction per position of an image.
        parity: how to compare the outputs of a converted file, see `dcp_tf.tflite.check_parity`.
        primary: name of the main metric of `evaluate`.
        fidelity: the metric that compares a model with the baseline without labels: "agreement", "r2" or "cosine".
        output_type: "logits", "probabilities", "embeddings" or "numbers"; None if unknown.
        keras_metrics: those that the model is compiled with, measured too, or None.
    """

    loss: Loss
    head_loss: Loss
    name: str
    outputs_kind: str = "logits"
    is_dense: bool = False
    parity: str = "embeddings"
    primary: str
    fidelity: str = "r2"
    output_type: str | None = None
    keras_metrics = None

    @abc.abstractmethod
    def bind(self, shape: tuple, data: Any, model: keras.Model | None = None, what: str = "the data") -> "Objective":
        """The objective for these outputs and training data.

        Args:
            shape: of the model's output for these images, with the batch axis.
            data: see `dcp_tf.data.DataSplit`; its labels may be None.
            model: for predictions if there are no labels.
            what: the name of the data in errors.

        Raises:
            UsageError: model and labels do not fit each other.
        """

    @abc.abstractmethod
    def check(self, labels: np.ndarray | None, shape: tuple, what: str = "the data") -> None:
        """Raises UsageError unless the labels fit outputs of this shape (with the batch axis)."""

    @abc.abstractmethod
    def head(self, name: str, shape: tuple, output_shape: tuple, data_format: str) -> keras.Model:
        """An untrained auxiliary head.

        Args:
            name: of the head; its layers' names begin with it.
            shape: of the feature map that it reads, with the batch axis.
            output_shape: of the model's output, with the batch axis.
            data_format: of the feature map.
        """

    def head_loss_of(self, names: Sequence[str]) -> Loss:
        """The loss of an auxiliary head; `names` are the outputs that it serves, of a joint objective."""
        return self.head_loss

    def head_ranks(self, output_rank: int) -> tuple[int, ...]:
        """The ranks (with the batch axis) of feature maps that can carry a head: models that output maps need maps."""
        return POOLED_RANKS if output_rank == 2 else (output_rank,)

    def loss_head(self, model: keras.Model, data: Any) -> keras.Model | None:
        """From the model's output to the input of its loss; None: the identity. Never part of the pruned model.

        Args:
            model: whose output it reads.
            data: a split to initialize it with; None for an untrained model.
        """
        return None

    def with_loss_head(self, model: keras.Model, data: Any) -> keras.Model:
        """The model as `fit` needs it for `loss`; it shares the layers of `model`. Arguments are as for `loss_head`."""
        head = self.loss_head(model, data)
        return model if head is None else keras.Model(pack(model.inputs), head(pack(model.outputs)), name=model.name)

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        if "ending" in vars(cls):  # the name in version 0.1.0
            warnings.warn(f"{cls.__name__}.ending is now {cls.__name__}.loss_head", DeprecationWarning, stacklevel=2)
            cls.loss_head = cls.ending

    def targets(self, model: keras.Model, data: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """From images to the predictions of `model` in the form of labels, without gradients.

        Args:
            model: the baseline.
            data: as for `loss_head`.
        """
        with_head = self.with_loss_head(model, data)
        return lambda images: tf.stop_gradient(self.as_labels(with_head(images, training=False)))

    def as_labels(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs of the baseline, after its loss head, in the form of labels."""
        return tf.cast(outputs, tf.float32)

    @property
    def primaries(self) -> tuple[str, ...]:
        """The main metric of `evaluate`, and of several outputs those of each."""
        return (self.primary,)

    def lacks_labels(self, data: Any) -> bool:
        """Whether the baseline's answers must replace labels of a data set, all or those of single outputs."""
        return data.labels is None

    def training_data(self, data: Any) -> Any:
        """The data that the model is trained on: without the labels of outputs that imitate the baseline anyway."""
        return data

    @abc.abstractmethod
    def evaluate(self, model_or_predict: keras.Model | Callable, batches: Iterable) -> dict[str, float]:
        """The metrics of a model, or of a function from images to outputs, on batches of (images, labels)."""

    def decide(self, outputs: np.ndarray) -> np.ndarray | None:
        """The decisions of outputs; None if they are not decisions."""
        return None

    def class_numbers(self, labels: np.ndarray | None) -> np.ndarray | None:
        """The labels as one class number per image, (N,); None if they are not classes."""
        return None

    @abc.abstractmethod
    def describe(self) -> str:
        """The loss in a few words."""


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Classes, one or several per image, or per position of an image.

    Attributes:
        outputs_kind: "logits", "softmax" or "sigmoid".
        independent: whether each class is a binary prediction, independent of the others; sigmoid outputs always are.
        multilabel: whether an image may have several classes; labels are then rows of 0 and 1.
        is_dense: whether there is one prediction per position of an image, or per step of a sequence; `bind` sets it.
        is_sequence: whether the outputs are (batch, steps, classes), as of networks for text or speech; `bind` sets it.
        imitates: whether the baseline's outputs replace missing labels; `bind` sets it.
    """

    outputs_kind: str = "logits"
    independent: bool = False
    multilabel: bool = False
    is_dense: bool = False
    is_sequence: bool = False
    imitates: bool = False

    def __post_init__(self):
        if self.outputs_kind == "sigmoid" or self.multilabel:
            object.__setattr__(self, "independent", True)
        _ = self.loss  # raises for invalid combinations

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`."""
        self.check(data.labels, shape, what)
        is_dense, is_sequence = len(shape) > 2, len(shape) == 3
        return dataclasses.replace(self, is_dense=is_dense, is_sequence=is_sequence, imitates=data.labels is None)

    def check(self, labels, shape, what="the data"):
        """See `Objective`."""
        if self.outputs_kind == "softmax" and shape[-1] == 1:
            raise UsageError(
                "the model ends in a softmax over a single output, which is always 1; end it in a sigmoid, "
                "or in two outputs"
            )
        if labels is None:
            return
        if self.multilabel:
            check_rows(labels, shape, what, sums_to_1=False)
        else:
            check_class_labels(labels, shape, what, rows_sum_to_1=not self.independent)

    @property
    def name(self) -> str:
        """See `Objective`."""
        return "multilabel" if self.multilabel else "sigmoid" if self.independent else "softmax"

    @property
    def parity(self) -> str:
        """See `Objective`; several classes at once are not compared as a decision."""
        if self.multilabel:
            return "embeddings"
        return "logits" if self.outputs_kind == "logits" else "probabilities"

    @property
    def primary(self) -> str:
        """See `Objective`."""
        if self.is_dense:
            return "step_accuracy" if self.is_sequence else "mean_iou"
        return "map" if self.multilabel else "top1"

    @property
    def fidelity(self) -> str:
        """See `Objective`; maps of sigmoids without labels may be images."""
        return "r2" if self.imitates and self.is_dense and self.independent else "agreement"

    @property
    def output_type(self) -> str:
        """See `Objective`."""
        return "logits" if self.outputs_kind == "logits" else "probabilities"

    def decide(self, outputs):
        """See `Objective`: the class, or each yes or no."""
        if outputs.shape[-1] == 1 or self.multilabel or (self.independent and self.is_dense):
            return outputs > (0.0 if self.outputs_kind == "logits" else 0.5)
        return outputs.argmax(-1)

    @property
    def loss(self) -> ClassificationLoss:
        """See `Objective`."""
        return ClassificationLoss(self.outputs_kind, self.independent, self._accuracy_name)

    @property
    def head_loss(self) -> ClassificationLoss:
        """See `Objective`."""
        return ClassificationLoss("logits", self.independent, self._accuracy_name)

    @property
    def _accuracy_name(self) -> str:
        if self.is_dense:
            return "step_accuracy" if self.is_sequence else "pixel_accuracy"
        return "label_accuracy" if self.multilabel else "top1"

    def head(self, name, shape, output_shape, data_format):
        """See `Objective`; heads give logits."""
        return default_head(name, shape, output_shape, data_format)

    def as_labels(self, outputs):
        """See `Objective`: the probabilities."""
        return self.loss.as_probabilities(outputs)

    def evaluate(self, model_or_predict, batches):
        """See `Objective`: top-1 (and 5), mean average precision and F1, mean IoU and pixel accuracy, or of steps."""
        threshold = 0.0 if self.outputs_kind == "logits" else 0.5
        if self.is_dense:
            measure = measure_sequences if self.is_sequence else measure_dense
            return measure(model_or_predict, batches, independent=self.independent, threshold=threshold)
        if self.multilabel:
            return measure_multilabel(model_or_predict, batches, threshold)
        kind, predict = self.outputs_kind, model_or_predict
        if self.independent and kind == "logits":
            kind, predict = "sigmoid", compose(model_or_predict, tf.sigmoid)
        return accuracy(predict, _map_labels(batches, _class_numbers), top5=True, outputs_kind=kind)

    def class_numbers(self, labels):
        """See `Objective`."""
        return None if labels is None or self.multilabel or self.is_dense else np.asarray(_class_numbers(labels))

    def describe(self):
        """See `Objective`."""
        scope = " of each step" if self.is_sequence else " of each place" if self.is_dense else ""
        if self.independent:
            return f"sigmoid cross-entropy{scope}" + (", several classes at once" if self.multilabel else "")
        return f"softmax cross-entropy{scope}"


@dataclasses.dataclass(frozen=True)
class Regression(Objective):
    """Numbers, one or several per image, or per position of an image, by squared errors.

    Errors are divided by the labels' standard deviations: heads predict standardized labels, so that their training
    does not depend on the labels' units. For the model's own output only standard deviations above 1 count, because
    small labels do not tell how its last layer is scaled.

    Attributes:
        mean: of the labels, for each entry of the last axis; `bind` sets it.
        std: their standard deviations; `bind` sets them.
        is_dense: whether there is a prediction per position of an image; `bind` sets it.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    is_dense: bool = False
    name = primary = "mse"
    output_type = "numbers"

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`; without labels the statistics are those of the model's predictions."""
        self.check(data.labels, shape, what)
        if data.labels is None:
            if model is None:
                raise UsageError(f"{what} has no labels; numbers to regress need them")
            values, _ = predictions(model, data, _STATISTICS)
        else:
            values = data.labels[:: -(-len(data.labels) // _STATISTICS)]
        values = np.asarray(values, np.float64).reshape(-1, shape[-1])
        std = values.std(0)
        std = tuple(np.where(std > 0, std, 1.0).tolist())
        return dataclasses.replace(self, mean=tuple(values.mean(0).tolist()), std=std, is_dense=len(shape) > 2)

    def check(self, labels, shape, what="the data"):
        """See `Objective`."""
        if labels is not None:
            check_numbers(labels, shape, what)

    @property
    def loss(self) -> MeanSquaredError:
        """See `Objective`."""
        return MeanSquaredError(tuple(max(1.0, std) for std in self.std))

    @property
    def head_loss(self) -> MeanSquaredError:
        """See `Objective`."""
        return MeanSquaredError(self.std)

    def head(self, name, shape, output_shape, data_format):
        """See `Objective`; with the labels' mean and standard deviations."""
        head = default_head(name, shape, output_shape, data_format)
        scaled = keras.layers.Rescaling(list(self.std), list(self.mean), name=f"{name}_units")
        return keras.Model(head.inputs[0], scaled(head.outputs[0]), name=name)

    def evaluate(self, model_or_predict, batches):
        """See `Objective`: mean squared and absolute error, and the explained share of the variance."""
        return measure_regression(model_or_predict, batches)

    def describe(self):
        """See `Objective`."""
        return "mean squared error" + (" of each place" if self.is_dense else "")


def default_head(
    name: str, shape: tuple, output_shape: tuple, data_format: str, activation: str | None = None
) -> keras.Model:
    """The auxiliary head of eq. 3 and 4 if outputs are vectors, one without pooling if they are maps."""
    if len(output_shape) > 2:
        return map_head(name, shape, output_shape, data_format, activation)
    return pooled_head(name, shape, output_shape[-1], data_format, activation)


def output_shape(model: keras.Model, data: Any) -> tuple:
    """The shape of the model's output for the inputs of a data set, with the batch axis; of several the tuple."""
    shapes = [tuple(output.shape) for output in model.outputs]
    if any(None in shape[1:] for shape in shapes):
        inputs = [(None, *shape) for shape in getattr(data, "shapes", [data.shape])]
        specs = [keras.KerasTensor(shape, x.dtype) for shape, x in zip(inputs, model.inputs, strict=True)]
        shapes = [tuple(spec.shape) for spec in keras.tree.flatten(model.compute_output_spec(pack(specs)))]
    return pack(shapes)


def predictions(model: keras.Model, data: Any, count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The outputs of a model for at most `count` class-balanced images, and their labels."""
    predict, outputs, labels = compose(model, tf.identity), [], []
    chosen = data.balanced_subset(count)
    batches = data.batches(64, indices=chosen)
    for batch in progress.bar(batches, what="looking at the outputs", total=-(-len(chosen) // 64), unit="batch"):
        images, *batch_labels = batch if isinstance(batch, tuple) else (batch,)
        outputs.append(np.asarray(predict(images), np.float32))
        labels += [np.asarray(part) for part in batch_labels]
    return np.concatenate(outputs), np.concatenate(labels) if labels else None


def compose(model_or_predict: keras.Model | Callable, function: Callable) -> Callable:
    """`function` of the outputs."""
    if isinstance(model_or_predict, keras.Model):
        predict = predict_function(model_or_predict)
        return lambda images: function(predict(images))
    return lambda images: function(model_or_predict(images))


def _map_labels(batches: Iterable, function: Callable) -> Iterable:
    if isinstance(batches, tf.data.Dataset):
        return batches.map(lambda images, labels, *weights: (images, function(labels), *weights))
    return ((images, function(labels), *weights) for images, labels, *weights in batches)


def _class_numbers(labels: Any) -> tf.Tensor:
    """Class numbers (B,) from those, a column of them, or rows of targets."""
    labels = tf.convert_to_tensor(labels)
    if is_index(labels.shape, (None, None)):
        return tf.cast(tf.reshape(labels, (-1,)), tf.int64)
    return tf.argmax(labels, axis=-1)
