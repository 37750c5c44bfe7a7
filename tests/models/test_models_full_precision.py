"""Models built for 16 bits compute in float32 afterwards, with the weights, names and frozen layers that they had."""

import keras
import numpy as np
import pytest
from keras import layers

from dcp_tf import models, tflite
from dcp_tf.graph import ChannelGraph

POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]


def network(policy):
    """As a user's script builds it: the global policy, a nested model, a frozen layer, the last one in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inner = layers.Conv2D(5, 3, padding="same", name="inner")
        norm = layers.BatchNormalization(name="norm")
        inside = keras.Sequential([keras.Input((6, 6, 4)), inner, norm], name="inside")
        inner.trainable = False
        x = keras.Input((6, 6, 3), name="image", dtype="float32")
        y = keras.ops.relu(inside(layers.Conv2D(4, 3, padding="same", name="first")(x)))
        y = layers.Reshape((36, 5))(y) * 0.5
        y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
        y = layers.GlobalAveragePooling1D()(y)
        return keras.Model(x, layers.Dense(3, activation="softmax", dtype="float32", name="last")(y), name="network")
    finally:
        keras.config.set_dtype_policy(before)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")


@pytest.mark.parametrize("policy", POLICIES)
def test_it_computes_what_the_same_network_in_float32_computes(policy, images):
    model, plain = network(policy), network("float32")
    wide = models.in_full_precision(model)
    plain.set_weights(model.get_weights())
    np.testing.assert_array_equal(wide(images), plain(images))
    assert {layer.compute_dtype for layer in wide._flatten_layers()} == {"float32"}
    assert {weight.dtype for weight in wide.weights} == {"float32"}
    np.testing.assert_allclose(model(images), wide(images), atol=0.05)
    assert [(w.name, w.trainable) for w in wide.weights] == [(w.name, w.trainable) for w in model.weights]
    assert ChannelGraph(wide).fingerprint() == ChannelGraph(model).fingerprint()
    assert model.get_layer("first").compute_dtype in policy  # the one that was given stays


def test_a_model_in_float32_is_not_built_anew():
    model = network("float32")
    assert models.in_full_precision(model) is model


def test_a_file_is_loaded_in_float32_with_a_line_and_can_be_converted(images, tmp_path, capsys):
    network("mixed_float16").save(tmp_path / "half.keras")
    loaded = models.load(str(tmp_path / "half.keras")).model
    assert "uses mixed precision; its layers now compute in float32" in capsys.readouterr().err
    assert tflite.check_parity(tflite.convert(loaded), loaded, images).max_error < 1e-5
