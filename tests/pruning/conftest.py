import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf

hypothesis.settings.register_profile("pruning", deadline=None, derandomize=True, max_examples=100)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits as ((images, labels) to learn from, (images, labels) to measure on)."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8, 1) / 16).astype("float32")
    labels = labels.astype("int32")
    return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


@pytest.fixture(scope="session")
def trained(digits):
    """A small convolutional network that knows the digits; tests leave it as it is."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1), name="image")])
    for number, (filters, stride) in enumerate([(16, 1), (24, 2), (32, 1), (32, 2)], start=1):
        model.add(layers.Conv2D(filters, 3, stride, padding="same", use_bias=False, name=f"conv{number}"))
        model.add(layers.BatchNormalization(momentum=0.9, name=f"norm{number}"))
        model.add(layers.ReLU(name=f"relu{number}"))
    model.add(layers.GlobalAveragePooling2D(name="pool"))
    model.add(layers.Dense(10, name="logits"))
    from dcp_tf.training import ClassificationLoss, TrainConfig, fit

    (images, labels), _ = digits

    def batches(epoch):
        data = tf.data.Dataset.from_tensor_slices((images, labels))
        return data.shuffle(1400, seed=epoch).batch(64, drop_remainder=True)

    fit(model, batches, [ClassificationLoss("logits")], TrainConfig(epochs=6, learning_rate=0.1))
    return model


@pytest.fixture(autouse=True)
def short_recovery(monkeypatch):
    """Of the weights after surgery; the tests of the recovery itself have it whole."""
    monkeypatch.setattr("dcp_tf.pruning.recovery.block_outputs._LEAST_STEPS", 12)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
