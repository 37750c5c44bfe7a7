"""One default for `round_to`, and a line where rounding removes much more or much less than the rate."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import METHODS, Widths, rounding_note
from dcp_tf.settings.scope import WidthSettings
from dcp_tf.tools import compare, inspect_model, latency_table, prune, quickstart


def chain(*widths):
    image = x = keras.Input((8, 8, 3))
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


def note(model, rate, round_to):
    graph = ChannelGraph(model)
    return rounding_note(graph, lambda step: Widths(graph, graph.prunable(), step).at_rate(rate), round_to)


@pytest.mark.parametrize("program", [prune, quickstart, compare, inspect_model, latency_table])
def test_programs_round_to_the_same_multiple(program):
    assert program.PROGRAM.flags["round_to"].default == WidthSettings.round_to


def test_python_rounds_to_the_same_multiple():
    from dcp_tf.tflite.latency.latency_table import measure_latency_table

    assert dcp_tf.DCP().round_to == dcp_tf.L1().round_to == METHODS["dcp_dkp"]().round_to == WidthSettings.round_to
    assert inspect.signature(measure_latency_table).parameters["round_to"].default == WidthSettings.round_to


def test_rounding_that_removes_much_more_is_named_with_a_finer_multiple():
    model = chain(32, 32)  # at .3 each keeps 23, the nearest multiple of 16 is 16
    line = note(model, 0.3, 16)
    assert "multiples of 16" in line
    assert "round_to=8" in line


def test_rounding_that_removes_much_less_is_named():
    assert "remove 0% of the MACs" in note(chain(32, 32), 0.2, 16)  # 26 of 32 are rounded to 32


@pytest.mark.parametrize(("widths", "rate"), [((64, 64), 0.5), ((128, 256), 0.3), ((8, 16), 0.3)])
def test_nothing_is_said_where_rounding_changes_little(widths, rate):
    assert note(chain(*widths), rate, 16) is None


def test_without_rounding_nothing_is_said():
    assert note(chain(24, 24), 0.15, 1) is None


def test_a_run_says_it_once(capsys):
    images = np.random.default_rng(0).random((64, 8, 8, 3)).astype("float32")
    data = (images, np.arange(64) % 4)
    none = dcp_tf.TrainConfig(epochs=0, learning_rate=0.01)
    dcp_tf.prune(chain(32, 32), data, dcp_tf.L1(rate=0.3), finetuning=none)
    assert capsys.readouterr().err.count("round_to=8") == 1
    dcp_tf.prune(chain(32, 32), data, dcp_tf.L1(rate=0.3, round_to=1), finetuning=none)
    assert "round_to" not in capsys.readouterr().err
