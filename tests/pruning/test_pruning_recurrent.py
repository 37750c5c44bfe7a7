"""Channels that a recurrent layer reads: what carries nothing goes, units go where it is asked for."""

import keras
import numpy as np
import pytest
from keras import layers
from pruning_nets import BARE

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.pruning import prepare
from dcp_tf.pruning.notes import announce

USED = np.array([1, 2, 5, 7])
RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(64, 10, 3)).astype("float32")


def reads_four_channels(make):
    """A convolution of eight channels before a recurrent layer whose kernels read four of them."""
    keras.utils.set_random_seed(1)
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, activation="relu", name="make")(x)
    layer = make()
    model = keras.Model(x, layers.Dense(4, activation="softmax", name="out")(layer(y)))
    for variable in layer.trainable_variables:
        if variable.name == "kernel":
            variable.assign(variable * np.isin(np.arange(8), USED)[:, None])
    return model


@pytest.mark.parametrize(
    ("make", "selection"),
    [(lambda: layers.LSTM(6, name="read"), "fast"), (lambda: layers.Bidirectional(layers.GRU(6)), "exact")],
)
def test_channels_that_no_gate_reads_are_the_ones_that_go(make, selection):
    model = reads_four_channels(make)
    method = dcp_tf.DCP(rate=0.5, selection=selection, recover=0)
    result = dcp_tf.prune(model, (SEQUENCES, None), method, **BARE)
    assert result.plan.channels == {"make": tuple(USED)}


def test_units_go_with_the_residual_streams(capsys):
    model = reads_four_channels(lambda: layers.LSTM(6, name="read"))
    method = dcp_tf.DCP(rate=0.5, prune_residual=True, recover=0)
    result = dcp_tf.prune(model, (SEQUENCES, None), method, **BARE)
    assert result.model.get_layer("read").units == 3
    assert "recurrent units stay" not in capsys.readouterr().err


def test_a_note_tells_of_units_that_stay_and_an_error_of_those_that_are_all_there_is(capsys):
    model = reads_four_channels(lambda: layers.LSTM(6, name="read"))
    announce(prepare(model, (SEQUENCES, None), dcp_tf.DCP(rate=0.5)), looks_at_baseline=False)
    assert "recurrent units stay (read); prune_residual=True prunes them too" in capsys.readouterr().err
    x = keras.Input((10, 3))
    alone = keras.Model(x, layers.Dense(4)(layers.LSTM(6, name="read")(x)))
    with pytest.raises(UsageError, match="recurrent units need prune_residual=True"):
        prepare(alone, (SEQUENCES, None), dcp_tf.DCP(rate=0.5))


WRAPPED = {
    "normalized": lambda x: layers.Flatten()(
        layers.SpectralNormalization(layers.Conv1D(6, 3, activation="relu"), name="read")(x)
    ),
    "each step": lambda x: layers.Flatten()(layers.TimeDistributed(layers.Dense(6, activation="relu"), name="read")(x)),
    "cells": lambda x: layers.RNN([layers.GRUCell(6), layers.LSTMCell(5)], name="read")(x),
    "convolutional states": lambda x: layers.Flatten()(
        layers.ConvLSTM1D(3, 2, name="read")(layers.Reshape((2, 4, 8))(x))
    ),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_channels_that_nothing_inside_reads_are_the_ones_that_go(kind):
    keras.utils.set_random_seed(1)
    x = keras.Input((10, 3))
    y = layers.Conv1D(8, 3, activation="relu", name="make")(x)
    model = keras.Model(x, layers.Dense(4, activation="softmax", name="out")(WRAPPED[kind](y)))
    for variable in model.get_layer("read").trainable_variables:
        if variable.name == "kernel" and variable.shape[-2] == 8:
            variable.assign(variable * np.isin(np.arange(8), USED)[:, None])
    method = dcp_tf.DCP(rate=0.5, exclude=("read.*",), recover=0)
    result = dcp_tf.prune(model, (SEQUENCES, None), method, **BARE)
    assert result.plan.channels == {"make": tuple(USED)}
    assert result.model.get_layer("make").filters == 4
