"""Rebuilt equals masked, layer kind by layer kind."""

import keras
import numpy as np
import pytest
from equivalence import check
from keras import layers


def image_net(middle, size=8, channels=8, rank=2, finish=None):
    """Convolution, the layers under test, convolution: what the middle does to channels shows at both ends."""
    x = keras.Input((size,) * rank + (3,))
    conv = getattr(layers, f"Conv{rank}D")
    y = conv(channels, 3, padding="same", name="first")(x)
    for layer in middle if isinstance(middle, list) else [middle]:
        y = layer(y)
    y = layers.Dense(4, name="last")(y) if finish is None else finish(y)
    return keras.Model(x, y)


CONVOLUTIONS = {
    "Conv2D": (2, lambda: layers.Conv2D(6, 3, name="middle")),
    "Conv2D no bias": (2, lambda: layers.Conv2D(6, 3, use_bias=False, strides=2, name="middle")),
    "Conv2D dilated": (2, lambda: layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="middle")),
    "Conv2D activation": (2, lambda: layers.Conv2D(6, 1, activation="gelu", name="middle")),
    "Conv1D": (1, lambda: layers.Conv1D(6, 3, name="middle")),
    "Conv1D causal": (1, lambda: layers.Conv1D(6, 3, padding="causal", name="middle")),
    "Conv3D": (3, lambda: layers.Conv3D(6, 3, name="middle")),
    "Conv1DTranspose": (1, lambda: layers.Conv1DTranspose(6, 3, name="middle")),
    "Conv2DTranspose": (2, lambda: layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="middle")),
    "Conv3DTranspose": (3, lambda: layers.Conv3DTranspose(6, 2, name="middle")),
    "SeparableConv1D": (1, lambda: layers.SeparableConv1D(6, 3, name="middle")),
    "SeparableConv2D": (2, lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2, name="middle")),
    "Dense": (2, lambda: layers.Dense(6, activation="relu", name="middle")),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_layers_that_make_channels(kind):
    rank, make = CONVOLUTIONS[kind]
    check(image_net(make(), rank=rank), prunable={"first": 8, "middle": 6}, save=True)


@pytest.mark.parametrize(("rank", "kind"), [(1, "Conv1D"), (2, "Conv2D"), (3, "Conv3D")])
def test_grouped_convolutions_keep_equal_groups(rank, kind):
    model = image_net(getattr(layers, kind)(6, 3, groups=2, name="middle"), rank=rank)
    _, small = check(model, prunable={"first": 4, "middle": 3})
    layer = small.get_layer("middle")
    assert layer.groups == 2
    assert layer.filters % 2 == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.DepthwiseConv2D(3, name="middle"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False, name="middle"),
        lambda: layers.Conv2D(8, 3, groups=8, name="middle"),
        lambda: layers.Conv2D(24, 3, groups=8, name="middle"),
    ],
)
def test_depthwise_follows_its_input(make):
    check(image_net(make()), prunable={"first": 8})


def test_depthwise_1d_follows_its_input():
    check(image_net(layers.DepthwiseConv1D(3, depth_multiplier=2), rank=1), prunable={"first": 8})


def test_a_convolution_of_one_input_channel_is_no_depthwise():
    x = keras.Input((8, 8, 1))
    y = layers.Conv2D(6, 3, name="wide")(x)
    y = layers.Conv2D(1, 3, name="narrow")(y)
    y = layers.Conv2D(5, 3, name="after")(y)
    check(keras.Model(x, layers.Dense(3)(y)), prunable={"wide": 6, "after": 5})


FOLLOWERS = {
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "BatchNormalization no scale": lambda: layers.BatchNormalization(scale=False, center=False),
    "BatchNormalization over rows": lambda: layers.BatchNormalization(axis=1),
    "GroupNormalization per channel": lambda: layers.GroupNormalization(groups=-1),
    "ReLU": lambda: layers.ReLU(6.0),
    "LeakyReLU": lambda: layers.LeakyReLU(),
    "ELU": lambda: layers.ELU(),
    "PReLU": lambda: layers.PReLU(),
    "PReLU shared": lambda: layers.PReLU(shared_axes=[1, 2]),
    "PReLU shared channels": lambda: layers.PReLU(shared_axes=[1, 2, 3]),
    "PReLU shared rows": lambda: layers.PReLU(shared_axes=[1]),
    "Activation": lambda: layers.Activation("swish"),
    "Softmax over rows": lambda: layers.Softmax(axis=1),
    "MaxPooling2D": lambda: layers.MaxPooling2D(),
    "AveragePooling2D": lambda: layers.AveragePooling2D(2, padding="same"),
    "ZeroPadding2D": lambda: layers.ZeroPadding2D(((1, 0), (0, 2))),
    "Cropping2D": lambda: layers.Cropping2D(1),
    "UpSampling2D": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "Resizing": lambda: layers.Resizing(5, 7),
    "Dropout": lambda: layers.Dropout(0.5, seed=3),
    "SpatialDropout2D": lambda: layers.SpatialDropout2D(0.3),
    "AlphaDropout": lambda: layers.AlphaDropout(0.3),
    "GaussianNoise": lambda: layers.GaussianNoise(0.1),
    "GaussianDropout": lambda: layers.GaussianDropout(0.1),
    "Identity": lambda: layers.Identity(),
    "ActivityRegularization": lambda: layers.ActivityRegularization(l1=0.1),
    "Rescaling": lambda: layers.Rescaling(0.5, offset=0.1),
    "GlobalAveragePooling2D": lambda: layers.GlobalAveragePooling2D(),
    "GlobalMaxPooling2D keepdims": lambda: layers.GlobalMaxPooling2D(keepdims=True),
    "Flatten": lambda: layers.Flatten(),
    "Permute": lambda: layers.Permute((2, 1, 3)),
    "Reshape": lambda: layers.Reshape((4, 16, 8)),
    "Reshape open": lambda: layers.Reshape((-1, 8)),
    "Reshape flat": lambda: layers.Reshape((-1,)),
    "Reshape rows into channels": lambda: layers.Reshape((8, 64)),
}


@pytest.mark.parametrize("kind", FOLLOWERS)
def test_layers_that_follow_channels(kind):
    check(image_net(FOLLOWERS[kind]()), prunable={"first": 8})


ONE_AND_THREE = {
    "MaxPooling1D": 1,
    "AveragePooling1D": 1,
    "GlobalAveragePooling1D": 1,
    "GlobalMaxPooling1D": 1,
    "ZeroPadding1D": 1,
    "Cropping1D": 1,
    "UpSampling1D": 1,
    "SpatialDropout1D": 1,
    "MaxPooling3D": 3,
    "AveragePooling3D": 3,
    "GlobalAveragePooling3D": 3,
    "GlobalMaxPooling3D": 3,
    "ZeroPadding3D": 3,
    "Cropping3D": 3,
    "UpSampling3D": 3,
    "SpatialDropout3D": 3,
}


@pytest.mark.parametrize("kind", ONE_AND_THREE)
def test_followers_in_one_and_three_dimensions(kind):
    rank = ONE_AND_THREE[kind]
    arguments = (0.2,) if "Dropout" in kind else (2,) if "AverageP" in kind and "Global" not in kind else ()
    check(image_net(getattr(layers, kind)(*arguments), rank=rank, size=6), prunable={"first": 8})


def test_rescaling_with_one_factor_per_channel():
    scale = np.linspace(0.5, 2, 8).tolist()
    model = image_net(layers.Rescaling(scale, offset=scale))
    _, small = check(model, prunable={"first": 8}, permutation=False, save=True)
    assert len(small.get_layer(index=2).scale) == small.get_layer("first").filters


@pytest.mark.parametrize("given", [True, False])
def test_normalization(given):
    mean, variance = np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)
    if given:
        layer = layers.Normalization(mean=mean.tolist(), variance=variance.tolist())
    else:
        layer = layers.Normalization()
        layer.adapt(np.random.default_rng(0).normal(mean, variance, (5, 8, 8, 8)).astype("float32"))
    check(image_net(layer), prunable={"first": 8}, permutation=not given, configs=given, save=True)


def test_normalization_of_images_in_front():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (5, 8, 8, 3)).astype("float32"))
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(5, 3, name="first")(layers.Rescaling(1 / 255)(layer(x)))
    check(keras.Model(x, layers.Dense(2)(y)), prunable={"first": 5}, configs=False)


@pytest.mark.parametrize("merge", ["Add", "Subtract", "Average", "Maximum", "Minimum", "Multiply"])
def test_merges_tie_channels(merge):
    x = keras.Input((6, 6, 3))
    a, b = layers.Conv2D(7, 3, name="a")(x), layers.Conv2D(7, 3, name="b")(x)
    y = getattr(layers, merge)()([a, b])
    graph, _ = check(keras.Model(x, layers.Dense(2)(y)), prunable={"a": 7})
    assert graph.group("a").producers == ("a", "b")
    assert graph.group("a").residual == (merge != "Multiply")


def test_concatenation_keeps_its_parts_apart():
    x = keras.Input((6, 6, 3))
    a, b = layers.Conv2D(7, 3, name="a")(x), layers.Conv2D(4, 3, name="b")(x)
    y = layers.Concatenate()([a, b])
    y = layers.BatchNormalization()(y)
    check(keras.Model(x, layers.Conv2D(3, 1)(y)), prunable={"a": 7, "b": 4})


def test_concatenation_over_space_ties():
    x = keras.Input((6, 6, 3))
    a, b = layers.Conv2D(7, 3, name="a")(x), layers.Conv2D(7, 3, name="b")(x)
    y = layers.Concatenate(axis=1)([a, b])
    check(keras.Model(x, layers.Conv2D(3, 1)(y)), prunable={"a": 7})


@pytest.mark.parametrize("keepdims", [True, False])
def test_squeeze_and_excite(keepdims):
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="wide")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=keepdims)(y)
    gate = layers.Dense(4, activation="relu", name="squeeze")(gate)
    gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
    y = layers.Multiply()([y, gate if keepdims else layers.Reshape((1, 1, 8))(gate)])
    graph, _ = check(keras.Model(x, layers.Conv2D(3, 1)(y)), prunable={"wide": 8, "squeeze": 4})
    assert graph.group("wide").producers == ("wide", "excite")


def test_a_gate_of_lower_rank_is_stretched_by_keras_itself():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="wide")(x)
    gate = layers.Dense(8, name="gate")(layers.GlobalAveragePooling2D()(y))
    check(keras.Model(x, layers.Conv2D(3, 1)(layers.Multiply()([y, gate]))), prunable={"wide": 8})


def test_a_spatial_gate_does_not_tie_channels():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="wide")(x)
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(y)
    check(keras.Model(x, layers.Conv2D(3, 1)(layers.Multiply()([y, gate]))), prunable={"wide": 8})


def test_flatten_then_dense_reads_every_place():
    check(image_net([layers.Flatten(), layers.Dense(5, name="hidden")]), prunable={"first": 8, "hidden": 5})


def test_dense_to_feature_map_and_back():
    x = keras.Input((10,))
    y = layers.Dense(4 * 4 * 6, name="seed")(x)
    y = layers.Reshape((4, 4, 6))(y)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2DTranspose(5, 3, strides=2, name="up")(y)
    check(keras.Model(x, layers.Conv2D(3, 1)(y)), prunable={"seed": 6, "up": 5})


def test_repeat_vector():
    x = keras.Input((10,))
    y = layers.RepeatVector(4)(layers.Dense(6, name="hidden")(x))
    check(keras.Model(x, layers.Conv1D(3, 2)(y)), prunable={"hidden": 6})


def test_embedding_makes_channels():
    x = keras.Input((7,), dtype="int32")
    y = layers.Embedding(9, 6, name="table")(x)
    y = layers.Conv1D(5, 3, name="conv")(y)
    check(keras.Model(x, layers.Dense(2)(layers.GlobalMaxPooling1D()(y))), prunable={"table": 6, "conv": 5})


def test_channel_shuffle_keeps_equal_groups():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(8, 3, name="wide")(x)
    y = layers.Reshape((4, 4, 2, 4))(y)
    y = layers.Permute((1, 2, 4, 3))(y)
    y = layers.Reshape((4, 4, 8))(y)
    check(keras.Model(x, layers.Conv2D(3, 1)(y)), prunable={"wide": 4})
