"""Rotated streams: the same function in another basis, whose channels can be removed exactly."""

import re

import keras
import numpy as np
import pytest
from equivalence import check, difference, example_inputs, outputs, randomize
from keras import layers, ops

import dcp_tf
from dcp_tf.graph import ChannelGraph, shrinkable_fraction
from dcp_tf.graph.rotation import is_rotated, rotated
from dcp_tf.models.networks.mobilevit import mobilevit_cifar
from dcp_tf.models.networks.vit import vit_cifar

KINDS = (layers.Dense, layers.EinsumDense, layers.Conv2D)


def own_attention(x, width, heads, name, bias):
    """Attention of Dense layers, reshape, transpose, matmul and softmax."""

    def split(y):
        return ops.transpose(ops.reshape(y, (-1, y.shape[1], heads, width // heads)), (0, 2, 1, 3))

    query, key, value = (split(layers.Dense(width, use_bias=bias, name=f"{name}_{part}")(x)) for part in "qkv")
    weights = ops.softmax(ops.matmul(query / (width // heads) ** 0.5, ops.transpose(key, (0, 1, 3, 2))))
    y = ops.reshape(ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3)), (-1, x.shape[1], width))
    return layers.Dense(x.shape[-1], use_bias=bias, name=f"{name}_o")(y)


def attention(rng, x, name):
    kind, bias = rng.choice(["own", "heads", "grouped"]), bool(rng.integers(2))
    if kind == "own":
        return own_attention(x, 6, 2, name, bias)
    if kind == "heads":
        return layers.MultiHeadAttention(2, 3, use_bias=bias, name=name)(x, x)
    return layers.GroupQueryAttention(3, 4, 2, use_bias=bias, name=name)(x, x)


def stems(rng, width):
    """What a stream begins with: tokens, with a class token beside them perhaps."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 2, strides=2, use_bias=bool(rng.integers(2)), name="patches")(image)
    if rng.integers(2):
        x = x + layers.DepthwiseConv2D(3, padding="same", name="positions")(x)
    elif rng.integers(2):
        x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.Reshape((16, width), name="tokens")(x)
    if rng.integers(2):
        number = ops.cast(ops.zeros_like(x[:, :1, 0]), "int32")
        x = layers.Concatenate(axis=1)([layers.Embedding(1, width, name="class_token")(number), x])
    return image, x


def transformer(seed):
    """A random transformer with normalizations before its blocks."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(5, 9))
    kind = rng.choice(["LayerNormalization", "LayerNormalization", "RMSNormalization"])
    image, x = stems(rng, width)
    offset = {"center": bool(rng.integers(2)), "scale": bool(rng.integers(2))} if kind == "LayerNormalization" else {}
    for number in range(int(rng.integers(2, 4))):
        norm = getattr(layers, kind)(epsilon=0.02, name=f"norm{number}", **offset)
        x = layers.Add()([x, layers.Dropout(0.1)(attention(rng, norm(x), f"attention{number}"))])
        y = getattr(layers, kind)(name=f"mlp_norm{number}")(x)
        y = layers.Dense(9, activation="gelu", use_bias=bool(rng.integers(2)), name=f"hidden{number}")(y)
        y = layers.EinsumDense("abc,cd->abd", (y.shape[1], width), bias_axes="d", name=f"out{number}")(y)
        x = layers.Add()([x, y])
    pool = rng.choice(["mean", "first", "flat"])
    x = x if pool == "first" and kind == "RMSNormalization" else getattr(layers, kind)(name="last")(x)
    x = {"mean": layers.GlobalAveragePooling1D(), "first": lambda x: x[:, 0], "flat": layers.Flatten()}[pool](x)
    return keras.Model(image, layers.Dense(4, name="logits")(x))


def rotate(model, seed=0, spread=0.5):
    randomize(model, seed, spread)
    inputs = example_inputs(model)
    return dcp_tf.rotate_streams(model, np.random.default_rng(1).normal(size=(32, *inputs.shape[1:])).astype("float32"))


SEEDS = [0, 3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, *range(4, 24)))]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_transformers_compute_the_same_and_shrink_exactly(seed):
    model = transformer(seed)
    new = rotate(model, seed)
    inputs = example_inputs(model)
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5
    graph = ChannelGraph(new)
    streams = [g for g in graph.prunable(residual=True) if g.residual and len(g.consumers) > 3]
    assert streams
    assert not any(isinstance(layer, layers.LayerNormalization) for layer in new._flatten_layers())
    assert shrinkable_fraction(graph, kinds=KINDS) == 1
    check(new, configs=False, save=True)


@pytest.mark.parametrize("network", [vit_cifar, pytest.param(mobilevit_cifar, marks=pytest.mark.slow)])
def test_networks_of_the_zoo_are_rotated(network):
    model = network(width=16, blocks=2, heads=2) if network is vit_cifar else network()
    before = shrinkable_fraction(ChannelGraph(model), kinds=KINDS)
    new = rotate(model, spread=0.3)
    inputs = example_inputs(model)
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5
    assert shrinkable_fraction(ChannelGraph(new), kinds=KINDS) > max(0.95, before - 1e-9)


def test_the_first_channels_carry_the_most_and_a_mean_nothing():
    model = vit_cifar((8, 8, 3), 4, width=8, blocks=2, heads=2, patch=2)
    new = rotate(model)
    norm = new.get_layer("block2_mlp_norm_rotated")
    images = np.random.default_rng(2).normal(size=(32, 8, 8, 3)).astype("float32")
    values = keras.Model(new.inputs, norm.input)(images).numpy()
    energy = (values**2).mean((0, 1))
    assert energy[0] == energy.max()
    assert energy[-1] < 1e-9 * energy[0]


def post_norm(x):
    for number in range(2):
        x = layers.LayerNormalization(name=f"norm{number}")(x + layers.Dense(8, name=f"mlp{number}")(x))
    return x


def convnext(x):
    y = layers.LayerNormalization(name="norm0")(layers.DepthwiseConv2D(3, padding="same", name="mixer")(x))
    y = layers.Dense(8, name="out")(layers.Dense(12, activation="gelu", name="mlp0")(y))
    return layers.GlobalAveragePooling2D()(x + y)


def token_mixer(x):
    x = layers.Reshape((-1, 8))(x)
    y = layers.Permute((2, 1))(layers.LayerNormalization(name="norm0")(x))
    y = layers.Permute((2, 1))(layers.Dense(x.shape[1], activation="gelu", name="mixer")(y))
    return layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm1")(x + y))


def read_without_norm(x):
    y = layers.Dense(8, name="out")(layers.Dense(12, activation="gelu")(layers.LayerNormalization(name="norm0")(x)))
    return layers.GlobalAveragePooling2D()(x + y)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (post_norm, "norm0: .*add.* norm1: norm0"),
        (convnext, "norm0: mixer cannot take another basis"),
        (token_mixer, "norm0: .*mixer"),
        (read_without_norm, "norm0: logits"),
    ],
)
def test_streams_that_cannot_be_rotated_are_told_with_the_layer_in_the_way(block, reason):
    image = keras.Input((8, 8, 3))
    y = block(layers.Conv2D(8, 2, strides=2, name="patches")(image))
    model = keras.Model(image, layers.Dense(4, name="logits")(y))
    with pytest.raises(dcp_tf.UsageError, match=re.compile(reason, re.DOTALL)):
        rotate(model)


def test_what_the_stream_leads_to_without_a_normalization_reads_it_in_the_new_basis():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 2, strides=2, name="patches")(image)
    y = layers.Dense(12, activation="gelu", name="hidden")(layers.RMSNormalization(name="norm")(x))
    x = x + layers.Dense(8, name="out")(y)
    model = keras.Model(image, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)))
    new, inputs = rotate(model), example_inputs(model)
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5
    assert len(new.layers) == len(model.layers)


def test_a_rotated_model_is_not_rotated_again():
    model = vit_cifar((8, 8, 3), 4, width=8, blocks=1, heads=2, patch=2)
    new = rotate(model)
    assert is_rotated(new)
    assert not is_rotated(model)
    data = dcp_tf.data.as_split(np.zeros((2, 8, 8, 3), "float32")).bound_to(new)
    again, lines = rotated(new, data)
    assert "already" in lines[0]
    assert all(np.array_equal(a, b) for a, b in zip(new.get_weights(), again.get_weights(), strict=True))


def test_models_inside_of_models_are_rotated():
    inner_input = keras.Input((16, 8))
    y = layers.LayerNormalization(name="norm")(inner_input)
    block = keras.Model(
        inner_input, inner_input + layers.MultiHeadAttention(2, 4, name="attention")(y, y), name="block"
    )
    mlp = [layers.LayerNormalization(name="norm"), layers.Dense(9, "gelu"), layers.Dense(8)]
    chain = keras.Sequential([keras.Input((16, 8)), *mlp], name="chain")
    image = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 2, strides=2, activation="relu", name="patches")(image))
    x = block(x)
    x = x + chain(x)
    y = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="last")(x))
    model = keras.Model(image, layers.Dense(4, name="logits")(y))
    new, inputs = rotate(model), example_inputs(model)
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5
    assert {layer.name for layer in model.layers} <= {layer.name.removesuffix("_rotated") for layer in new.layers}
    check(new, configs=False, save=True)


@keras.saving.register_keras_serializable("rotation")
class LayerScale(layers.Layer):
    """Multiplies each channel by a weight, or adds it."""

    def __init__(self, adds=False, **kwargs):
        super().__init__(**kwargs)
        self.adds = adds

    def build(self, shape):
        self.gamma = self.add_weight(shape=shape[-1:], initializer="random_normal", name="gamma")

    def call(self, x):
        return x + self.gamma if self.adds else x * self.gamma

    def get_config(self):
        return {**super().get_config(), "adds": self.adds}


def scaled_transformer(adds=False, shared=False):
    image = keras.Input((4, 6))
    x, scale = layers.Dense(8, name="embedding")(image), LayerScale(adds, name="scale")
    for number in range(2):
        scale = scale if shared else LayerScale(adds, name=f"scale{number}")
        attention = layers.MultiHeadAttention(2, 3, name=f"attention{number}")
        normal = layers.LayerNormalization(name=f"norm{number}")(x)
        x = x + scale(layers.Dropout(0.1)(attention(normal, normal)))
        hidden = layers.Dense(9, activation="gelu", name=f"hidden{number}")(layers.LayerNormalization()(x))
        x = x + LayerScale(adds, name=f"mlp_scale{number}")(layers.Dense(8, name=f"out{number}")(hidden))
    x = layers.LayerNormalization(name="last")(x)
    return keras.Model(image, layers.Dense(4, name="logits")(layers.GlobalAveragePooling1D()(x)))


def test_layers_that_scale_branches_go_into_the_kernels_before_them():
    model = scaled_transformer()
    new = rotate(model)
    inputs = example_inputs(model)
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5
    assert not [layer for layer in new.layers if isinstance(layer, LayerScale)]
    assert shrinkable_fraction(ChannelGraph(new), True, KINDS) > 0.95
    check(new, permutation=False)


def test_a_scale_of_two_kernels_is_not_folded():
    model = scaled_transformer(shared=True)
    new, inputs = rotate(model), example_inputs(model)
    assert [layer.name for layer in new.layers if isinstance(layer, LayerScale)] == ["scale"]
    assert difference(outputs(model, inputs), outputs(new, inputs)) < 1e-5


def test_a_layer_that_adds_is_not_folded():
    model = scaled_transformer(adds=True)
    randomize(model)
    with pytest.raises(dcp_tf.UsageError, match="scale0"):
        dcp_tf.rotate_streams(model, np.ones((4, 4, 6), np.float32))
