"""to_functional: subclassed models become functional ones with the same outputs, weights and names, or are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, masked, rebuild
from dcp_tf.models import in_full_precision

RNG = np.random.default_rng(0)


class Block(layers.Layer):
    """Equal names in every block; `training` is passed on."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(filters + 4, 3, padding="same", name="conv")
        self.norm = layers.BatchNormalization(name="norm")
        self.drop = layers.Dropout(0.5, name="drop")
        self.project = layers.Conv2D(filters, 1, name="project")

    def call(self, inputs, training=False):
        x = keras.activations.relu(self.norm(self.conv(inputs), training=training))
        return inputs + self.project(self.drop(x, training=training))


class Scale(layers.Layer):
    """Has a weight of its own for each channel."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="uniform", name="gain")

    def call(self, inputs):
        return inputs * self.gain


class Encoder(keras.Model):
    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(8) for _ in range(depth)]

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class TwoInputs(keras.Model):
    """Dicts in and out, lists of layers, one block called twice, a nested model, Python that knows no values."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = layers.Conv2D(8, 3, padding="same", name="stem")
        self.encoder = Encoder(2, name="encoder")
        self.scale = Scale(name="scale")
        self.shared = Block(8, name="shared")
        self.meta = layers.Dense(8, name="meta")
        self.heads = {"classes": layers.Dense(4, name="head"), "box": layers.Dense(2, name="head")}

    def call(self, inputs, training=None):
        x = self.scale(self.encoder(self.stem(inputs["image"])))
        small = self.shared(x[:, ::2, ::2])
        x = self.shared(x)
        batch, height, _, channels = ops.shape(x)
        rows = ops.reshape(ops.transpose(ops.reshape(x, (batch, -1, 2, channels)), (0, 2, 1, 3)), (batch, -1, channels))
        pooled = ops.mean(rows, axis=1) + ops.mean(small, axis=(1, 2)) * height
        joined = ops.concatenate([pooled, ops.relu(self.meta(inputs["meta"]))], axis=-1)
        return {name: head(joined) for name, head in self.heads.items()}


SPEC = {"image": (8, 8, 3), "meta": (5,)}


def batch(count=3):
    return {name: RNG.normal(size=(count, *shape)).astype("float32") for name, shape in SPEC.items()}


@pytest.fixture(scope="module")
def pair():
    model = TwoInputs()
    model.compile(keras.optimizers.AdamW(3e-3), loss={"classes": "mse", "box": "mae"})
    return model, dcp_tf.to_functional(model, SPEC)


def test_outputs_weights_and_names_are_those_of_the_model(pair):
    model, functional = pair
    inputs = batch()
    expected = model(inputs, training=False)
    outputs = functional(inputs, training=False)
    assert outputs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-6, atol=1e-6)
    assert {id(v) for v in functional.weights} == {id(v) for v in model.weights}
    assert list(functional.input) == ["image", "meta"]
    assert functional.get_layer("encoder").get_layer(model.encoder.blocks[0].name).get_layer("conv")
    assert functional.get_layer("scale") is model.scale


def test_dropout_and_batch_statistics_still_train(pair):
    _, functional = pair
    inputs = batch()
    first, second = functional(inputs, training=True), functional(inputs, training=True)
    assert np.abs(first["box"] - second["box"]).max() > 0
    assert np.abs(functional(inputs)["box"] - functional(inputs)["box"]).max() == 0


def test_the_result_is_compiled_alike(pair):
    model, functional = pair
    assert isinstance(functional.optimizer, keras.optimizers.AdamW)
    assert functional.optimizer is not model.optimizer
    assert functional.loss == {"classes": "mse", "box": "mae"}


def test_opened_blocks_lose_inner_channels(pair):
    _, functional = pair
    graph = ChannelGraph(functional)
    inner = [g for g in graph.prunable() if g.name.endswith("/conv")]
    assert len(inner) == 3
    assert "no rule" not in (graph.group("stem").pinned_because or "")
    kept = graph.kept({group.name: range(5) for group in inner})
    inputs = batch()
    small, full = rebuild(graph, kept)(inputs), masked(graph, kept)(inputs)
    for name in full:
        np.testing.assert_allclose(small[name], full[name], rtol=1e-4, atol=1e-5)


def test_names_and_plans_do_not_depend_on_what_was_built_before():
    model = Encoder(1)
    first = dcp_tf.to_functional(model, (8, 8, 8))
    [ops.relu(keras.Input((3,))) + layers.Flatten()(keras.Input((3, 1))) for _ in range(3)]
    second = dcp_tf.to_functional(model, (8, 8, 8))
    assert ChannelGraph(first).fingerprint() == ChannelGraph(second).fingerprint()
    (block,) = [layer for layer in first.layers if isinstance(layer, keras.Model)]
    names = {operation.name for operation in block._operations}
    assert {"conv", "norm", "drop", "project", "re_lu", "add"} < names


def test_the_result_saves_and_loads_without_the_code_of_opened_layers(tmp_path):
    inputs = keras.Input((8, 8, 8))
    functional = dcp_tf.to_functional(keras.Model(inputs, Block(8, name="block")(inputs), name="net"))
    functional.save(tmp_path / "net.keras")
    images = RNG.normal(size=(2, 8, 8, 8)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_allclose(loaded(images), functional(images), rtol=1e-6)
    assert not [layer for layer in loaded._flatten_layers() if isinstance(layer, Block)]


@keras.saving.register_keras_serializable("test_models_retrace")
class Derived(layers.Layer):
    """Its config holds a value that its `__init__` does not take, as some layers of KerasHub do."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, shape):
        self.gain = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return inputs * self.gain * self.factor

    def get_config(self):
        return super().get_config() | {"factor": self.factor, "inverse": 1 / self.factor}


def test_layers_with_derived_values_in_their_config_can_be_saved(tmp_path):
    inputs = keras.Input((4,))
    x = Derived(2.0)(layers.Dense(8, name="dense")(inputs))
    functional = dcp_tf.to_functional(keras.Model(inputs, layers.Dense(3, name="last")(x)))
    graph = ChannelGraph(functional)
    small, values = rebuild(graph, graph.kept({})), np.ones((2, 4), "float32")
    for number, model in enumerate((functional, small)):
        model.save(tmp_path / f"{number}.keras")
        loaded = keras.models.load_model(tmp_path / f"{number}.keras")
        np.testing.assert_allclose(loaded(values), functional(values), rtol=1e-6)


def test_functional_models_without_custom_layers_are_returned_as_they_are():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    assert dcp_tf.to_functional(model) is model


def test_several_arguments_of_call():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, a, b):
            return self.dense(a), self.dense(b)

    arrays = [np.ones((2, 4), "float32"), np.zeros((2, 4), "float32")]
    model = Two()
    expected = model(*arrays)
    with pytest.raises(UsageError, match=r"takes a, b: .* a list of their shapes"):
        dcp_tf.to_functional(model)
    functional = dcp_tf.to_functional(model, [(4,), (4,)])
    for output, value in zip(functional(arrays), expected, strict=True):
        np.testing.assert_allclose(output, value, rtol=1e-6)
    assert [x.name for x in functional.inputs] == ["a", "b"]


def test_a_model_that_was_called_needs_no_shapes():
    model = Encoder(1)
    images = RNG.normal(size=(2, 6, 6, 8)).astype("float32")
    expected = model(images)
    functional = dcp_tf.to_functional(model)
    assert functional.input_shape == (None, 6, 6, 8)
    np.testing.assert_allclose(functional(images), expected, rtol=1e-6, atol=1e-6)


def test_mixed_precision_computes_as_before_and_can_be_widened():
    class Mixed(keras.Model):
        def __init__(self):
            super().__init__(dtype="mixed_float16")
            self.dense = layers.Dense(3, dtype="mixed_float16")

        def call(self, x):
            return ops.cast(self.dense(x * 3.14159), "float32")

    model, values = Mixed(), RNG.normal(size=(4, 5)).astype("float32")
    functional = dcp_tf.to_functional(model, (5,))
    assert np.array_equal(functional(values), model(values))
    wide = in_full_precision(functional)(values)
    assert 0 < np.abs(wide - functional(values)).max() < 0.05


class Refused(keras.Model):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = layers.Conv2D(4, 3, name="conv")
        if kind == "own weight":
            self.gain = self.add_weight(shape=(4,), name="gain")

    def call(self, inputs):
        x = self.conv(inputs)
        return getattr(self, self.kind.replace(" ", "_"))(x)

    def tf_concat(self, x):
        return tf.concat([x, x], -1)

    def tf_resize(self, x):
        return tf.image.resize(x, (4, 4))

    def condition(self, x):
        return x if ops.max(x) > 3 else 2 * x

    def loop(self, x):
        return ops.stack([row for row in x])  # noqa: C416

    def to_numpy(self, x):
        return x * np.asarray(x).max()

    def attribute(self, x):
        return x.numpy()

    def batch_size(self, x):
        return x + ops.zeros((ops.shape(x)[0], 1, 1, 4))

    def inner_weight(self, x):
        return x * ops.mean(self.conv.kernel)

    def random(self, x):
        return x * keras.random.uniform((1, 1, 1, 4))

    def own_weight(self, x):
        return x * self.gain

    def constant(self, x):
        return ops.ones((2, 2))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("tf concat", r"`return tf.concat\(\[x, x\], -1\)`: tf.concat .* use keras.ops.concatenate"),
        ("tf resize", r"tf.image.resize takes no symbolic tensor: use keras.ops.image.resize"),
        ("condition", r"`return x if ops.max\(x\) > 3 else 2 \* x`: a Python condition .* keras.ops.where"),
        ("loop", "a loop runs over a tensor: .* keras.ops.unstack"),
        ("to numpy", "NumPy needs values"),
        ("attribute", r"`return x.numpy\(\)`: symbolic tensors have no numpy"),
        ("batch size", r"the batch size is open: use -1"),
        (
            "inner weight",
            r"`return x \* ops.mean\(self.conv.kernel\)`: it reads .*conv/kernel apart .* put this line into",
        ),
        ("random", "it computes something else"),
        ("own weight", "gain is a weight of .* itself: put this line into a keras.layers.Layer"),
        ("constant", "an output does not depend on the inputs"),
    ],
)
def test_what_cannot_be_retraced_is_one_line_that_names_the_line(kind, reason):
    with pytest.raises(UsageError, match=rf"Refused cannot be retraced: .*test_models_retrace.py:\d+: .*{reason}") as e:
        dcp_tf.to_functional(Refused(kind), (8, 8, 3))
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (None, r"was never called.*to_functional\(model, input_spec\)"),
        (keras.Input((), dtype="string"), "string inputs .* outside of the model"),
        (tf.RaggedTensorSpec((None, None, 3)), "ragged inputs .* pad them"),
        ("images", "input_spec must be a shape"),
    ],
)
def test_inputs_that_cannot_be_traced_are_refused(spec, reason):
    with pytest.raises(UsageError, match=reason):
        dcp_tf.to_functional(Refused("own weight"), spec)


def test_string_inputs_are_refused_before_the_data_is_read():
    words = keras.Input((3,), dtype="string")
    numbers = layers.StringLookup(vocabulary=["a", "b"])(words)
    model = keras.Model(words, layers.Dense(2)(ops.cast(numbers, "float32")))
    with pytest.raises(UsageError, match=r"string inputs .* outside of the model"):
        dcp_tf.prune(model, (np.full((4, 3), "a"), np.zeros(4, int)), dcp_tf.L1(rate=0.5))


def test_what_is_lost_is_logged(capsys):
    class Noisy(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x, training=False):
            if training:
                x = x + 1.0
            return self.dense(x)

        def train_step(self, data):
            return {}

    functional = dcp_tf.to_functional(Noisy(), (4,))
    log = capsys.readouterr().err
    assert "test_models_retrace.py" in log
    assert "what call does in training alone is left out" in log
    assert "without the train_step of" in log
    assert functional.count_params() == 15
