"""Layers around another layer: rebuilt equals masked, as for the layer alone."""

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers

from dcp_tf.graph import count_cost

INSIDE = {
    "conv": lambda: layers.Conv2D(6, 3, activation="relu"),
    "transposed": lambda: layers.Conv2DTranspose(6, 3, use_bias=False),
    "dense": lambda: layers.Dense(6),
    "grouped": lambda: layers.Conv2D(6, 3, groups=2),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_spectral_normalization(kind):
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    y = layers.SpectralNormalization(INSIDE[kind](), name="wrapped")(y)
    sizes = {"first": 4, "wrapped": 3} if kind == "grouped" else {"first": 8, "wrapped": 6}
    check(keras.Model(x, layers.Dense(2)(y)), prunable=sizes, save=True)


def test_a_normalized_kernel_trains_after_pruning():
    x = keras.Input((8, 8, 3))
    wrapped = [layers.SpectralNormalization(layers.Conv2D(6, 3), name=name) for name in ("first", "second")]
    _, small = check(keras.Model(x, layers.Dense(2)(layers.Flatten()(wrapped[1](wrapped[0](x))))))
    small.compile("sgd", "mse")
    small.fit(np.ones((4, 8, 8, 3)), np.ones((4, 2)), verbose=0)
    kernel = np.asarray(small.get_layer("second").layer.kernel)
    assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) < 3


def test_a_shared_normalized_layer():
    x = keras.Input((8, 8, 6))
    layer = layers.SpectralNormalization(layers.Conv2D(6, 3, padding="same"), name="wrapped")
    y = layer(layers.Conv2D(6, 1, name="first")(x))
    check(keras.Model(x, layers.Dense(2)(layer(y))), prunable={"first": 6}, save=True)


@pytest.mark.parametrize("steps", [5, None])
@pytest.mark.parametrize("kind", INSIDE)
def test_a_layer_of_each_step(kind, steps):
    x = keras.Input((steps, 8, 8, 3))
    y = layers.TimeDistributed(layers.Conv2D(8, 3), name="first")(x)
    y = layers.TimeDistributed(layers.BatchNormalization())(y)
    y = layers.TimeDistributed(layers.MaxPooling2D())(y)
    y = layers.TimeDistributed(INSIDE[kind](), name="wrapped")(y)
    y = layers.TimeDistributed(layers.Flatten())(y)
    y = layers.LSTM(4, name="read")(y)
    model = keras.Model(x, layers.Dense(2)(y))
    sizes = {"first": 4, "wrapped": 3} if kind == "grouped" else {"first": 8, "wrapped": 6}
    given = np.random.default_rng(0).normal(size=(2, 5, 8, 8, 3)).astype("float32")
    check(model, given, prunable={**sizes, "read": 4}, save=steps is None)


def test_multiply_accumulates_of_each_step():
    x = keras.Input((5, 8, 8, 3))
    model = keras.Model(x, layers.TimeDistributed(layers.Conv2D(6, 3))(x))
    assert count_cost(model).macs == 5 * 6 * 6 * 9 * 3 * 6


def test_what_has_no_rule_inside_of_a_wrapper_pins():
    class Summed(layers.Layer):
        def call(self, inputs):
            return keras.ops.cumsum(inputs, axis=-1)

        def compute_output_shape(self, input_shape):
            return input_shape

    x = keras.Input((5, 8, 3))
    y = layers.Conv2D(8, 3, name="first")(x)
    for wrapper in (layers.TimeDistributed(Summed(), name="odd"), layers.Pipeline([Summed()], name="odd")):
        model = keras.Model(x, layers.Dense(2)(wrapper(y)))
        graph, _ = check(model, shrinks=False)
        assert "odd (Summed)" in graph.group("first").pinned_because
