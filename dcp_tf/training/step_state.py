"""What a training step keeps besides the weights and the optimizer: the scale of the loss, averages of the weights."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

_FIRST_SCALE = 2.0**15
_STEPS_TO_GROW = 2000


class LossScale:
    """A factor of the loss that halves when a gradient overflows, and doubles after 2000 steps without overflow.

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


class MovingAverage:
    """`a = d a + (1 - d) w` after each step t, with `d = min(decay, (1 + t) / (10 + t))`, for all weights of a model.

    BatchNormalization's running statistics are averaged with the weights that they belong to.

    Args:
        model: its weights now are where the averages begin.
        decay: above 0 and below 1.
    """

    def __init__(self, model: keras.Model, decay: float):
        self._decay = decay
        self._indices = [i for i, v in enumerate(model.variables) if tf.as_dtype(v.dtype).is_floating]
        self._weights = [model.variables[i] for i in self._indices]
        self._averages = [
            keras.Variable(v.numpy(), trainable=False, dtype=v.dtype, name="average") for v in self._weights
        ]
        self._step = keras.Variable(0, trainable=False, dtype="int32", name="average_step")

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs."""
        return [self._step, *self._averages]

    def begin(self) -> None:
        """Sets the averages to the present weights, unless steps were made."""
        if not int(self._step.numpy()):
            for average, weight in zip(self._averages, self._weights, strict=True):
                average.assign(weight.numpy())

    def update(self) -> None:
        """Averages in the weights after a step; runs inside the compiled step."""
        self._step.value.assign_add(1)
        step = tf.cast(tf.convert_to_tensor(self._step.value), tf.float32)
        decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self._averages, self._weights, strict=True):
            old, new = tf.convert_to_tensor(average.value), tf.convert_to_tensor(weight.value)
            average.value.assign(old + tf.cast(1.0 - decay, new.dtype) * (new - old))

    def put_into(self, model: keras.Model) -> None:
        """Sets the weights of a model of the same form to the averages."""
        for index, average in zip(self._indices, self._averages, strict=True):
            model.variables[index].assign(average.numpy())

    @contextlib.contextmanager
    def within(self, model: keras.Model) -> Iterator[None]:
        """Sets the weights to the averages inside of a `with`."""
        originals = [model.variables[index].numpy() for index in self._indices]
        self.put_into(model)
        try:
            yield
        finally:
            for index, value in zip(self._indices, originals, strict=True):
                model.variables[index].assign(value)
