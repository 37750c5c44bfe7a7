"""Auxiliary classifiers: the papers' places, named places, what a head computes, and what is shared."""

import keras
import numpy as np
import pytest

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.models.networks.preresnet import preresnet
from dcp_tf.training import Classification
from dcp_tf.training.heads import augment, bottlenecks

layers = keras.layers
CLASSES = Classification()


def resnet(blocks, projected=()):
    """Post-activation basic blocks; those in `projected` have a convolution on the shortcut."""
    image = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D(2)(layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(image))))
    for number in range(1, blocks + 1):
        y = layers.ReLU()(layers.Conv2D(4, 3, padding="same", name=f"b{number}_conv1")(x))
        y = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name=f"b{number}_conv2")(y))
        x = layers.Conv2D(4, 1, name=f"b{number}_shortcut")(x) if number in projected else x
        x = layers.ReLU(name=f"b{number}_relu")(layers.Add(name=f"add{number}")([x, y]))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def plain(convolutions, ending=None):
    image = keras.Input((16, 16, 3))
    x = image
    for number in range(1, convolutions + 1):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(layers.BatchNormalization(name=f"norm{number}")(x))
    x = layers.Flatten(name="flat")(x)
    return keras.Model(image, layers.Dense(5, activation=ending, name="out")(x))


def places(model, count, at=()):
    return [p.layer for p in augment(ChannelGraph(model), count, CLASSES, at).positions]


def test_preresnet56_has_heads_after_blocks_7_14_21():
    adds = [f"stage{stage}_block{block}_add" for stage in (1, 2, 3) for block in range(1, 10)]
    assert places(preresnet(56, (8, 8, 3), width=4), 3) == [adds[k - 1] for k in (7, 14, 21)]


@pytest.mark.parametrize(
    ("blocks", "count", "found"),
    [(8, 2, [3, 6]), (16, 3, [5, 10, 15]), (27, 3, [7, 14, 21]), (8, 1, [5]), (4, 3, [2, 3])],
)
def test_residual_nets_have_the_papers_places(blocks, count, found):
    model = resnet(blocks, projected=(3, 5))
    assert places(model, count) == [f"add{number}" for number in found]


@pytest.mark.parametrize(
    ("convolutions", "count", "found"),
    [(9, 2, [4, 8]), (16, 2, [6, 12]), (3, 1, [2]), (4, 0, []), (3, 8, [1, 2]), (1, 2, [])],
)
def test_plain_nets_have_heads_at_the_ends_of_evenly_spread_layers(convolutions, count, found):
    assert places(plain(convolutions), count) == [f"relu{number}" for number in found]


def test_no_feature_map_but_the_last_ones_vectors_carry_heads_in_a_dense_net():
    rows = [layers.Dense(8, activation="relu", name=f"dense{k}") for k in (1, 2, 3, 4, 5)]
    model = keras.Sequential([keras.Input((6,)), *rows, layers.Dense(3)])
    augmented = augment(ChannelGraph(model), 2, CLASSES)
    assert [p.layer for p in augmented.positions] == ["dense2", "dense4"]
    assert [y.shape for y in augmented.model(np.zeros((2, 6), "float32"))] == [(2, 3)] * 3


def test_a_model_of_one_layer_has_no_place():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    augmented = augment(ChannelGraph(model), 3, CLASSES)
    assert augmented.positions == augmented.heads == ()
    assert augmented.loss_weights() == [1.0]


def test_named_layers_carry_heads_from_shallow_to_deep():
    assert places(plain(6), 2, at=("relu5", "norm2", "conv3")) == ["norm2", "conv3", "relu5"]


def test_named_layers_inside_nested_models():
    image, inner = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    body = keras.Model(inner, layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a")(inner)), name="body")
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(body(image))))
    assert places(model, 1, at=("body/a",)) == ["body/a"]
    assert places(model, 1) == ["body/a"]


@pytest.mark.parametrize("name", ["no_such_layer", "relu", "RELU1"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UsageError, match=f"no layer '{name}'"):
        places(plain(3), 1, at=(name,))


def test_a_layer_whose_output_is_no_feature_map_is_refused():
    image = keras.Input((8, 8, 8, 3))
    x = layers.Conv3D(4, 3)(image)
    x = layers.Reshape((2, 3, 6, 6, 4), name="folded")(x)
    model = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    with pytest.raises(UsageError, match=r"'folded' cannot carry .* \(None, 2, 3, 6, 6, 4\)"):
        places(model, 1, at=("folded",))


def test_several_outputs_need_an_objective_of_each():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(image)
    with pytest.raises(UsageError, match="2 outputs"):
        augment(ChannelGraph(keras.Model(image, [layers.Dense(2)(x), layers.Dense(3)(x)])), 1, CLASSES)


def test_heads_are_weighted_by_the_square_of_their_depth():
    augmented = augment(ChannelGraph(plain(19)), 0, CLASSES, at=("relu1", "relu5", "relu10", "relu19"))
    assert augmented.depth == 20
    assert [p.depth for p in augmented.positions] == [1, 5, 10, 19]
    expected = [0.01, 0.25**2, 0.5**2, 0.95**2, 1.0]
    np.testing.assert_allclose(augmented.loss_weights(), expected)


def test_depth_counts_layers_with_kernels_on_the_longest_way():
    augmented = augment(ChannelGraph(resnet(4, projected=(2,))), 0, CLASSES, at=("add1", "b2_shortcut", "add2"))
    assert [p.depth for p in augmented.positions] == [3, 4, 5]
    assert augmented.depth == 10


@pytest.mark.filterwarnings("error")
def test_the_augmented_model_is_the_model_with_more_outputs():
    model = plain(4)
    graph = ChannelGraph(model)
    augmented = augment(graph, 2, CLASSES)
    mine = {id(v) for v in model.variables}
    assert mine < {id(v) for v in augmented.model.variables}
    heads = [v for v in augmented.model.variables if id(v) not in mine]
    assert {id(v) for v in heads} == {id(v) for head in augmented.heads for v in head.variables}
    x = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(augmented.model(x)[-1], model(x))
    model.get_layer("conv1").kernel.assign(model.get_layer("conv1").kernel * 2)
    np.testing.assert_array_equal(augmented.model(x)[-1], model(x))


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_a_head_is_equation_3(kind):
    keras.utils.set_random_seed(0)
    model = plain(3, None if kind == "logits" else kind)
    augmented = augment(ChannelGraph(model), 0, Classification(kind), at=("conv2",))
    (head,) = augmented.heads
    rng = np.random.default_rng(1)
    for variable in head.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    maps = keras.Model(model.inputs[0], model.get_layer("conv2").output)(x).numpy()
    gamma, beta, mean, variance, kernel, bias = (
        next(v.numpy() for v in head.variables if v.path.endswith(name))
        for name in ("gamma", "beta", "moving_mean", "moving_variance", "dense/kernel", "dense/bias")
    )
    normed = gamma * (maps - mean) / np.sqrt(variance + 1e-3) + beta
    expected = np.maximum(normed, 0).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(augmented.model(x, training=False)[0], expected, rtol=1e-4, atol=1e-5)


def test_everything_passes_through_a_bottleneck():
    graph = ChannelGraph(resnet(2))
    found = [graph.trace.calls[i].path for i in bottlenecks(graph.trace)]
    assert {"add1", "b1_relu", "add2", "b2_relu"} <= set(found)
    assert not {"b1_conv1", "b1_conv2", "b2_conv1", "b2_conv2"} & set(found)


def unet():
    image = keras.Input((16, 16, 3))
    a = layers.Conv2D(4, 3, padding="same", name="in1")(image)
    b = layers.Conv2D(4, 3, padding="same", name="in2")(layers.MaxPooling2D()(a))
    x = layers.Conv2D(4, 3, padding="same", name="deep")(layers.MaxPooling2D()(b))
    x = layers.Concatenate(name="join2")([layers.UpSampling2D()(x), b])
    x = layers.Conv2D(4, 3, padding="same", name="out2")(x)
    x = layers.Concatenate(name="join1")([layers.UpSampling2D()(x), a])
    x = layers.Conv2D(4, 3, padding="same", name="out1")(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="end")(x))


def test_a_net_with_skips_has_heads_spread_over_its_depth_that_give_maps():
    graph = ChannelGraph(unet(), [(None, 16, 16, 3)])
    augmented = augment(graph, 2, CLASSES)
    first, second = (p.depth for p in augmented.positions)
    assert 1 <= first < second < augmented.depth
    assert [tuple(y.shape) for y in augmented.model(np.zeros((2, 16, 16, 3), "float32"))] == [(2, 16, 16, 2)] * 3


def test_a_vector_carries_no_head_of_maps():
    image = keras.Input((8,))
    x = layers.Dense(16, activation="relu", name="code")(image)
    x = layers.Reshape((4, 4, 1), name="grid")(x)
    x = layers.Conv2D(4, 3, padding="same", name="near")(x)
    model = keras.Model(image, layers.Conv2D(1, 3, padding="same")(x))
    assert [p.layer for p in augment(ChannelGraph(model), 1, CLASSES).positions] == ["grid"]
    with pytest.raises(UsageError, match="'code' cannot carry"):
        places(model, 1, at=("code",))


def test_windows_and_steps_that_are_rows_of_the_batch_carry_no_heads():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="before")(image)
    x = keras.ops.reshape(x, (-1, 4, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="halves")(x)
    x = keras.ops.reshape(x, (-1, 8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="after")(x)
    model = keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    found = places(model, 4)
    assert found[0] == "before"
    assert "halves" not in found
    with pytest.raises(UsageError, match="'halves' cannot carry an auxiliary classifier"):
        places(model, 0, at=["halves"])
