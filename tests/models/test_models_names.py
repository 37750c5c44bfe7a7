"""Names that TensorFlow's scopes refuse become others on loading; nothing else changes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dcp_tf import models, tflite
from dcp_tf.models.names import refused_names, valid_model_name, valid_name, with_valid_names

ODD = ("conv one", "größe", "a<b>", "100%", "a:b", "Schicht (2)", "a\\b")


def network(name, inner="inside", whole="network", image="image"):
    x = keras.Input((8, 8, 1), name=image)
    y = layers.Conv2D(4, 3, name=name)(x)
    block = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, name=name)], name=inner)
    return keras.Model(x, layers.Dense(2, name=f"{name} 2")(layers.Flatten()(block(y))), name=whole)


@pytest.mark.parametrize("odd", ODD)
def test_odd_names_are_replaced_everywhere(odd, tmp_path, capsys):
    model = network(odd, inner=f"{odd} in", whole=odd, image=f"{odd} image")
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    expected = np.asarray(model(images))
    model.save(tmp_path / "odd.keras")
    loaded = models.load(str(tmp_path / "odd.keras")).model
    note = capsys.readouterr().err
    assert note.count("note: TensorFlow does not allow some names") == 1
    assert repr(odd) in note
    np.testing.assert_array_equal(np.asarray(tf.function(loaded)(images)), expected)
    assert refused_names(loaded) == []
    loaded.save(tmp_path / "again.keras")
    again = models.load(str(tmp_path / "again.keras")).model
    assert capsys.readouterr().err == ""
    assert [layer.name for layer in again.layers] == [layer.name for layer in loaded.layers]
    np.testing.assert_array_equal(np.asarray(again(images)), expected)
    for quantization in ("float32", "int8"):  # in memory too
        file = tflite.convert(model, quantization, representative_data=images if quantization == "int8" else None)
        assert tflite.check_parity(file, model, images).max_error < 0.2


def test_names_stay_unique():
    x = keras.Input((4,))
    y = layers.Dense(3, name="a b")(layers.Dense(3, name="a_b")(layers.Dense(3, name="a?b")(x)))
    model = keras.Model(x, [y, layers.Dense(1, name="out!")(y)])
    renamed, changes = with_valid_names(model)
    assert set(changes) == {"a b", "a?b", "out!"}
    names = [layer.name for layer in renamed.layers]
    assert len(set(names)) == len(names) == 5
    assert "a_b" in names
    assert renamed.output_names[1] == "out_"
    assert with_valid_names(renamed) == (renamed, {})
    assert model.layers[1].name == "a?b"


def test_ordinary_names_stay():
    for name in ("conv2d_1", "block.a-b", "_hidden", "A"):
        assert valid_name(name) == name
    assert valid_name("a/b") == "a_b"
    assert valid_model_name("_x") == "model_x"
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="_hidden")], name="A")
    assert with_valid_names(model) == (model, {})


def test_inputs_that_are_given_by_name_keep_it():
    x = {"my image": keras.Input((4,), name="my image"), "b": keras.Input((4,), name="b")}
    model = keras.Model(x, layers.Dense(2, name="a b")(x["my image"] + x["b"]))
    renamed, changes = with_valid_names(model)
    assert changes == {"a b": "a_b"}
    values = {name: np.ones((2, 4), "float32") for name in x}
    np.testing.assert_array_equal(np.asarray(tf.function(renamed)(values)), np.asarray(model(values)))
