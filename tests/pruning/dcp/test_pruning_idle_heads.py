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
        dcp_tf.DCP(rate=0.5, round_to=1, auxiliary_layers=("conv1",), selection_samples=64),
        auxiliary=TrainConfig(epochs=10, batch_size=32, learning_rate=0.05 if learnable else 1e-5),
        finetuning=TrainConfig(epochs=0),
    )
    phase = next(phase for phase in result.history if phase["name"] == "auxiliary")
    line = r"hardly better than a constant answer \(loss 1\.\d*\): the auxiliary classifiers at conv1 \(loss"
    assert phase["heads_at_chance"] == ([] if learnable else ["conv1"])
    assert bool(re.search(line, capsys.readouterr().err)) != learnable
