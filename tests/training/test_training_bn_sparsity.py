"""Network slimming's sparsity training: the L1 norm of BatchNormalization's scales in the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.training import ClassificationLoss, TrainConfig, fit


def net(norm=True):
    keras.utils.set_random_seed(0)
    image = keras.Input((4,))
    x = keras.layers.Dense(8, name="wide")(image)
    x = keras.layers.BatchNormalization(name="norm")(x) if norm else x
    x = keras.layers.BatchNormalization(name="frozen", trainable=False)(x) if norm else x
    x = keras.layers.ReLU()(x)
    return keras.Model(image, keras.layers.Dense(2, name="out")(x))


def train(model, sparsity, epochs=1, **settings):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 4)).astype(np.float32)
    labels = (images[:, 0] > 0).astype(np.int32)
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(32)
    given = {"learning_rate": 0.1, "momentum": 0.0, "nesterov": False, "schedule": "step", "boundaries": (), **settings}
    config = TrainConfig(epochs=epochs, weight_decay=0.0, bn_sparsity=sparsity, **given)
    fit(model, lambda epoch: batches, [ClassificationLoss("logits")], config)
    return {v.path: v.numpy() for v in model.trainable_variables}


def test_one_step_adds_the_subgradient_to_gammas_alone():
    signs = np.where(np.arange(8) % 2, 1.0, -1.0)
    trained = []
    for sparsity in (0.0, 0.5):
        model = net()
        model.get_layer("norm").gamma.assign(0.7 * signs)
        trained.append(train(model, sparsity))
    for path in trained[0]:
        expected = 0.1 * 0.5 * signs if path == "norm/gamma" else 0.0
        np.testing.assert_allclose(trained[0][path] - trained[1][path], expected, atol=1e-6, err_msg=path)


def test_gammas_shrink_the_more_the_larger_the_factor():
    sums = [np.abs(train(net(), s, epochs=30)["norm/gamma"]).sum() for s in (0.0, 0.01, 0.1)]
    assert sums[0] > sums[1] > sums[2]


def test_a_model_without_scales_and_a_negative_factor_are_refused():
    with pytest.raises(UsageError, match="needs BatchNormalization"):
        train(net(norm=False), 1e-4)
    with pytest.raises(UsageError, match="bn_sparsity must be 0 or more"):
        TrainConfig(epochs=1, bn_sparsity=-1.0)
