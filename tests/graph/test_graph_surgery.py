"""What surgery leaves: exact slices, the same model at rate 0, files that plain Keras reads, costs as predicted."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from equivalence import difference, example_inputs, outputs, random_plan, randomize
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, apply_masks, copy_model, count_cost, masked, masks, rebuild


def small_net(data_format="channels_last"):
    first = data_format == "channels_first"
    axis = 1 if first else -1
    x = keras.Input((3, 12, 12) if first else (12, 12, 3))
    y = layers.Conv2D(8, 3, padding="same", data_format=data_format, name="a")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(axis=axis, name="norm")(y))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, data_format=data_format, name="depth")(y)
    y = layers.Conv2D(6, 1, data_format=data_format, name="b")(y)
    y = layers.Flatten(data_format=data_format, name="flat")(y)
    return keras.Model(x, layers.Dense(4, name="last")(y))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("keep", [[0], [7], [3], [1, 2, 5], [0, 1, 2, 3, 4, 6, 7]])
def test_exact_slices(keep, data_format):
    model = small_net(data_format)
    randomize(model)
    graph = ChannelGraph(model)
    small = rebuild(graph, graph.kept({"a": keep, "b": [0, 4]}))
    old = {w.path: np.asarray(w) for w in model.weights}
    new = {w.path: np.asarray(w) for w in small.weights}
    expected = {
        "a/kernel": old["a/kernel"][:, :, :, keep],
        "a/bias": old["a/bias"][keep],
        "norm/gamma": old["norm/gamma"][keep],
        "norm/moving_variance": old["norm/moving_variance"][keep],
        "depth/kernel": old["depth/kernel"][:, :, keep],
        "b/kernel": old["b/kernel"][:, :, keep][..., [0, 4]],
        "last/kernel": old["last/kernel"].reshape(12, 12, 6, 4)[:, :, [0, 4]].reshape(-1, 4),
        "last/bias": old["last/bias"],
    }
    for path, value in expected.items():
        np.testing.assert_array_equal(new[path], value)


def test_masks_zero_what_surgery_removes():
    model = small_net()
    randomize(model)
    graph = ChannelGraph(model)
    kept = graph.kept({"a": [0, 2], "b": [1]})
    before = [np.asarray(w) for w in model.weights]
    by_name = {graph.records[key].path: mask for key, mask in masks(graph, kept).items()}
    assert set(by_name) == {"b", "last"}
    np.testing.assert_array_equal(by_name["b"][0][0, 0, :, 0], [1, 0, 1, 0, 0, 0, 0, 0])
    full, inputs = masked(graph, kept), example_inputs(model)
    for value, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(value, np.asarray(variable))
    apply_masks(graph, kept)
    assert difference(outputs(model, inputs), outputs(full, inputs)) == 0


def train(model, steps=3):
    keras.utils.set_random_seed(1)
    model.compile("adam", "mse")
    x = example_inputs(model)
    for _ in range(steps):
        model.train_on_batch(x, np.ones((2, 4)))
    return model


def test_a_copy_is_the_same_model_through_training():
    model = small_net()
    randomize(model)
    copy = copy_model(ChannelGraph(model))
    assert copy.get_config() == model.get_config()
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    train(model), train(copy)
    for old, new in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


def test_a_rebuilt_model_trains():
    model = small_net()
    graph = ChannelGraph(model)
    small = rebuild(graph, graph.kept(random_plan(graph)))
    before = {w.path: np.asarray(w) for w in small.trainable_weights}
    train(small, 1)
    for variable in small.trainable_weights:
        value = np.asarray(variable)
        assert np.isfinite(value).all()
        assert (value != before[variable.path]).any()


def test_a_rebuilt_model_is_the_start_of_another_round():
    model = small_net()
    for seed in range(3):
        graph = ChannelGraph(model)
        model = rebuild(graph, graph.kept(random_plan(graph, 0.3, seed)))
    assert model.get_layer("a").filters == 8 - 2 - 2 - 1
    graph.kept({g.name: range(g.size) for g in graph.groups})


PLAIN_KERAS = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
values = np.load(sys.argv[2])
assert not any(name.startswith("dcp_tf") for name in sys.modules)
np.testing.assert_allclose(np.asarray(model(values["x"])), values["y"], rtol=1e-5, atol=1e-5)
"""


@pytest.mark.slow
def test_plain_keras_loads_the_file(tmp_path):
    model = small_net()
    randomize(model)
    graph = ChannelGraph(model)
    small = rebuild(graph, graph.kept(random_plan(graph)))
    x = example_inputs(small)
    small.save(tmp_path / "small.keras")
    np.savez(tmp_path / "values.npz", x=x, y=np.asarray(small(x)))
    arguments = [str(tmp_path / "small.keras"), str(tmp_path / "values.npz")]
    subprocess.run([sys.executable, "-c", PLAIN_KERAS, *arguments], check=True, cwd=tmp_path)


def test_costs_by_hand():
    cost = count_cost(small_net())
    conv_a, depth, conv_b, last = 27 * 8, 9 * 8, 8 * 6, 864 * 4
    assert cost.params == conv_a + 8 + 16 + depth + conv_b + 6 + last + 4
    assert cost.macs == 144 * (conv_a + depth + conv_b) + last
    assert cost.flops == 2 * cost.macs - 144 * 8  # the depthwise convolution adds no bias
    assert {c.path: c.macs for c in cost.layers}["depth"] == 144 * 72
    assert cost.uncounted == ()
    assert cost.activations == 2 * 144 * 8


def test_costs_of_open_image_sizes():
    x = keras.Input((None, None, 3))
    model = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="a")(x)))
    with pytest.raises(UsageError, match="output size of 'a' is unknown"):
        count_cost(model)
    assert count_cost(model, input_shape=(10, 10, 3)).macs == 64 * 27 * 4


def test_the_fingerprint_is_of_the_architecture():
    first, second = ChannelGraph(small_net()), ChannelGraph(small_net())
    randomize(second.trace.model)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() == ChannelGraph(copy_model(first)).fingerprint()
    smaller = rebuild(first, first.kept({"a": range(7)}))
    assert ChannelGraph(smaller).fingerprint() != first.fingerprint()


def test_the_trace_runs_parts_of_the_model():
    model = small_net()
    randomize(model)
    trace = ChannelGraph(model).trace
    x = example_inputs(model)
    whole = trace.run({trace.inputs[0]: x}, trace.outputs)
    assert difference(outputs(model, x), [np.asarray(whole[trace.outputs[0]])]) == 0
    middle = next(c for c in trace.calls if c.path == "depth").outputs[0]
    value = trace.run({trace.inputs[0]: x}, [middle])[middle]
    again = trace.run({middle: value}, trace.outputs)[trace.outputs[0]]
    assert difference(outputs(model, x), [np.asarray(again)]) < 1e-6
    assert trace.calls[trace.needed(trace.outputs, [middle])[0]].path == "b"
    with pytest.raises(ValueError, match="input of the model"):
        trace.needed(trace.outputs, [])
