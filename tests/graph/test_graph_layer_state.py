"""What a layer has learned besides its weights survives every copy that is made of it, at any depth."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from dcp_tf.graph import ChannelGraph, copy_model, masked, rebuild
from dcp_tf.models import in_full_precision

FLOATS = np.random.default_rng(0).normal(5.0, 3.0, (32, 6)).astype("float32")
INTEGERS = np.random.default_rng(1).integers(0, 9, (32, 6))
WORDS = np.array([["cat", "dog", "bird", "cat", "fish", "cow"]] * 32)[
    np.argsort(FLOATS, axis=None).reshape(32, 6) % 32, 0
]
SAMPLES = {"float32": FLOATS, "int64": INTEGERS, "string": np.where(FLOATS > 5, WORDS, "goat")}
# How layers that need arguments are made; all others are called without.
ARGUMENTS = {
    "Discretization": {"num_bins": 5},
    "StringLookup": {"output_mode": "int"},
    "TextVectorization": {"output_mode": "multi_hot", "max_tokens": 9},
}


def stateful_layers():
    """All layers of Keras that learn something which `set_weights` does not give them."""
    kinds = [kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, keras.Layer)]
    return sorted(
        {
            kind.__name__
            for kind in kinds
            if any(hasattr(kind, name) for name in ("adapt", "finalize_state", "save_assets"))
        }
    )


def adapted(name):
    """Such a layer that has seen data, and the kind of data it takes."""
    for dtype, values in SAMPLES.items():
        layer = getattr(layers, name)(**ARGUMENTS.get(name, {}))
        values = values[:, 0] if name == "TextVectorization" else values
        try:
            layer.adapt(values)
            layer(values[:2])
        except Exception:  # what a layer does not take, it refuses in its own way
            continue
        return layer, dtype, values
    raise AssertionError(f"{name} learns from none of the samples: add what it takes to SAMPLES or ARGUMENTS")


@keras.saving.register_keras_serializable("tests")
class Holder(layers.Layer):
    """Layers in an attribute, a list and a dict."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.listed, self.named = inner[0], [inner[1]], {"a": inner[2]}

    def build(self, shape):
        for layer in (self.inner, *self.listed, *self.named.values()):
            if not layer.built:
                layer.build(shape)

    def call(self, x):
        return ops.concatenate([self.inner(x), self.listed[0](x), self.named["a"](x)], axis=-1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 3 * shape[-1])

    def get_config(self):
        inner = (self.inner, *self.listed, *self.named.values())
        return super().get_config() | {"inner": [keras.saving.serialize_keras_object(each) for each in inner]}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"inner": [keras.saving.deserialize_keras_object(each) for each in config["inner"]]})


def model_on(front, shape, dtype):
    x = keras.Input(shape, dtype=dtype)
    y = ops.cast(front(x), "float32")
    y = layers.Dense(8, activation="relu", name="wide")(layers.Flatten()(y))
    return keras.Model(x, layers.Dense(3, name="last")(y))


def outputs(model, values):
    return np.asarray(model(ops.convert_to_tensor(values)))


def check_all_copies(model, values, folder):
    expected = outputs(model, values)
    assert expected.std() > 0
    np.testing.assert_array_equal(outputs(copy_model(ChannelGraph(model)), values), expected)
    graph = ChannelGraph(model)
    kept = graph.kept({"wide": [0, 2, 3, 7]})
    small = rebuild(graph, kept)
    np.testing.assert_allclose(outputs(small, values), outputs(masked(graph, kept), values), atol=1e-5)
    small.save(folder / "small.keras")
    loaded = keras.models.load_model(folder / "small.keras")
    np.testing.assert_array_equal(outputs(loaded, values), outputs(small, values))


@pytest.mark.parametrize("name", stateful_layers())
def test_every_stateful_layer_keeps_its_state(name, tmp_path):
    layer, dtype, values = adapted(name)
    check_all_copies(model_on(layer, values.shape[1:], dtype), values, tmp_path)


def test_all_known_stateful_layers_are_among_them():
    known = {"Discretization", "IntegerLookup", "Normalization", "StringLookup", "TextVectorization"}
    assert known <= set(stateful_layers())


def normalization(scale=1.0):
    layer = layers.Normalization()
    layer.adapt(FLOATS * scale)
    return layer


def discretization():
    layer = layers.Discretization(num_bins=5)
    layer.adapt(FLOATS)
    return layer


def nested(layer):
    x = keras.Input((6,))
    return keras.Model(x, keras.Sequential([layer, layers.Rescaling(0.5)])(x))


PLACES = {
    "pipeline": lambda: layers.Pipeline([normalization(), layers.Rescaling(2.0)]),
    "pipeline in a pipeline": lambda: layers.Pipeline([layers.Pipeline([normalization()]), layers.Rescaling(2.0)]),
    "nested models": lambda: nested(normalization()),
    "own layer": lambda: Holder([normalization(), normalization(2.0), normalization(-1.0)]),
    "own layer of bins": lambda: Holder([discretization(), normalization(), normalization(2.0)]),
    "time distributed": lambda: keras.Sequential(
        [layers.Reshape((1, 6)), layers.TimeDistributed(normalization()), layers.Reshape((6,))]
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_state_is_kept_at_any_depth(place, tmp_path):
    check_all_copies(model_on(PLACES[place](), (6,), "float32"), FLOATS, tmp_path)


@pytest.mark.parametrize("place", [place for place in PLACES if "own" not in place])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_full_precision_keeps_it(place, policy):
    plain = model_on(PLACES[place](), (6,), "float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        half = model_on(PLACES[place](), (6,), "float32")
    finally:
        keras.config.set_dtype_policy(before)
    half.set_weights(plain.get_weights())
    wide = in_full_precision(half)
    assert wide is not half
    np.testing.assert_allclose(outputs(wide, FLOATS), outputs(plain, FLOATS), rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Whitening(layers.Layer):
    """Keeps what it learns in attributes, and in its own entries of a file."""

    def adapt(self, values):
        self.center, self.scale = values.mean(axis=0), ops.convert_to_tensor(values.std(axis=0))

    def call(self, x):
        return (x - self.center) / self.scale

    def save_own_variables(self, store):
        store["center"], store["scale"] = self.center, ops.convert_to_numpy(self.scale)

    def load_own_variables(self, store):
        self.center, self.scale = np.asarray(store["center"]), ops.convert_to_tensor(store["scale"])

    def build(self, shape):
        if not hasattr(self, "center"):
            self.center, self.scale = np.zeros(shape[-1], "float32"), ops.ones(shape[-1])


def test_a_layer_of_ones_own_keeps_what_it_holds_in_attributes(tmp_path):
    layer = Whitening()
    layer.adapt(FLOATS)
    check_all_copies(model_on(layer, (6,), "float32"), FLOATS, tmp_path)


def test_frozen_layers_inside_of_a_layer_stay_frozen():
    layer = Holder([layers.Dense(6), layers.BatchNormalization(), layers.Dense(6)])
    model = model_on(layer, (6,), "float32")
    layer.listed[0].trainable = False
    layer.inner.bias.trainable = False
    copy = copy_model(ChannelGraph(model))
    assert [w.trainable for w in copy.variables] == [w.trainable for w in model.variables]
    assert len(copy.trainable_weights) == len(model.trainable_weights)
