"""A model with flat inputs and outputs is the same model; nested again it is called and answers as the first."""

import keras
import numpy as np
import pytest

from dcp_tf.models.signature import flat, input_names, output_names, with_flat_signature, with_signature_of


def _two_by_two(outputs: str = "dict", inputs: str = "dict") -> keras.Model:
    image, meta = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="meta")
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), meta])
    boxes, classes = keras.layers.Dense(4, name="b")(x), keras.layers.Dense(3, name="c")(x)
    nested_inputs = {"dict": {"meta": meta, "image": image}, "list": [meta, image]}[inputs]
    nested_outputs = {
        "dict": {"classes": classes, "boxes": boxes},
        "list": [classes, boxes],
        "tuple": (classes, boxes),
        "nested": {"all": [classes, {"boxes": boxes}]},
    }[outputs]
    return keras.Model(nested_inputs, nested_outputs)


def test_names_are_the_keys_of_dicts_in_flat_order():
    model = _two_by_two()
    assert input_names(model) == ("image", "meta")
    assert output_names(model) == ("boxes", "classes")


def test_names_are_those_of_the_layers_elsewhere():
    model = _two_by_two("list", "list")
    assert input_names(model) == ("meta", "image")
    assert output_names(model) == ("c", "b")


def test_names_of_one_layer_called_twice_differ():
    shared, left, right = keras.layers.Dense(2, name="d"), keras.Input((3,)), keras.Input((3,))
    assert output_names(keras.Model([left, right], [shared(left), shared(right)])) == ("d", "d_1")


@pytest.mark.parametrize("inputs", ["dict", "list"])
@pytest.mark.parametrize("outputs", ["dict", "list", "tuple", "nested"])
def test_flat_and_nested_again_give_equal_outputs(inputs, outputs):
    model = _two_by_two(outputs, inputs)
    values = {"image": np.ones((2, 8, 8, 3), "float32"), "meta": np.ones((2, 4), "float32")}
    given = values if inputs == "dict" else [values["meta"], values["image"]]
    expected = model(given)
    flattened = with_flat_signature(model)
    assert (input_names(flattened), output_names(flattened)) == (input_names(model), output_names(model))
    answers = flattened(flat(given))
    assert isinstance(answers, tuple)
    for answer, wanted in zip(answers, keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(answer, wanted)
    again = with_signature_of(flattened, model)
    keras.tree.assert_same_structure(again(given), expected)
    assert {id(v) for v in again.variables} == {id(v) for v in model.variables}


def test_one_input_and_output_stay_the_model_itself():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert with_flat_signature(model) is model
    assert with_signature_of(model, model) is model


def test_one_input_in_a_dict_becomes_a_tensor():
    image = keras.Input((3,), name="image")
    model = keras.Model({"image": image}, {"scores": keras.layers.Dense(2)(image)})
    assert with_flat_signature(model)(np.ones((1, 3), "float32")).shape == (1, 2)
