"""Whatever has no rule pins what touches it and says so; a user's own rule frees it."""

import keras
import pytest
from equivalence import check
from keras import layers, ops

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, rebuild, register_rule


def between(layer, size=6, rank=2):
    x = keras.Input((size,) * rank + (3,))
    y = layers.Dense(8, name="first")(x)
    y = layer(layers.Dense(8, name="before")(y))
    y = layers.Dense(5, name="after")(y)
    return keras.Model(x, layers.Dense(2, name="last")(y))


@keras.saving.register_keras_serializable("tests")
class Mystery(layers.Layer):
    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], shape[-1]), name="mix")

    def call(self, x):
        return ops.matmul(x, self.mix)


@keras.saving.register_keras_serializable("tests")
class Centred(layers.Dense):
    def call(self, x, training=None):
        return super().call(x - ops.mean(x, axis=-1, keepdims=True))


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - ops.mean(kernel, axis=(0, 1, 2)))


@keras.saving.register_keras_serializable("tests")
class Documented(layers.Conv2D):
    """Changes nothing but what it is called."""

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable("tests")
class Halved(layers.GRUCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs * 0.5, states, training)


UNKNOWN = {
    "own layer": (lambda: Mystery(name="odd"), 2),
    "overridden call": (lambda: Centred(8, name="odd"), 2),
    "overridden operation": (lambda: Standardized(8, 3, name="odd"), 2),
    "inside of a wrapper": (lambda: layers.SpectralNormalization(Centred(8), name="odd"), 2),
    "own cell": (lambda: layers.RNN([layers.GRUCell(8), Halved(8)], return_sequences=True, name="odd"), 1),
    "activation over units": (lambda: layers.GRU(8, activation="softmax", name="odd"), 1),
    "softmax activation": (lambda: layers.Dense(8, activation="softmax", name="odd"), 2),
    "layer as activation": (lambda: layers.Dense(8, activation=layers.PReLU(), name="odd"), 2),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_layers_pin_their_neighbors_and_nothing_else(kind):
    make, rank = UNKNOWN[kind]
    graph, _ = check(between(make(), rank=rank))
    free = {g.name for g in graph.prunable()}
    assert {"first", "after"} <= free
    assert "odd" not in free
    reasons = graph.group("before").pinned_because or graph.group("odd").pinned_because
    assert "odd" in reasons


@keras.saving.register_keras_serializable("tests")
class DropPath(layers.Layer):
    """Drops whole images in training; it has a state of random numbers."""

    def __init__(self, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.random = rate, keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        return x * keras.random.bernoulli((ops.shape(x)[0], 1, 1, 1), 1 - self.rate, seed=self.random)


@keras.saving.register_keras_serializable("tests")
class Reversed(layers.Layer):
    def call(self, x):
        return x[..., ::-1]


def test_a_rule_can_be_registered_by_the_name_of_a_class():
    @register_rule(f"{Mystery.__module__}.Renamed")
    def renamed(call):
        return call.inputs[0]

    class Renamed(layers.Layer):
        def call(self, x):
            return x[..., ::-1]

    Renamed.__qualname__ = "Renamed"
    graph = ChannelGraph(between(Renamed(name="odd")))
    assert graph.group("before").pinned_because is None


@keras.saving.register_keras_serializable("tests")
class Projection(layers.Layer):
    """Has no weights of its own, and a number that follows those inside."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.Dense(units)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_numbers_of_a_layer_follow_the_weights_inside_of_it():
    @register_rule(Projection)
    def projection(call):
        inner, channels = call.operation.inner, call.fresh(call.operation.units)
        call.consume(inner.kernel, 0, call.channels(0, -1))
        call.weight(inner.kernel, {1: channels})
        call.weight(inner.bias, {0: channels})
        call.config("units", channels)
        return call.place(channels, -1)

    graph = ChannelGraph(between(Projection(7, name="odd")))
    small = rebuild(graph, graph.kept({"odd": range(3)})).get_layer("odd")
    assert small.units == small.inner.units == 3


def test_layers_that_do_nothing_in_inference_let_channels_pass():
    check(between(DropPath(name="odd")), prunable={"first": 8, "before": 8, "after": 5})
    graph, _ = check(between(Reversed(name="odd")))
    assert "odd" in graph.group("before").pinned_because


def test_a_subclass_that_changes_no_computation_keeps_its_rule():
    check(between(Documented(7, 3, name="odd")), prunable={"first": 8, "before": 8, "odd": 7, "after": 5})


def test_statistics_over_channels_pin():
    for layer in (layers.LayerNormalization(), layers.GroupNormalization(groups=4)):
        graph, _ = check(between(layer), prunable={"first": 8, "after": 5})
        assert "takes statistics" in graph.group("before").pinned_because


def test_low_rank_adaptation_pins():
    model = between(layers.Activation("relu"))
    model.get_layer("after").enable_lora(2)
    graph = ChannelGraph(model)
    assert "LoRA" in graph.group("before").pinned_because
    assert [g.name for g in graph.prunable()] == ["first"]


@keras.saving.register_keras_serializable("tests")
class Project(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_a_rule_for_an_own_layer_is_a_few_lines():
    assert "no rule" in ChannelGraph(between(Project(7))).group("before").pinned_because

    @register_rule(Project)
    def project(call):
        made = call.fresh(call.operation.units)
        kernel = call.consume("kernel", 0, call.channels(0, axis=-1))
        call.weight("kernel", {1: made})
        call.config("units", made)
        call.multiplies(kernel, positions=36, output_axis=1)
        return call.place(made, axis=-1)

    groups = {"first": 8, "before": 8, "odd": 7, "after": 5}
    check(between(Project(7, name="odd")), prunable=groups, save=True)


@keras.saving.register_keras_serializable("tests")
class Forgetful(layers.Layer):
    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")
        self.second = self.add_weight(shape=(shape[-1],), name="second")

    def call(self, x):
        return x * self.gamma + self.second


def test_a_rule_that_misses_a_weight_is_named():
    @register_rule(Forgetful)
    def forgetful(call):
        call.weight("gamma", {0: call.channels(0, axis=-1)})
        return call.inputs[0]

    graph = ChannelGraph(between(Forgetful(name="odd")))
    with pytest.raises(RuntimeError, match=r"odd \(Forgetful\).*second.*the rule misses an axis"):
        rebuild(graph, graph.kept({"before": [0, 1]}))


def test_a_rule_with_wrong_labels_is_named():
    @register_rule(Wrong)
    def wrong(call):
        call.weight("gamma", {0: call.channels(0, axis=-1)[:3]})
        return call.inputs[0]

    with pytest.raises(ValueError, match=r"odd: axis 0 of .*gamma has 8 positions, its rule gave 3"):
        ChannelGraph(between(Wrong(name="odd")))


class Wrong(Forgetful):
    def call(self, x):
        return x * self.gamma


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused_in_one_line():
    with pytest.raises(UsageError, match="not a functional or built Sequential"):
        ChannelGraph(Subclassed())
    with pytest.raises(UsageError, match="not a functional or built Sequential"):
        ChannelGraph(keras.Sequential([layers.Dense(3)]))


def test_a_subclassed_model_inside_a_functional_one_is_pinned():
    x = keras.Input((6,))
    inner = Subclassed()
    y = inner(layers.Dense(8, name="before")(layers.Dense(7, name="first")(x)))
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(y)))
    assert [g.name for g in graph.prunable()] == ["first"]


def test_plans_are_checked():
    graph = ChannelGraph(between(layers.LayerNormalization()))
    with pytest.raises(UsageError, match="no channel group 'nothing'"):
        graph.kept({"nothing": [0]})
    with pytest.raises(UsageError, match=r"cannot be removed: .*takes statistics"):
        graph.kept({"before": [0]})
    with pytest.raises(UsageError, match="at least one has to stay"):
        graph.kept({"first": []})
    with pytest.raises(UsageError, match=r"has channels 0\.\.7, received \[0, 8\]"):
        graph.kept({"first": [0, 8]})
