"""Auxiliary classifiers that learned nothing are named."""

import re

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf.training import TrainConfig


def network():
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 2))
    for number in range(3):
        x = keras.layers.Conv2D(8, 3, padding="same", name=f"conv{number}")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("learnable", [True, False])
def test_heads_that_learned_nothing_are_named(learnable, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 256)
    images = rng.normal(size=(256, 8, 8, 2)).astype("float32")
    if learnable:
        images += 2 * (labels[:, None, None, None] - 1)
    result = dcp_tf.prune(
        network(),
        (images, labels),
        dcp_tf.DCP(rate=0.5, round_to=1, auxiliary_layers=("conv1",), selection_samples=64, recover=0),
        auxiliary=TrainConfig(epochs=10, batch_size=32, learning_rate=0.05 if learnable else 1e-5),
        finetuning=TrainConfig(epochs=0),
    )
    phase = next(phase for phase in result.history if phase["name"] == "auxiliary")
    line = r"hardly better than a constant answer \(loss 1\.\d*\): the auxiliary classifiers at conv1 \(loss"
    assert phase["heads_at_chance"] == ([] if learnable else ["conv1"])
    assert bool(re.search(line, capsys.readouterr().err)) != learnable


def test_heads_that_were_trained_with_the_model_are_named_by_output_too(capsys):
    rng = np.random.default_rng(0)
    image = network().inputs[0]
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="trunk")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x))
    outputs = {name: keras.layers.Dense(3, name=name)(pooled) for name in ("kind", "color")}
    images = rng.normal(size=(96, 8, 8, 2)).astype("float32")
    labels = {name: rng.integers(0, 3, 96) for name in outputs}
    dcp_tf.prune(
        keras.Model(image, outputs),
        (images, labels),
        dcp_tf.DCP(rate=0.5, round_to=1, recover=0, auxiliary_layers=("trunk",), auxiliary_trains="all"),
        auxiliary=TrainConfig(epochs=1, batch_size=32, learning_rate=1e-6),
        finetuning=None,
        looks_at_baseline=False,
    )
    line = r"hardly better than a constant answer: the auxiliary classifiers at (.*); train"
    idle = re.search(line, capsys.readouterr().err)
    assert re.findall(r"trunk \(loss [\d.]+ for (\w+), a constant answer 1\.\d+\)", idle[1]) == ["color", "kind"]
