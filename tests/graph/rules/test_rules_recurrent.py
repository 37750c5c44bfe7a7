"""Recurrent layers: rebuilt equals masked, the recurrent kernel among the readers."""

import itertools

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers

from dcp_tf.graph import ChannelGraph, count_cost

KINDS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "SimpleRNN": layers.SimpleRNN}
SETTINGS = {
    "last step": {},
    "all steps": {"return_sequences": True},
    "no bias": {"use_bias": False},
    "backwards, unrolled": {"go_backwards": True, "unroll": True},
    "dropout": {"dropout": 0.5, "recurrent_dropout": 0.5},
}


def sequence_net(layer, steps=6):
    x = keras.Input((steps, 3))
    y = layers.Conv1D(8, 3, padding="same", activation="relu", name="first")(x)
    y = layer(y)
    return keras.Model(x, layers.Dense(4, name="last")(y))


@pytest.mark.parametrize(("kind", "setting"), itertools.product(KINDS, SETTINGS))
def test_a_recurrent_layer_loses_units_and_reads_fewer_channels(kind, setting):
    layer = KINDS[kind](7, name="middle", **SETTINGS[setting])
    check(sequence_net(layer), prunable={"first": 8, "middle": 7}, save=setting == "all steps")


def test_both_forms_of_the_gru():
    for reset_after in (True, False):
        check(sequence_net(layers.GRU(7, reset_after=reset_after, name="middle")), prunable={"first": 8, "middle": 7})


@pytest.mark.parametrize(("kind", "merge"), itertools.product(KINDS, ["concat", "sum", "ave", "mul"]))
def test_both_directions(kind, merge):
    inner = KINDS[kind](7, return_sequences=merge != "sum")
    model = sequence_net(layers.Bidirectional(inner, merge_mode=merge, name="middle"))
    check(model, prunable={"first": 8, "middle": 7}, save=merge == "concat")


def test_directions_that_are_not_merged_and_backward_layers_of_their_own():
    x = keras.Input((6, 3))
    y = layers.Conv1D(8, 3, name="first")(x)
    back = layers.GRU(7, activation="relu", go_backwards=True, name="back")
    pair = layers.Bidirectional(layers.GRU(7, name="forth"), backward_layer=back, merge_mode=None, name="middle")(y)
    outputs = [layers.Dense(3, name=f"last{i}")(one) for i, one in enumerate(pair)]
    check(keras.Model(x, outputs), prunable={"first": 8, "middle": 7}, save=True)


def test_stacked_layers_and_states_of_an_encoder():
    x = keras.Input((6, 3))
    y, *states = layers.LSTM(8, return_state=True, return_sequences=True, name="encoder")(x)
    y = layers.LSTM(8, return_sequences=True, name="decoder")(y, initial_state=states)
    y = layers.GRU(5, name="top")(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"encoder": 8, "top": 5}, save=True)


def test_states_of_both_directions():
    x = keras.Input((6, 3))
    inner = layers.LSTM(5, return_state=True, return_sequences=True)
    y, *states = layers.Bidirectional(inner, name="encoder")(x)
    y = layers.Bidirectional(layers.LSTM(5), name="decoder")(y, initial_state=states)
    graph, small = check(keras.Model(x, layers.Dense(2)(y)))
    assert {g.name: g.size for g in graph.prunable(residual=True)} == {"encoder": 5}
    assert small.get_layer("decoder").forward_layer.units < 5


def test_a_shared_recurrent_layer_and_masked_steps():
    words = keras.Input((6,), dtype="int32")
    others = keras.Input((6,), dtype="int32")
    embed, read = layers.Embedding(9, 8, mask_zero=True, name="words"), layers.GRU(7, name="read")
    y = layers.Concatenate()([read(embed(words)), read(embed(others))])
    given = [np.array([[1, 4, 2, 0, 0, 0], [3, 3, 3, 3, 3, 0]]), np.array([[5, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])]
    check(keras.Model([words, others], layers.Dense(2)(y)), given, prunable={"words": 8, "read": 7}, configs=False)


def test_a_convolution_before_it_through_a_reshape():
    x = keras.Input((8, 4, 1))
    y = layers.Conv2D(6, 3, padding="same", name="first")(x)
    y = layers.Reshape((8, 24))(y)
    y = layers.Bidirectional(layers.GRU(5), name="read")(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 6, "read": 5}, save=True)


@pytest.mark.parametrize("both", [False, True])
def test_a_mask_that_is_given(both):
    x, mask = keras.Input((6, 3)), keras.Input((6,), dtype="bool")
    y = layers.Dense(8, name="before")(x)
    layer = layers.LSTM(5, name="read", return_sequences=True)
    y = (layers.Bidirectional(layer, name="read") if both else layer)(y, mask=mask)
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(2, 6, 3)).astype("float32"), np.array([[1] * 4 + [0] * 2, [1] * 6], bool)]
    check(keras.Model([x, mask], layers.Dense(2)(y)), given, prunable={"before": 8, "read": 5})


def test_states_that_outlive_a_call_pin():
    x = keras.Input((6, 3), batch_size=2)
    y = layers.Dense(8, name="before")(x)
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(5, stateful=True, name="odd")(y)))
    assert "odd (LSTM), whose state outlives the call" in ChannelGraph(model).group("before").pinned_because


def test_units_stay_unless_residual_streams_are_pruned():
    graph = ChannelGraph(sequence_net(layers.LSTM(7, name="middle")))
    assert [g.name for g in graph.prunable()] == ["first"]
    assert [g.name for g in graph.prunable(residual=True)] == ["first", "middle"]


FRAMES = {
    "ConvLSTM1D": (layers.ConvLSTM1D, (5, 6, 3)),
    "ConvLSTM2D": (layers.ConvLSTM2D, (5, 6, 4, 3)),
    "ConvLSTM3D": (layers.ConvLSTM3D, (2, 3, 3, 2, 3)),
}


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", FRAMES)
def test_convolutional_states(kind, sequences):
    layer, shape = FRAMES[kind]
    x = keras.Input(shape)
    y = layers.Dense(8, activation="relu", name="first")(x)
    y = layer(7, 2, padding="same", return_sequences=sequences, recurrent_dropout=0.3, name="middle")(y)
    model = keras.Model(x, layers.Dense(2, name="last")(y))
    check(model, prunable={"first": 8, "middle": 7}, save=sequences)


def test_convolutional_states_that_are_handed_on_and_both_directions():
    x = keras.Input((4, 6, 6, 3))
    y, *states = layers.ConvLSTM2D(6, 3, strides=2, return_sequences=True, return_state=True, name="encoder")(x)
    y = layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True, name="decoder")(y, initial_state=states)
    y = layers.Bidirectional(layers.ConvLSTM2D(5, 2, use_bias=False), name="both")(y)
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"encoder": 6, "both": 5}, save=True)


def test_convolutional_states_with_channels_first():
    x = keras.Input((4, 3, 6, 6))
    layer = layers.ConvLSTM2D(5, 3, data_format="channels_first", name="read")
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(layers.Permute((2, 3, 1))(layer(x)))))
    assert {g.name: g.size for g in graph.prunable(residual=True)} == {"read": 5}


CELLS = {
    "one": lambda: layers.RNN(layers.GRUCell(7), name="read"),
    "a list": lambda: layers.RNN([layers.LSTMCell(7), layers.GRUCell(6), layers.SimpleRNNCell(5)], name="read"),
    "stacked": lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(7), layers.LSTMCell(6)]), name="read"),
    "all steps": lambda: layers.RNN([layers.GRUCell(7, reset_after=False)], return_sequences=True, name="read"),
    "both directions": lambda: layers.Bidirectional(layers.RNN([layers.GRUCell(7), layers.LSTMCell(6)]), name="read"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cells_as_layers(kind):
    graph, _ = check(sequence_net(CELLS[kind]()), save=True)
    sizes = {"one": [7], "a list": [7, 6, 5], "stacked": [7, 6], "all steps": [7], "both directions": [7, 6, 7]}
    assert sorted(g.size for g in graph.prunable(residual=True)) == sorted([8, *sizes[kind]])


def test_states_of_stacked_cells():
    x = keras.Input((6, 3))
    cells = [layers.LSTMCell(7), layers.GRUCell(5)]
    y, state, _ = layers.RNN(cells, return_state=True, name="read")(x)
    model = keras.Model(x, [layers.Dense(2)(y), layers.Dense(2)(state[0]), layers.Dense(2)(state[1])])
    graph, _ = check(model)
    assert sorted(g.size for g in graph.prunable(residual=True)) == [5, 7]


class OwnCell(layers.GRUCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs * 2, states, training)


def test_cells_of_other_kinds_pin():
    graph = ChannelGraph(sequence_net(layers.RNN([OwnCell(4)], name="odd")))
    assert "other cells than those of LSTM, GRU and SimpleRNN" in graph.group("first").pinned_because


def test_multiply_accumulates_of_convolutional_states():
    x = keras.Input((4, 6, 6, 3))
    model = keras.Model(x, layers.ConvLSTM2D(5, 3, strides=2)(x))
    assert count_cost(model).macs == 4 * 2 * 2 * (9 * 3 * 20 + 9 * 5 * 20)


def test_multiply_accumulates_of_stacked_cells():
    x = keras.Input((6, 3))
    model = keras.Model(x, layers.RNN([layers.LSTMCell(5), layers.GRUCell(4)])(x))
    assert count_cost(model).macs == 6 * (3 * 20 + 5 * 20 + 5 * 12 + 4 * 12)


def test_multiply_accumulates_of_every_step():
    x = keras.Input((6, 3))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(5)(x)))
    assert count_cost(model).macs == 6 * (3 * 20 + 5 * 20) + 5 * 2
