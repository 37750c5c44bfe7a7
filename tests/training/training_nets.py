"""Small models and data on which the promises of fit are tested."""

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.training import ClassificationLoss, TrainConfig, seed_everything

LOGITS = ClassificationLoss("logits")
IMAGES = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, 40).astype("int32")


def plain(epochs=1, **settings):
    """A constant rate and nothing else, unless said."""
    defaults = {"schedule": "step", "boundaries": (), "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    return TrainConfig(epochs=epochs, **{**defaults, **settings})


def batches(images=IMAGES, labels=LABELS, size=16):
    arrays = images if labels is None else (images, labels)
    return lambda epoch: tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def convolutional(*, dropout=0.0, heads=1, seed=0):
    """Convolution, BatchNormalization, PReLU, depthwise convolution, and one head or two."""
    seed_everything(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.PReLU(shared_axes=(1, 2), name="act")(x)
    early = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(dropout)(x)
    final = keras.layers.Dense(3, name="final")(x)
    outputs = [final] if heads == 1 else [keras.layers.Dense(3, name="early")(early), final]
    return keras.Model(inputs, outputs)


def linear(features=5, classes=3):
    """A single fully connected layer, for which NumPy can do the same step."""
    seed_everything(1)
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(classes, bias_initializer="normal")])


def values(model):
    return {v.path: v.numpy() for v in model.weights}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)
