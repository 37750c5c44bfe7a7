"""A stated batch size goes where the model can do without; else one line says so."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from dcp_tf import models
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph


def network(middle, batch=32, dtype="float32"):
    x = keras.Input((8, 8, 1), batch_size=batch, dtype=dtype, name="image")
    return keras.Model(x, layers.Dense(10, name="last")(middle(layers.Conv2D(8, 3, name="conv")(x))), name="net")


def nested(x):
    inner = keras.Sequential([keras.Input((6, 6, 8), batch_size=32), layers.Conv2D(4, 3), layers.Flatten()])
    return inner(x)


def sequential():
    return keras.Sequential([keras.Input((8, 8, 1), batch_size=32), layers.Conv2D(4, 3), layers.Flatten()])


TAKEN = {
    "flatten": lambda: network(layers.Flatten()),
    "one image": lambda: network(layers.Flatten(), batch=1),
    "nested": lambda: network(nested),
    "sequential": sequential,
    "there and back": lambda: network(lambda x: ops.reshape(ops.reshape(x, (-1, 6, 8)), (-1, 288))),
    "open sizes": lambda: keras.Model(
        x := keras.Input((None, None, 1), batch_size=4), layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(x))
    ),
}
REFUSED = {
    "reshape": (lambda: network(lambda x: ops.reshape(x, (32, -1))), r"batches of 32 images \('reshape.*' fixes it\)"),
    "one image": (lambda: network(lambda x: ops.reshape(x, (1, -1)), batch=1), r"batches of 1 images"),
    "there and back": (
        lambda: network(lambda x: ops.reshape(ops.reshape(x, (64, -1)), (-1, 288))),
        r"batches of 32 images \('reshape.*' fixes it\)",
    ),
    "stateful": (
        lambda: network(lambda x: layers.LSTM(4, stateful=True, name="memory")(layers.Reshape((36, 8))(x))),
        r"batches of 32 images \(layer 'memory' is stateful\)",
    ),
    "open input": (
        lambda: network(lambda x: ops.reshape(ops.reshape(x, (32, 6, 6, 8)), (-1, 288)), batch=None),
        r"batches of 32 images \('reshape.*' fixes it\)",
    ),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_models_that_can_do_without_lose_it(kind, tmp_path):
    model = TAKEN[kind]()
    model.save(tmp_path / "model.keras")
    loaded = models.load(str(tmp_path / "model.keras")).model
    assert loaded.inputs[0].shape[0] is None
    assert loaded.outputs[0].shape[0] is None
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    shape = [size or 16 for size in model.inputs[0].shape[1:]]
    for count in (1, 5, 32):
        images = np.random.default_rng(count).normal(size=(count, *shape)).astype("float32")
        np.testing.assert_allclose(np.asarray(loaded(images)), np.asarray(model(images)), atol=1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_cannot_are_refused_in_one_line(kind, tmp_path):
    make, message = REFUSED[kind]
    make().save(tmp_path / "model.keras")
    with pytest.raises(UsageError, match=message) as raised:
        models.load(str(tmp_path / "model.keras"))
    assert "keras.Input(shape) without batch_size" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_shapes_than_the_stated_ones_name_it():
    model = network(lambda x: ops.reshape(x, (32, -1)))
    assert next(group.name for group in ChannelGraph(model).groups) == "conv"
    with pytest.raises(UsageError, match="built for batches of 32 images"):
        ChannelGraph(model, [(None, 8, 8, 1)])


def test_a_wrong_shape_that_keras_states_refuses_nothing(tmp_path):
    values = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    norm = layers.Normalization()
    norm.adapt(values)
    twice = layers.Pipeline([norm])
    x = keras.Input((8, 8, 1))
    model = keras.Model(x, layers.Add()([twice(x), twice(x * 2.0)]))
    model.save(tmp_path / "model.keras")
    loaded = models.load(str(tmp_path / "model.keras")).model
    np.testing.assert_array_equal(np.asarray(loaded(values)), np.asarray(model(values)))


def test_models_for_any_batch_are_not_touched():
    model = network(layers.Flatten(), batch=None)
    assert models.with_open_batch(model) is model
    mean = network(lambda x: layers.Flatten()(x - ops.mean(x, axis=0, keepdims=True) * 0), batch=None)
    assert models.with_open_batch(mean) is mean
