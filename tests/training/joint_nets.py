"""Small models with several outputs, and data for them."""

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.models.signature import output_names
from dcp_tf.training import seed_everything

RNG = np.random.default_rng(0)
N = 12
INPUTS = RNG.normal(size=(N, 8, 8, 3)).astype("float32")
LABELS = {
    "classes": RNG.integers(0, 3, N).astype("int32"),
    "boxes": RNG.normal(size=(N, 4)).astype("float32"),
    "mask": RNG.integers(0, 2, (N, 8, 8, 1)).astype("float32"),
}
WEIGHTS = {name: RNG.uniform(0.2, 3.0, N).astype("float32") for name in LABELS}


def branching(outputs=("classes", "boxes", "mask"), *, seed=0):
    """Two convolutions with BatchNormalization; logits of classes, numbers, and a map of probabilities."""
    seed_everything(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="first")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.ReLU(name="trunk")(keras.layers.Conv2D(5, 3, padding="same", name="second")(x))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    made = {
        "classes": lambda: keras.layers.Dense(3, name="classes")(pooled),
        "boxes": lambda: keras.layers.Dense(4, name="boxes")(pooled),
        "mask": lambda: keras.layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x),
    }
    tensors = [made[name]() for name in outputs]
    model = keras.Model(inputs, tensors[0] if len(tensors) == 1 else tuple(tensors), name="branching")
    assert output_names(model) == tuple(outputs)
    return model


class NamedSplit:
    """Arrays as a split that is bound to a model with several outputs."""

    shape, shapes, size = (8, 8, 3), [(8, 8, 3)], N

    def __init__(self, labels=LABELS, weights=None, inputs=INPUTS):
        self.inputs, self.labels, self.weights = inputs, labels, weights

    def converted(self, function):
        inputs, labels, weights = function(self.inputs, self.labels, self.weights)
        return NamedSplit(labels, weights, inputs)

    def batches(self, batch_size, *, indices=None, **order):
        parts = tuple(part for part in (self.inputs, self.labels, self.weights) if part is not None)
        chosen = np.arange(N) if indices is None else np.asarray(indices)
        arrays = tf.nest.map_structure(lambda array: array[chosen], parts if len(parts) > 1 else parts[0])
        return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)

    def balanced_subset(self, n, seed=0):
        return np.arange(min(n, N))
