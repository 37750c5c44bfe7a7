"""inspect_model on sequences: open sizes, units of recurrent layers, parameters as Keras counts them."""

import json

import keras
import pytest
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost, group_fractions
from dcp_tf.tools import inspect_model


@pytest.fixture
def sequences(tmp_path):
    x = keras.Input((None, 5))
    y = layers.BatchNormalization()(layers.Conv1D(6, 3, name="first")(x))
    y = layers.Bidirectional(layers.LSTM(4), name="read")(y)
    keras.Model(x, layers.Dense(2, name="last")(y)).save(tmp_path / "sequences.keras")
    return f"--model={tmp_path}/sequences.keras"


def test_open_sizes_need_no_shape_for_the_groups(sequences, capsys):
    assert inspect_model.run([sequences, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    groups = {group["name"]: group for group in found["groups"]}
    assert groups["first"]["pinned_because"] is None
    assert found["macs"] is found["flops"] is groups["first"]["macs_share"] is None
    assert found["params"] == 5 * 3 * 6 + 6 + 2 * 6 + 2 * (6 + 4 + 1) * 16 + 8 * 2 + 2
    assert found["keras_params"] == found["params"] + 2 * 6
    assert {layer["macs"] for layer in found["layers"] if layer["name"] in ("first", "read")} == {None}
    assert inspect_model.run([sequences, "--layers"]) == 0
    printed = capsys.readouterr().out
    assert "--input_shape" in printed
    assert f"{found['keras_params']:,} parameters in Keras" in printed


def test_a_shape_of_any_rank_gives_the_macs(sequences, capsys):
    assert inspect_model.run([sequences, "--input_shape=20,5", "--json"]) == 0
    macs = 18 * 15 * 6 + 2 * 18 * (6 + 4) * 16 + 8 * 2
    assert json.loads(capsys.readouterr().out)["macs"] == macs
    for wrong in ("0,5", "20.5,5"):
        assert inspect_model.run([sequences, f"--input_shape={wrong}"]) == 2
        assert "takes whole sizes" in capsys.readouterr().err
    assert inspect_model.run([sequences, "--input_shape=20,20,5"]) == 2
    assert "takes inputs of shape (None, 5)" in capsys.readouterr().err


def test_what_needs_the_macs_names_the_flag(sequences, capsys):
    assert inspect_model.run([sequences, "--rate=0.5"]) == 2
    assert "such as --input_shape=" in capsys.readouterr().err
    with pytest.raises(UsageError, match="state the shape of one input"):
        count_cost(keras.models.load_model(sequences.removeprefix("--model=")))


def test_one_shape_for_several_inputs_is_refused(tmp_path, capsys):
    inputs = [keras.Input((None, 5)), keras.Input((None, 5))]
    keras.Model(inputs, layers.Dense(3)(layers.Add()(inputs))).save(tmp_path / "two.keras")
    assert inspect_model.run([f"--model={tmp_path}/two.keras", "--input_shape=20,5"]) == 2
    assert "has 2 inputs" in capsys.readouterr().err


def test_units_are_no_sum_of_feature_maps(tmp_path, capsys):
    x = keras.Input((6, 3))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(4, name="read")(x)))
    (group,) = [g for g in ChannelGraph(model).groups if g.name == "read"]
    assert (group.residual, group.recurrent) == (True, True)
    assert group_fractions(ChannelGraph(model))["read"][1] > 0
    model.save(tmp_path / "units.keras")
    assert inspect_model.run([f"--model={tmp_path}/units.keras"]) == 0
    printed = capsys.readouterr().out
    assert "recurrent: a state to which each step adds" in printed
    assert "feature maps" not in printed
    assert inspect_model.run([f"--model={tmp_path}/units.keras", "--rate=0.5"]) == 2
    assert "its recurrent units need --prune_residual" in capsys.readouterr().err
    assert inspect_model.run([f"--model={tmp_path}/units.keras", "--rate=0.5", "--prune_residual"]) == 0


def test_a_reason_that_many_layers_give_is_told_once():
    x = keras.Input((8, 3))
    y = layers.Dense(6, name="stream")(x)
    for number in range(5):
        y = layers.Add()([y, layers.Dense(6)(layers.LayerNormalization(name=f"norm_{number}")(y))])
    group = ChannelGraph(keras.Model(x, layers.Dense(2)(y))).group("stream")
    reason = "norm_0 (LayerNormalization) takes statistics over the channels (and 4 more layers like it)"
    assert group.pinned_because == reason
