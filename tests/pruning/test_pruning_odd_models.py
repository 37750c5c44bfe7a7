"""Models that were built in unusual ways are pruned, or refused in one line before anything is trained."""

import dataclasses
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, copy_model, rebuild
from dcp_tf.training import TrainConfig, fit

DATA = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32"), np.arange(32) % 4
NONE = TrainConfig(epochs=0)


def network(*middle, name="net", first="first", **input_settings):
    start = keras.Input((8, 8, 3), **input_settings)
    x = layers.Conv2D(12, 3, padding="same", name=first)(start)
    x = layers.Conv2D(8, 3, padding="same", name="before")(x)
    for layer in middle:
        x = layer(x)
    x = layers.Conv2D(12, 3, name="behind")(x)
    return keras.Model(start, layers.Dense(4, name="last")(layers.GlobalMaxPooling2D()(x)), name=name)


def prune(model, **settings):
    return dcp_tf.prune(model, DATA, dcp_tf.L1(rate=0.5, round_to=1), finetuning=NONE, **settings)


class ExtraKeys(layers.Layer):
    """States more than its `__init__` takes."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], self.filters), name="mix")

    def call(self, x):
        return keras.ops.matmul(x, self.mix)

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "derived": 2 * self.filters}


class Renamed(ExtraKeys):
    """Chooses another name than it is given, at each making."""

    def __init__(self, filters, name="own", **kwargs):
        super().__init__(filters, name=f"{name}_0", **kwargs)

    def get_config(self):
        return layers.Layer.get_config(self) | {"filters": self.filters}


class Lazy(layers.Layer):
    """Builds what is inside of it at the first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Conv2D(8, 3, padding="same")

    def build(self, shape):
        super().build(shape)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 8)


class Stateless(layers.Layer):
    """Takes a function and says nothing of it."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


class NoConfig(layers.Layer):
    """Takes what no config can hold, and has weights, layers and a model inside."""

    def __init__(self, function):
        super().__init__()
        self.function, self.scale = function, 2.0
        self.inner = {"mix": layers.Dense(8), "norm": [layers.BatchNormalization()]}
        self.block = keras.Sequential([keras.Input((8, 8, 8)), layers.Conv2D(8, 1), layers.Dropout(0.1)])
        self.helper = Helper(layers.Dense(8))

    def build(self, shape):
        for layer in (self.inner["mix"], *self.inner["norm"], self.helper.layer):
            layer.build(shape)
        self._tracker.unlock()
        self.tracked = self.helper.layer
        self._tracker.lock()

    def call(self, x, training=None):
        x = self.inner["norm"][0](self.inner["mix"](x), training=training) * self.scale
        return self.helper(self.block(self.function(x), training=training))


class Helper:
    """No layer, but it holds one."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)


class Unmakeable(layers.Layer):
    """Holds a function that works on the layer itself."""

    def __init__(self, function):
        super().__init__()
        self.mix = layers.Dense(8)
        self.function = lambda x: function(self.mix(x))

    def build(self, shape):
        self.mix.build(shape)

    def call(self, x):
        return self.function(x)

    def get_config(self):
        raise NotImplementedError


ODD = {
    "more keys": lambda: ExtraKeys(8, name="odd"),
    "own name": lambda: Renamed(8),
    "built at the first call": lambda: Lazy(name="odd"),
    "no config, no weights": lambda: Stateless(keras.ops.relu),
    "no config": lambda: NoConfig(keras.ops.relu),
}


@pytest.mark.parametrize("kind", ODD)
def test_layers_that_no_group_touches_stay_as_they_are(kind):
    model = network(ODD[kind]())
    for variable in model.weights:
        variable.assign(variable + np.random.default_rng(0).uniform(0, 0.1, variable.shape))
    outputs = np.asarray(model(DATA[0]))
    weights = model.get_weights()
    graph = ChannelGraph(model)
    copy = copy_model(graph)
    np.testing.assert_allclose(np.asarray(copy(DATA[0])), outputs, atol=1e-6)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert ChannelGraph(copy).fingerprint() == graph.fingerprint()
    copy.compile("sgd", "mse")
    before = copy.get_weights()
    copy.train_on_batch(DATA[0], np.ones((32, 4)))
    assert all((a != b).any() for a, b in zip(before, copy.get_weights(), strict=True) if a.dtype == "float32")
    np.testing.assert_array_equal(np.asarray(model(DATA[0])), outputs)  # the two share nothing
    result = prune(model)
    assert result.model.get_layer("first").filters == 6
    assert type(result.model.layers[3]) is type(model.layers[3])
    applied = result.plan.apply(model)
    np.testing.assert_allclose(np.asarray(applied(DATA[0])), np.asarray(result.model(DATA[0])), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(model(DATA[0])), outputs)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_plan_fits_the_same_model_whatever_own_layers_are_called(tmp_path):
    keras.saving.register_keras_serializable("tests")(Renamed)
    model = network(Renamed(8))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] != [layer.name for layer in model.layers]
    plan = prune(model).plan
    small, again = plan.apply(model), plan.apply(loaded)
    np.testing.assert_array_equal(np.asarray(small(DATA[0])), np.asarray(again(DATA[0])))
    old = dataclasses.replace(plan, fingerprint=ChannelGraph(model).fingerprint(names_of_custom_layers=True))
    assert old.fingerprint != plan.fingerprint
    old.apply(model)


def test_a_layer_that_cannot_be_copied_is_named_before_anything_is_trained(monkeypatch):
    model = network(Unmakeable(keras.ops.relu))
    monkeypatch.setattr(sys.modules["dcp_tf.pruning.prune_model"], "select", lambda *_: pytest.fail("went on"))
    with pytest.raises(UsageError, match=r"layer 'unmakeable' \(Unmakeable\) cannot be recreated.*has no get_config"):
        prune(model)


def test_names_that_tensorflow_refuses():
    result = prune(network(name="<digits net>"))  # of the model alone: none is lost
    assert result.model.get_layer("first").filters == 6
    model = network(name="<digits net>")
    prune(model)
    assert model.name == "<digits net>"
    with pytest.raises(UsageError, match="no layer called 'conv one': rename it"):
        prune(network(first="conv one"))


def test_a_stated_batch_size_goes_where_it_can():
    result = prune(network(batch_size=16))
    assert result.model.inputs[0].shape[0] is None
    with pytest.raises(UsageError, match="built for batches of 16 images"):
        prune(network(layers.Lambda(lambda x: keras.ops.reshape(x, (16, 8, 8, 8))), batch_size=16))


def test_models_of_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = network()
        with pytest.raises(UsageError, match=r"outside of strategy.scope\(\)"):
            prune(model)
    result = prune(model)
    assert not isinstance(result.model.weights[0].value, tf.distribute.DistributedValues)
    graph = ChannelGraph(model)
    small = rebuild(graph, result.plan.kept(graph))
    np.testing.assert_array_equal(np.asarray(small(DATA[0])), np.asarray(result.model(DATA[0])))
    with pytest.raises(UsageError, match="belong to a strategy"):
        fit(model, lambda epoch: None, [], TrainConfig(epochs=1))


def test_inputs_that_must_be_integers_are_integers():
    """Batches hold numbers as floats, which `one_hot`, `take` and `%` of integers do not take."""
    letters, words = (keras.Input((12,), dtype="int32", name=name) for name in ("letters", "words"))
    table = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    x = layers.Concatenate()(
        [
            keras.ops.one_hot(letters, 5),
            keras.ops.take(table, words % 5, axis=0),
            layers.Embedding(5, 4)(keras.ops.right_shift(words, 1)),
        ]
    )
    for name in ("first", "second"):
        x = layers.Conv1D(8, 3, activation="relu", name=name)(x)
    model = keras.Model([letters, words], layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 5, (64, 12)), rng.integers(0, 9, (64, 12))
    method = dcp_tf.DCP(rate=0.5, round_to=1, recover=0.01)
    once = TrainConfig(epochs=1, batch_size=32)
    result = dcp_tf.prune(model, (inputs, rng.integers(0, 3, 64)), method, auxiliary=once, finetuning=once)
    assert [group.kept for group in result.plan.groups]
    inputs = tuple(map(keras.ops.convert_to_tensor, inputs))
    masked = dcp_tf.prune(model, (inputs,), dcp_tf.L1(rate=0.5, round_to=1), finetuning=NONE)
    graph = ChannelGraph(model)
    kept = graph.kept({group.name: group.kept for group in masked.plan.groups})
    np.testing.assert_allclose(rebuild(graph, kept)(inputs), masked.model(inputs), atol=1e-5)
