"""Mixed precision: layers compute in 16 bits, weights, losses and updates stay in 32."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from dcp_tf.training.attributes import override_attribute

_FIRST_SCALE = 2.0**15
_STEPS_TO_GROW = 2000


@contextlib.contextmanager
def compute_dtype_scope(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the layers of a model compute in `precision` while it is traced; each has its own policy back afterwards.

    Layers that make the model's outputs stay as they are: softmax and losses need float32's range. So do layers that
    were not made for float32.
    """
    if precision == "float32":
        yield
        return
    last, policy = _last(model), keras.DTypePolicy(f"mixed_{precision}")
    layers = [
        layer
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.Model) and id(layer) not in last and layer.dtype_policy.name == "float32"
    ]
    with override_attribute(layers, "dtype_policy", policy):
        yield


def _last(model: keras.Model) -> set[int]:
    """`id()` of the operations that make a model's outputs; of models among them, those that make theirs."""
    found = set()
    for output in keras.tree.flatten(model.outputs):
        operation = output._keras_history.operation
        found |= _last(operation) if isinstance(operation, keras.Model) and operation is not model else {id(operation)}
    return found


class LossScale:
    """A factor of the loss that falls by half when a gradient overflows, and doubles after 2000 steps without that.

    A step whose gradients overflow changes no weight (Micikevicius et al. 2018, arXiv:1710.03740).
    """

    def __init__(self):
        self._scale = keras.Variable(_FIRST_SCALE, trainable=False, dtype="float32", name="loss_scale")
        self._good = keras.Variable(0, trainable=False, dtype="int32", name="steps_without_overflow")

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs."""
        return [self._scale, self._good]

    def __call__(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss scaled up."""
        return loss * self._scale.value

    def unscale(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients of the loss itself, and whether all are finite; looks at each step once."""
        gradients = [g / tf.convert_to_tensor(self._scale.value) for g in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        good = tf.where(finite, tf.convert_to_tensor(self._good.value) + 1, 0)
        grows = good >= _STEPS_TO_GROW
        factor = tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5)
        self._scale.value.assign(tf.maximum(1.0, tf.convert_to_tensor(self._scale.value) * factor))
        self._good.value.assign(tf.where(grows, 0, good))
        return gradients, finite
