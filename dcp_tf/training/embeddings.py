"""The objective of embedding models: losses with an angular margin over classes that are not outputs."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.evaluation import recall_at_1
from dcp_tf.settings.data import MARGINS as NAMES
from dcp_tf.training.head_layers import pooled_head
from dcp_tf.training.margins import ArcFace, ASoftmax, CosFace, MarginHead, MarginLoss
from dcp_tf.training.objectives import Objective, predictions
from dcp_tf.training.sample_weights import weighted_mean

MARGINS = dict(zip(NAMES, (ArcFace, CosFace, ASoftmax), strict=True))
_PER_CLASS = 16  # images whose mean embedding initializes the center of a class


class _OfEmbeddings(Objective):
    """What objectives of embeddings share."""

    primary = "recall_at_1"
    fidelity, output_type = "cosine", "embeddings"

    def evaluate(self, model_or_predict, batches):
        """See `Objective`: how often the nearest other image is of the same class."""
        return recall_at_1(model_or_predict, batches)


@dataclasses.dataclass(frozen=True)
class Embedding(_OfEmbeddings):
    """Embeddings (batch, D) that a margin loss pulls to the centers of their classes (Liu et al. 2021, 4.5).

    The centers are not part of the model. In a trained network they begin at the mean directions of the embeddings of
    each class, which generalizes better than learning them with the model frozen. In a network with random weights
    all embeddings point nearly the same way, so its centers begin randomly (docs/decisions/032).

    Attributes:
        name: "arcface", "cosface" or "asoftmax".
        margin: the loss; None: the one of the name with the settings of its paper.
        classes: their number; `bind` sets it.
    """

    name: str = "arcface"
    margin: MarginLoss | None = dataclasses.field(default=None, compare=False, repr=False)
    classes: int = 0

    def __post_init__(self):
        if self.name not in MARGINS:
            raise UsageError(f"unknown margin loss {self.name!r}; choose one of {', '.join(MARGINS)}")
        if self.margin is None:
            object.__setattr__(self, "margin", MARGINS[self.name]())

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`."""
        if data.labels is None:
            raise UsageError(f"{what} has no labels, which a margin loss needs")
        self.check(data.labels, shape, what)
        classes = int(data.labels.max()) + 1
        if classes < 2:
            raise UsageError(f"{what} has one class; a margin loss needs two or more")
        return dataclasses.replace(self, classes=classes)

    def check(self, labels, shape, what="the data"):
        """See `Objective`; other images may show other classes than the training images."""
        if len(shape) != 2:
            raise UsageError(f"margin losses need outputs (N, D), one embedding an image; the model gives {shape}")
        if labels is None:
            return
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise UsageError(
                f"{what} has labels of the type {labels.dtype} and the shape {labels.shape}; margin losses need one "
                "class number from 0 for each image"
            )

    @property
    def loss(self) -> "MarginDistance":
        """See `Objective`: of the output of the `loss_head`."""
        return MarginDistance(self.margin, self.classes)

    head_loss = loss

    def head(self, name, shape, output_shape, data_format):
        """See `Objective`: an embedding and centers of its own."""
        head = pooled_head(name, shape, output_shape[-1], data_format)
        cosines = MarginHead(self.classes, name=f"{name}_centres")(head.outputs[0])
        return keras.Model(head.inputs[0], cosines, name=name)

    def loss_head(self, model, data):
        """See `Objective`: the cosines with the class centers, then the direction, (batch, classes + D)."""
        embedding = keras.Input(batch_shape=model.outputs[0].shape, dtype=model.outputs[0].dtype)
        head = MarginHead(self.classes, name="margin_head")
        direction = keras.layers.UnitNormalization(dtype="float32", name="direction")(embedding)
        both = keras.layers.Concatenate(dtype="float32", name="cosines_and_direction")([head(embedding), direction])
        loss_head = keras.Model(embedding, both, name="ending")
        if data is None:
            return loss_head
        embeddings, labels = predictions(model, data, _PER_CLASS * self.classes)
        directions = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        sums = np.zeros((self.classes, directions.shape[1]), np.float32)
        np.add.at(sums, np.reshape(labels, (-1,)), directions)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A class without images has a random center, always the same one, as cosines are compared.
        random = np.random.default_rng(0).normal(size=sums.shape)
        random /= np.linalg.norm(random, axis=1, keepdims=True)
        centers = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), random)
        head.kernel.assign(centers.T)
        return loss_head

    def describe(self):
        """See `Objective`."""
        return f"{type(self.margin).__name__} over {self.classes} classes"

    def __repr__(self) -> str:
        return f"Embedding({self.loss!r}, classes={self.classes})"


@dataclasses.dataclass(frozen=True)
class Directions(_OfEmbeddings):
    """Embeddings (batch, D) of images without labels: the targets are the directions of the baseline's."""

    name = "directions"

    def bind(self, shape, data, model=None, what="the data"):
        """See `Objective`."""
        self.check(data.labels, shape, what)
        return self

    def check(self, labels, shape, what="the data"):
        """See `Objective`; only `evaluate` uses class numbers."""
        if len(shape) != 2 or shape[-1] < 2:
            raise UsageError(f"embeddings have the shape (N, D), one for an image; the model gives {shape}")

    @property
    def loss(self) -> "DirectionLoss":
        """See `Objective`."""
        return DirectionLoss()

    head_loss = loss

    def head(self, name, shape, output_shape, data_format):
        """See `Objective`: an embedding of its own."""
        return pooled_head(name, shape, output_shape[-1], data_format)

    def describe(self):
        """See `Objective`."""
        return "distance from the directions of the baseline's embeddings"


@dataclasses.dataclass(frozen=True)
class DirectionLoss:
    """The mean of `|u - v|^2 = 2 - 2 cos`, u and v being embeddings scaled to the length 1."""

    def __call__(self, labels, outputs, weights=None):
        """See `dcp_tf.training.Loss`; labels are embeddings, too."""
        return weighted_mean(tf.reduce_sum(tf.square(_direction(labels) - _direction(outputs)), -1), weights)

    def distance(self, teacher_outputs, outputs, temperature: float, weights=None):
        """See `dcp_tf.training.Loss`; the temperature is not used."""
        return self(teacher_outputs, outputs, weights)

    def sampled(self, outputs, seed):
        """See `dcp_tf.training.Loss`: for u + e / sqrt(2) in place of v, e normal."""
        directions = _direction(outputs)
        targets = directions + np.sqrt(0.5) * tf.random.stateless_normal(tf.shape(directions), seed)
        return tf.reduce_sum(tf.square(tf.stop_gradient(targets) - directions))


def _direction(embeddings):
    return tf.math.l2_normalize(tf.cast(tf.convert_to_tensor(embeddings), tf.float32), axis=-1)


class MarginDistance:
    """A margin loss that can also learn from a teacher.

    Args:
        margin: the loss of labels and cosines.
        classes: their number. Outputs are their cosines (batch, classes), as of auxiliary heads, or cosines and
            directions (batch, classes + D), as of the loss head of an `Embedding`.

    Attributes:
        clip_norm: see `dcp_tf.training.Loss`. The scale multiplies each gradient. Without a limit the first steps
            lengthen the embeddings of a network without BatchNormalization so much that it learns nothing afterwards,
            since their gradient falls with their length (docs/decisions/031).
    """

    accuracy_name = "class_accuracy"
    clip_norm = 1.0

    def __init__(self, margin: MarginLoss, classes: int):
        self._margin, self._classes = margin, classes

    def __call__(self, labels, outputs, weights=None):
        """See `dcp_tf.training.Loss`."""
        cosines = outputs[:, : self._classes]
        return self._margin(labels, cosines) if weights is None else self._margin(labels, cosines, weights)

    def accuracy(self, labels, outputs):
        """See `dcp_tf.training.Loss`."""
        return self._margin.accuracy(labels, outputs[:, : self._classes])

    def distance(self, teacher_outputs, outputs, temperature: float, weights=None):
        """See `dcp_tf.training.Loss`: the mean of `s (1 - cos)` of the angle between the two directions.

        With the scale s of the margin loss it is in the units of its logits. Directions teach more than the cosines
        with the class centers (docs/decisions/030). The temperature is not used.
        """
        teacher_outputs, outputs = (tf.cast(x, tf.float32)[:, self._classes :] for x in (teacher_outputs, outputs))
        return self._margin.scale * weighted_mean(1.0 - tf.reduce_sum(teacher_outputs * outputs, axis=-1), weights)

    def __repr__(self) -> str:
        settings = {name: value for name, value in vars(self._margin).items() if not name.startswith("_")}
        return f"MarginDistance({type(self._margin).__name__}, {settings})"
