"""The moving average of a model's weights."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf


class MovingAverage:
    """`a = d a + (1 - d) w` after each step t, with `d = min(decay, (1 + t) / (10 + t))`, for all weights of a model.

    BatchNormalization's running statistics are averaged with the weights that they belong to.

    Args:
        model: its weights now are where the averages begin.
        decay: above 0 and below 1.
    """

    def __init__(self, model: keras.Model, decay: float):
        self._decay = decay
        self._places = [i for i, v in enumerate(model.variables) if tf.as_dtype(v.dtype).is_floating]
        self._weights = [model.variables[i] for i in self._places]
        self._averages = [
            keras.Variable(v.numpy(), trainable=False, dtype=v.dtype, name="average") for v in self._weights
        ]
        self._step = keras.Variable(0, trainable=False, dtype="int32", name="average_step")

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs."""
        return [self._step, *self._averages]

    def begin(self) -> None:
        """Sets the averages to the weights as they are now, unless steps were made."""
        if not int(self._step.numpy()):
            for average, weight in zip(self._averages, self._weights, strict=True):
                average.assign(weight.numpy())

    def update(self) -> None:
        """Takes up the weights after a step; runs inside the compiled step."""
        self._step.value.assign_add(1)
        step = tf.cast(tf.convert_to_tensor(self._step.value), tf.float32)
        decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self._averages, self._weights, strict=True):
            old, new = tf.convert_to_tensor(average.value), tf.convert_to_tensor(weight.value)
            average.value.assign(old + tf.cast(1.0 - decay, new.dtype) * (new - old))

    def put_into(self, model: keras.Model) -> None:
        """Gives a model of the same form the averages for weights."""
        for place, average in zip(self._places, self._averages, strict=True):
            model.variables[place].assign(average.numpy())

    @contextlib.contextmanager
    def within(self, model: keras.Model) -> Iterator[None]:
        """Lets a model have the averages for weights for a while."""
        before = [model.variables[place].numpy() for place in self._places]
        self.put_into(model)
        try:
            yield
        finally:
            for place, value in zip(self._places, before, strict=True):
                model.variables[place].assign(value)
