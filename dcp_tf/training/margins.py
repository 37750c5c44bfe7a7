"""Losses with an angular margin for embeddings, such as those of faces: A-Softmax, CosFace, ArcFace.

Each class has a center, a direction in the space of the embeddings. `MarginHead` computes the cosines of the angles
between an embedding and all centers. A margin loss is the softmax cross-entropy of these cosines, with a margin against
the own class, so that an embedding must be closer to its center than a correct classification needs. The head is not
part of the final embedding network.
"""

import abc
import math

import keras
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training.losses import as_targets
from dcp_tf.training.sample_weights import weighted_mean

# A floor under sin^2: near cos = +-1 the derivative of the sine is unbounded, with the floor it stays below 1000.
_SMALLEST_SQUARED_SINE = 1e-6
_ROUNDING = 1e-2  # by how much a cosine may exceed 1, also in half precision


@keras.saving.register_keras_serializable("dcp_tf")
class MarginHead(keras.layers.Layer):
    """The cosines between embeddings (batch, D) and the learned centers of the classes: (batch, num_classes).

    It computes in float32 whatever the precision of the network, as margins need it.

    Args:
        num_classes: how many classes there are.
    """

    def __init__(self, num_classes: int, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if num_classes < 2:
            raise UsageError(f"a margin head needs at least two classes, received {num_classes}")
        self.num_classes = num_classes

    def build(self, input_shape):
        """Creates the centers, (D, num_classes), called `kernel` so that they decay like kernels."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise UsageError(f"a margin head reads embeddings of shape (batch, D), received {tuple(input_shape)}")
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.num_classes), initializer="glorot_uniform"
        )

    def call(self, embeddings):
        """See the class."""
        directions = keras.ops.normalize(embeddings, axis=-1, epsilon=1e-6)
        return keras.ops.matmul(directions, keras.ops.normalize(self.kernel, axis=0, epsilon=1e-6))

    def compute_output_shape(self, input_shape):
        """See the class."""
        return (input_shape[0], self.num_classes)

    def get_config(self):
        """For saving."""
        return {**super().get_config(), "num_classes": self.num_classes}


class MarginLoss(abc.ABC):
    """`-log(exp(s f(c_y)) / (exp(s f(c_y)) + sum over j != y of exp(s c_j)))`, c_j = cos(theta_j), y the own class.

    The margin function f reduces the cosine of the own class. The loss has the form of `dcp_tf.training.losses.Loss`;
    labels are integers (batch,) or (batch, 1), or rows (batch, classes) that sum to 1.

    Attributes:
        scale: s, above 0; it replaces the length of the embedding.
    """

    def __init__(self, scale: float):
        if not scale > 0:
            raise UsageError(f"the scale of a margin loss must be above 0, received {scale}")
        self.scale = float(scale)

    @abc.abstractmethod
    def apply_margin(self, cosines: tf.Tensor) -> tf.Tensor:
        """The margin function f, at most its argument, of any shape; it never rises as the angle grows."""

    def __call__(self, labels, outputs, weights=None) -> tf.Tensor:
        """The mean over the batch, a float32 scalar.

        Args:
            labels: see the class.
            outputs: cosines (batch, classes).
            weights: (batch,), of the samples; None: all 1.

        Raises:
            UsageError: labels and outputs do not fit each other.
            tf.errors.InvalidArgumentError: a label names no class, or the outputs are no cosines.
        """
        cosines = _cosines(outputs)
        targets = as_targets(labels, cosines)
        logits = self.scale * (cosines + targets * (self.apply_margin(cosines) - cosines))
        return weighted_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits), weights)

    def accuracy(self, labels, outputs) -> tf.Tensor:
        """Per image, whether its own class has the largest cosine (without any margin): (batch,) floats."""
        cosines = _cosines(outputs)
        targets = as_targets(labels, cosines)
        return tf.cast(tf.argmax(cosines, axis=-1) == tf.argmax(targets, axis=-1), tf.float32)


class ArcFace(MarginLoss):
    """Additive angular margin: `f = cos(theta + m)` (Deng et al. 2019, eq. 3).

    Beyond `theta = pi - m`, where that would rise again, f continues to fall as `cos(theta) + cos(m) - 1`.

    Args:
        scale: s.
        margin: m, an angle, 0 to pi / 2.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.5):
        super().__init__(scale)
        if not 0 <= margin <= math.pi / 2:
            raise UsageError(f"the margin of ArcFace is an angle from 0 to pi / 2, received {margin}")
        self.margin = float(margin)

    def apply_margin(self, cosines: tf.Tensor) -> tf.Tensor:
        """See the class."""
        sines = tf.sqrt(tf.maximum((1.0 - cosines) * (1.0 + cosines), _SMALLEST_SQUARED_SINE))
        turned = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        return tf.where(cosines > -math.cos(self.margin), turned, cosines + math.cos(self.margin) - 1.0)


class CosFace(MarginLoss):
    """Additive cosine margin: `f = cos(theta) - m` (Wang et al. 2018, "CosFace", eq. 4).

    Args:
        scale: s.
        margin: m, 0 or more.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.35):
        super().__init__(scale)
        if not margin >= 0:
            raise UsageError(f"the margin of CosFace must be 0 or more, received {margin}")
        self.margin = float(margin)

    def apply_margin(self, cosines: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return cosines - self.margin


class ASoftmax(MarginLoss):
    """Multiplicative angular margin (Liu et al. 2017, "SphereFace", eq. 7).

    `f = (lambda cos(theta) + psi) / (1 + lambda)`, where `psi = (-1)^k cos(m theta) - 2 k` for theta between `k pi / m`
    and `(k + 1) pi / m`. The authors reduce lambda from 1000 to 5 during training; networks learn without that if the
    gradient is limited as in `MarginDistance` (`benchmarks/faces.py --scratch_loss=asoftmax`). The scale s is
    constant, where the paper takes the length of each embedding (the authors' later form: Liu et al. 2022, "SphereFace
    Revived").

    Args:
        scale: s.
        margin: m, a whole number from 1.
        weight: lambda, of the cosine itself.
    """

    def __init__(self, scale: float = 30.0, margin: int = 4, weight: float = 5.0):
        super().__init__(scale)
        if margin != int(margin) or margin < 1:
            raise UsageError(f"the margin of A-Softmax must be a whole number from 1, received {margin}")
        if not weight >= 0:
            raise UsageError(f"lambda of A-Softmax must be 0 or more, received {weight}")
        self.margin, self.weight = int(margin), float(weight)

    def apply_margin(self, cosines: tf.Tensor) -> tf.Tensor:
        """See the class."""
        multiple = _chebyshev(self.margin, cosines)
        bounds = [math.cos(k * math.pi / self.margin) for k in range(1, self.margin)]
        piece = tf.add_n([tf.zeros_like(cosines), *(tf.cast(cosines < bound, tf.float32) for bound in bounds)])
        sign = 1.0 - 2.0 * tf.math.floormod(piece, 2.0)
        psi = sign * multiple - 2.0 * piece
        return (self.weight * cosines + psi) / (1.0 + self.weight)


def _chebyshev(order: int, cosines: tf.Tensor) -> tf.Tensor:
    """`cos(order * theta)` as a polynomial of `cos(theta)`, so that its gradient is finite everywhere."""
    before, value = tf.ones_like(cosines), cosines
    for _ in range(order - 1):
        before, value = value, 2.0 * cosines * value - before
    return value


def _cosines(outputs) -> tf.Tensor:
    outputs = tf.cast(tf.convert_to_tensor(outputs), tf.float32)
    if outputs.shape.rank != 2 or outputs.shape[-1] in (None, 1):
        raise UsageError(
            f"Expected cosines of shape (batch, classes), as a MarginHead gives. Received: {outputs.shape}"
        )
    message = "Expected cosines, as a MarginHead gives; the outputs exceed 1"
    check = tf.debugging.assert_less_equal(tf.reduce_max(tf.abs(outputs)), 1.0 + _ROUNDING, message=message)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(outputs)
