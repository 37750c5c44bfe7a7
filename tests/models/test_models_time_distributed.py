"""Layers that are called on each step of a sequence: called once, they give the same numbers."""

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf
from dcp_tf import models
from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.models import steps_as_rows
from dcp_tf.models.time_distributed import note_of_wrapped_models
from dcp_tf.pruning.context import choose_groups

STEPS = layers.TimeDistributed


def frames_network():
    """The network of one frame, its second layer frozen."""
    frame = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv")(frame)
    x = layers.Conv2D(5, 3, activation="relu", name="frozen", trainable=False)(layers.BatchNormalization()(x))
    return keras.Model(frame, layers.GlobalAveragePooling2D()(x), name="frames")


def single_layers():
    clip = keras.Input((4, 8, 8, 3), name="clip")
    x = STEPS(layers.Conv2D(6, 3, name="inner"), name="first")(clip)
    x = layers.ReLU()(STEPS(layers.BatchNormalization(name="inner"), name="norm")(x))
    x = STEPS(layers.Flatten())(STEPS(layers.Conv2D(5, 3, name="inner"), name="second")(x))
    return keras.Model(clip, layers.Dense(3, name="last")(layers.LSTM(4)(x)))


def nested_model():
    clip = keras.Input((4, 8, 8, 3), name="clip")
    x = layers.GRU(4)(STEPS(frames_network(), name="each_frame")(clip))
    return keras.Model(clip, layers.Dense(3, name="last")(x))


def sequential():
    convolutions = [STEPS(layers.Conv2D(6, 3)), STEPS(layers.MaxPooling2D()), STEPS(layers.Conv2D(5, 2))]
    last = [STEPS(layers.Flatten()), layers.GlobalAveragePooling1D(), layers.Dense(3, name="last")]
    return keras.Sequential([keras.Input((4, 8, 8, 3), name="clip"), *convolutions, *last])


def inside_another():
    clip = keras.Input((4, 8, 8, 3), name="clip")
    return keras.Model(clip, sequential()(clip) * 2.0)


def steps_of_steps_and_a_shared_wrapper():
    clip = keras.Input((4, 8, 8, 3), name="clip")
    shared = STEPS(STEPS(layers.Dense(3, activation="relu")), name="shared")
    x = STEPS(STEPS(layers.Dense(3)), name="rows_of_rows")(clip)
    return keras.Model(clip, layers.Dense(3)(layers.Flatten()(shared(shared(x)))))


def one_layer_in_two_wrappers():
    clip = keras.Input((4, 8, 8, 3), name="clip")
    dense = layers.Dense(3, activation="relu")
    x = STEPS(dense, name="again")(STEPS(dense, name="once")(clip))
    return keras.Model(clip, layers.Dense(3)(layers.Flatten()(x)))


NETWORKS = [
    single_layers,
    nested_model,
    sequential,
    inside_another,
    steps_of_steps_and_a_shared_wrapper,
    one_layer_in_two_wrappers,
]


def clips(model):
    return np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_numbers_stay_and_the_wrappers_go(network, tmp_path):
    model = network()
    wanted, weights = model(clips(model)), sorted((tuple(w.shape), w.trainable) for w in model.weights)
    rows = steps_as_rows(model)
    np.testing.assert_allclose(rows(clips(model)), wanted, atol=1e-6)
    assert not [layer for layer in rows._flatten_layers() if isinstance(layer, STEPS)]
    assert sorted((tuple(w.shape), w.trainable) for w in rows.weights) == weights
    assert rows.layers[0].name == "clip"
    rows.save(tmp_path / "rows.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "rows.keras")(clips(model)), rows(clips(model)))
    np.testing.assert_allclose(model(clips(model)), wanted, atol=1e-6)  # the model that was given still works


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        (single_layers, {"first": 6, "second": 5}),
        (nested_model, {"each_frame/conv": 6, "each_frame/frozen": 5}),
        (sequential, {"time_distributed": 6, "time_distributed_2": 5}),
    ],
)
def test_the_channels_can_be_pruned_under_the_names_of_the_wrappers(network, groups):
    keras.backend.clear_session()
    model = network()
    # The graph of a model inside of a wrapper shows only here; the layers inside of wrappers are known anyway.
    before = {} if network is nested_model else groups
    assert {group.name: group.size for group in ChannelGraph(model).prunable()} == before
    assert {group.name: group.size for group in ChannelGraph(steps_as_rows(model)).prunable()} == groups


def test_every_step_costs_what_one_costs():
    each, whole = count_cost(frames_network()).macs, count_cost(steps_as_rows(nested_model()))
    rest = 4 * 3 + 4 * 3 * 4 * (5 + 4)
    assert whole.macs == 4 * each + rest


def test_what_cannot_be_rows_stays():
    masked = keras.Input((4, 5))
    x = STEPS(layers.Dense(6))(layers.Masking()(masked))
    model = keras.Model(masked, layers.LSTM(3)(x))
    assert steps_as_rows(model) is model
    clip = keras.Input((None, 8, 8, 3))
    x = layers.Conv3D(4, (1, 3, 3), name="before")(clip)
    model = keras.Model(clip, STEPS(keras.Sequential([layers.Conv2D(3, 3)]))(x))
    assert steps_as_rows(model) is model
    assert "steps_as_rows" in ChannelGraph(model).group("before").pinned_because


def test_a_model_without_steps_is_not_built_anew():
    model = frames_network()
    assert steps_as_rows(model) is model


def test_a_file_is_loaded_with_a_line(tmp_path, capsys):
    nested_model().save(tmp_path / "clips.keras")
    loaded = models.load(str(tmp_path / "clips.keras")).model
    assert "wraps in TimeDistributed are now called once, with all steps" in capsys.readouterr().err
    assert ChannelGraph(loaded).prunable()


def test_a_model_that_stays_inside_of_its_wrapper_is_named_with_what_opens_it():
    model, method = nested_model(), dcp_tf.L1(rate=0.5, round_to=1)
    with pytest.raises(dcp_tf.UsageError, match=r"TimeDistributed layer each_frame .* dcp_tf\.models\.steps_as_rows"):
        choose_groups(ChannelGraph(model), method)
    opened = dcp_tf.models.steps_as_rows(model)
    assert choose_groups(ChannelGraph(opened), method)
    assert "each_frame" in note_of_wrapped_models(model)
    assert not note_of_wrapped_models(opened)
