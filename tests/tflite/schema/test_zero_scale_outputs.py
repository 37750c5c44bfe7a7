"""Layers that never answer: integer files of them are refused in words that say which and what to do."""

import keras
import numpy as np
import pytest
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import RunError
from dcp_tf.tflite.schema.zero_scale_outputs import zero_scale_outputs


def converted(bias):
    """A convolution whose ReLU lets nothing pass if `bias` is very negative."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    conv = layers.Conv2D(8, 3, padding="same", activation="relu", name="silent")
    x = layers.Conv2D(8, 1)(conv(layers.Conv2D(8, 1)(image)))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    conv.bias.assign(np.full(8, bias))
    images = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)
    return tflite.convert(model, "int8", representative_data=images), images


def test_the_layer_that_is_always_zero_is_named():
    file, _ = converted(-1000.0)
    assert len(zero_scale_outputs(file.content)) == 1
    with pytest.raises(RunError, match=r"all calibration images give zero: CONV_2D \(.*silent.*\); calibrate with"):
        tflite.Runner(file)
    found = tflite.unsupported_operations(file)
    assert len(found) == 1
    assert "all calibration images give zero" in found[0]
    assert "silent" in found[0]


def test_layers_that_answer_are_not():
    file, images = converted(0.0)
    assert zero_scale_outputs(file.content) == []
    assert np.isfinite(tflite.Runner(file).predict(images[:2])).all()
