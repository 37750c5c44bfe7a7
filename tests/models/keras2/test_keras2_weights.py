"""Recurrent layers, wrappers and `hard_sigmoid` of Keras 2: equal outputs in Keras 3, also of files."""

import keras
import numpy as np
import pytest
import tf_keras
from keras2_nets import assert_same, model_of
from tf_keras import layers

from dcp_tf import models
from dcp_tf.graph import ChannelGraph

HARD = "hard_sigmoid"


def sequence(x):
    return layers.Reshape((-1, 4))(x[:, :2, :3])


def frames(x):
    return layers.Reshape((2, 4, 8, 4))(x)


def steps_model():
    stack = [layers.Conv1D(3, 3, activation=HARD), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)]
    return tf_keras.Sequential([layers.Input((8, 4)), *stack])


LAYERS = {
    "both directions of all steps": lambda x: layers.Bidirectional(layers.LSTM(3, return_sequences=True))(sequence(x)),
    "both directions, GRU": lambda x: layers.Bidirectional(
        layers.GRU(3, return_sequences=True, recurrent_activation=HARD)
    )(sequence(x)),
    "both directions, SimpleRNN": lambda x: layers.Bidirectional(
        layers.SimpleRNN(3, return_sequences=True, activation=HARD), merge_mode="sum"
    )(sequence(x)),
    "both directions, ConvLSTM": lambda x: layers.Bidirectional(layers.ConvLSTM1D(3, 3, return_sequences=True))(x),
    "both directions, a cell": lambda x: layers.Bidirectional(layers.RNN(layers.LSTMCell(3), return_sequences=True))(
        sequence(x)
    ),
    "both directions, masked": lambda x: layers.Bidirectional(layers.LSTM(3, return_sequences=True))(
        layers.Embedding(5, 3, mask_zero=True)(x[:, :5, 0, 0])
    ),
    "zeros for masked steps": lambda x: layers.LSTM(3, return_sequences=True, zero_output_for_mask=True)(
        layers.Embedding(5, 3, mask_zero=True)(x[:, :5, 0, 0])
    ),
    "LSTM": lambda x: layers.LSTM(3, recurrent_activation=HARD)(sequence(x)),
    "LSTM without bias": lambda x: layers.LSTM(3, recurrent_activation=HARD, use_bias=False)(sequence(x)),
    "LSTM, hard state": lambda x: layers.LSTM(3, activation=HARD)(sequence(x)),
    "LSTM, both hard": lambda x: layers.LSTM(3, activation=HARD, recurrent_activation=HARD)(sequence(x)),
    "GRU, reset after": lambda x: layers.GRU(3, activation=HARD, recurrent_activation=HARD)(sequence(x)),
    "GRU, reset before": lambda x: layers.GRU(3, recurrent_activation=HARD, reset_after=False)(sequence(x)),
    "ConvLSTM1D": lambda x: layers.ConvLSTM1D(3, 3, recurrent_activation=HARD)(x),
    "ConvLSTM2D": lambda x: layers.ConvLSTM2D(3, 3, recurrent_activation=HARD)(frames(x)),
    "ConvLSTM2D, hard state": lambda x: layers.ConvLSTM2D(3, 3, activation=HARD)(frames(x)),
    "ConvLSTM3D": lambda x: layers.ConvLSTM3D(3, 2, recurrent_activation=HARD)(layers.Reshape((2, 4, 4, 2, 4))(x)),
    "cells": lambda x: layers.RNN([layers.LSTMCell(3, recurrent_activation=HARD), layers.GRUCell(4)])(sequence(x)),
    "stacked cells": lambda x: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.LSTMCell(3)]))(
        sequence(x)
    ),
    "Conv2D": lambda x: layers.BatchNormalization()(layers.Conv2D(3, 3, activation=HARD)(x)),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(3, 3, activation=HARD, use_bias=False)(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3, activation=HARD)(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(3, 3, activation=HARD)(x),
    "EinsumDense": lambda x: layers.EinsumDense("abcd,de->abce", (None, 8, 3), activation=HARD, bias_axes="e")(x),
    "Dense of each step": lambda x: layers.TimeDistributed(layers.Dense(3, activation=HARD))(x),
    "a model of each step": lambda x: layers.TimeDistributed(steps_model())(x),
}


def encoder_and_decoder(x):
    _, *states = layers.LSTM(3, return_state=True, recurrent_activation=HARD)(sequence(x))
    return layers.LSTM(3, return_sequences=True)(sequence(x) * 0.5, initial_state=states)


def both_directions_handed_on(x):
    y, *states = layers.Bidirectional(layers.GRU(3, return_state=True, return_sequences=True))(sequence(x))
    return layers.Bidirectional(layers.GRU(3))(y, initial_state=states)


def cells_handed_on(x):
    cells = [[layers.LSTMCell(3), layers.GRUCell(2)] for _ in range(2)]
    _, *states = layers.RNN(cells[0], return_state=True)(sequence(x))
    return layers.RNN(cells[1])(sequence(x), initial_state=states)


STATES = {"LSTM": encoder_and_decoder, "both directions": both_directions_handed_on, "cells": cells_handed_on}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("kind", STATES)
def test_states_that_a_layer_begins_with(kind, tmp_path):
    old = centered(model_of(STATES[kind]))
    assert_same(old, models.from_tf_keras(old))
    if kind == "LSTM":
        old.save(tmp_path / "old.h5")
        assert_same(old, models.load(str(tmp_path / "old.h5")).model)


def centered(old):
    """Weights around 0, so that a hard sigmoid works in its middle and at both of its ends."""
    for weight in old.weights:
        if "variance" not in weight.name:
            weight.assign(weight - 0.5)
    return old


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_are_equal_also_after_saving(kind, tmp_path):
    old = centered(model_of(LAYERS[kind]))
    new = models.from_tf_keras(old)
    assert_same(old, new)
    new.save(tmp_path / "new.keras")
    assert_same(old, keras.models.load_model(tmp_path / "new.keras"))


def test_only_the_gates_with_hard_sigmoid_are_scaled():
    old = model_of(lambda x: layers.GRU(2, recurrent_activation=HARD)(sequence(x)))
    new = models.from_tf_keras(old)
    factors = [np.asarray(b) / np.asarray(a) for a, b in zip(old.weights, new.weights, strict=True)]
    assert [f.shape for f in factors] == [(4, 6), (2, 6), (2, 6)]
    for factor in factors:
        np.testing.assert_allclose(factor, np.broadcast_to([1.2] * 4 + [1.0] * 2, factor.shape), rtol=1e-6)


def test_an_lstm_whose_state_is_hard_can_be_pruned():
    old = model_of(lambda x: layers.Dense(2)(layers.LSTM(5, activation=HARD, name="lstm")(sequence(x))))
    group = ChannelGraph(models.from_tf_keras(old)).group("lstm")
    assert (group.size, group.pinned_because) == (5, None)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_with_both_directions_and_models_of_each_step(tmp_path, suffix):
    def net(x):
        x = layers.TimeDistributed(steps_model())(x)
        x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, recurrent_activation=HARD))(x)
        return layers.Dense(2)(layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])(x))

    old = centered(model_of(net))
    old.save(tmp_path / f"old{suffix}")
    assert_same(old, models.load(str(tmp_path / f"old{suffix}")).model)
