"""Statistics that are brought in line with what training sees: the model computes what it did, in both modes."""

import keras
import numpy as np
import pytest

from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.recovery.statistics import match_statistics

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype("float32")


def disturbed(norm, axis=-1):
    """A net whose stored statistics say something else than its images."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(5, 3, padding="same")(inputs)
    x = L.ReLU()(norm(x))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(x)))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.1, 3, size=layer.moving_variance.shape))
    return model


@pytest.mark.parametrize(
    "settings", [{}, {"scale": False}, {"center": False}, {"axis": 2}], ids=["plain", "no gamma", "no beta", "rows"]
)
def test_the_function_in_inference_stays(settings):
    model = disturbed(L.BatchNormalization(**settings))
    before = model(IMAGES, training=False).numpy()
    match_statistics(ChannelGraph(model).trace, [[IMAGES[:40]], [IMAGES[40:]]])
    np.testing.assert_allclose(model(IMAGES, training=False).numpy(), before, rtol=1e-3, atol=1e-4)


def test_training_mode_computes_the_same_afterwards():
    model = disturbed(L.BatchNormalization())
    wrong = abs(model(IMAGES, training=True) - model(IMAGES, training=False)).numpy().max()
    statistics = [w.numpy() for w in model.non_trainable_variables]
    assert match_statistics(ChannelGraph(model).trace, [[IMAGES[:40]], [IMAGES[40:]]]) == 2
    before = model(IMAGES, training=False).numpy()
    np.testing.assert_allclose(model(IMAGES, training=True).numpy(), before, rtol=1e-3, atol=1e-4)
    assert wrong > 0.1
    assert any((a != b.numpy()).any() for a, b in zip(statistics, model.non_trainable_variables, strict=True))


def test_a_layer_that_is_called_twice_stays_as_it_is():
    keras.utils.set_random_seed(1)
    norm, inputs = L.BatchNormalization(), keras.Input((6, 6, 3))
    norm.build((None, 6, 6, 3))
    before = [w.numpy() for w in norm.weights]
    model = keras.Model(inputs, L.Add()([norm(inputs), norm(inputs * 2.0)]))
    assert match_statistics(ChannelGraph(model).trace, [[IMAGES]]) == 0
    for a, b in zip(before, norm.weights, strict=True):
        np.testing.assert_array_equal(a, b.numpy())
