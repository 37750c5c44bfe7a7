"""Keras 2 models for tests, and what their conversions have to equal."""

import keras
import numpy as np
import tensorflow as tf
import tf_keras


def model_of(function, shape=(8, 8, 4)):
    """A functional Keras 2 model of one input, with random weights everywhere (BatchNormalization's too)."""
    inputs = tf_keras.Input(shape)
    return randomized(tf_keras.Model(inputs, function(inputs)))


def randomized(model):
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype.is_floating:
            weight.assign(random.uniform(0.1, 0.9, weight.shape))
    return model


def images_for(model):
    random = np.random.default_rng(2)
    return [random.uniform(0, 1, (3, *t.shape[1:])).astype(t.dtype.as_numpy_dtype) for t in model.inputs]


def assert_same(old, new):
    assert isinstance(new, keras.Model)
    images = images_for(old)
    given = images if len(images) > 1 else images[0]
    pairs = zip(*(tf.nest.flatten(model(given, training=False)) for model in (old, new)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-5, atol=1e-5 * np.abs(a).max())
