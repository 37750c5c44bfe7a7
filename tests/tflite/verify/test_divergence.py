"""Intermediate tensors are matched with the right layers, and a fault is found in the layer where it is."""

import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import UsageError
from dcp_tf.tflite.verify.divergence import compare_layers


@pytest.mark.parametrize(
    ("network", "mode"),
    [
        *((network, "float32") for network in nets.NETWORKS),
        *nets.quick("residual", "nested", among=nets.NETWORKS, beside="float16"),
    ],
)
def test_every_tensor_of_a_float_file_equals_its_layer(network, mode):
    model = nets.NETWORKS[network]()
    file = tflite.convert(model, mode)
    errors = compare_layers(file, model, nets.images(4))
    names = {name for layer in errors for name in layer.layer.split("/")}
    assert names <= {layer.name for layer in model._flatten_layers()}
    assert max(layer.error for layer in errors) < (1e-5 if mode == "float32" else 1e-2)
    computing = {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "FULLY_CONNECTED", "MEAN", "TRANSPOSE_CONV", "PRELU"}
    found = tflite.inspect(file).operations
    assert sum(layer.operation in computing for layer in errors) == sum(found.get(name, 0) for name in computing)
    assert tflite.first_divergence(file, model, nets.images(4)) is None


@pytest.mark.parametrize("mode", ["float32", "int8", "int16x8"])
def test_the_layer_with_the_fault_is_named(mode):
    inner = keras.Input((14, 14, 6))
    backbone = keras.Model(inner, layers.Conv2D(6, 3, activation="relu", name="third")(inner), name="backbone")
    image = keras.Input((nets.SIZE, nets.SIZE, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="stem", padding="same")(image)
    x = backbone(layers.Conv2D(6, 3, activation="relu", name="second")(x))
    model = nets.settle(keras.Model(image, layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x))))
    data = {"representative_data": nets.images()} if mode != "float32" else {}
    file = tflite.convert(model, mode, **data)
    assert tflite.first_divergence(file, model, nets.images()) is None
    for name in ("stem", "second", "backbone/third", "logits"):
        faulty = next(layer for layer in model._flatten_layers() if layer.name == name.rpartition("/")[2])
        right = np.asarray(faulty.bias)
        faulty.bias.assign(right + 3.0)
        found = tflite.first_divergence(file, model, nets.images())
        assert found.layer == name
        assert name in str(found)
        faulty.bias.assign(right)


def test_images_beyond_the_calibrated_range_are_found_at_the_input():
    model = nets.residual()
    file = tflite.convert(model, "int8", representative_data=nets.images() * 0.01)
    assert tflite.first_divergence(file, model, nets.images()).layer == "input"


def test_several_inputs_and_outputs_are_compared():
    left, right = keras.Input((8, 8, 3), name="zulu"), keras.Input((4,), name="alpha")
    x = layers.Flatten()(layers.Conv2D(4, 3, name="shared")(left))
    outputs = [layers.Dense(n, name=f"out{n}")(layers.Concatenate()([x, right])) for n in (3, 2)]
    model = nets.settle(keras.Model([left, right], outputs))
    random = np.random.default_rng(0)
    data = [random.random((6, 8, 8, 3), np.float32), random.random((6, 4), np.float32)]
    file = tflite.convert(model, "int8", representative_data=data)
    assert tflite.first_divergence(file, model, data) is None
    compared = [layer.layer for layer in compare_layers(file, model, data)]
    assert {"out2", "out3"} <= set(compared)
    assert compared.count("input") == 2


def test_no_images_are_a_usage_error():
    model = nets.sequential()
    with pytest.raises(UsageError, match="no images"):
        tflite.first_divergence(tflite.convert(model), model, nets.images(0))
