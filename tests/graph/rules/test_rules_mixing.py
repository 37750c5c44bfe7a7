"""Dense layers along any axes, and networks that mix positions with them."""

import math

import keras
import mixing_networks
import pytest
from equivalence import check, random_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from dcp_tf.graph import ChannelGraph, count_cost, group_fractions

SIZES = {"t": 3, "u": 2, "c": 5, "d": 4, "h": 2, "m": 6, "n": 3}


@st.composite
def equations(draw):
    """Letters of an input, a kernel, an output and a bias, all in random order."""
    read = draw(st.sampled_from([["c"], ["c", "d"], []]))
    made = draw(st.sampled_from([["m"], ["m", "n"]]))
    shared, kept = draw(st.sampled_from([[], ["h"]])), draw(st.sampled_from([[], ["t"], ["t", "u"]]))
    if not read + shared:
        read = ["c"]
    term, kernel, output = (
        "".join(draw(st.permutations(x))) for x in (kept + shared + read, shared + read + made, kept + shared + made)
    )
    bias = "".join(x for x in output if draw(st.booleans()))
    return term, kernel, output, bias


@settings(max_examples=12)
@given(equations(), st.integers(0, 9), st.booleans())
def test_einsum_dense_of_any_equation(equation, seed, spread):
    term, kernel, output, bias = equation
    x = keras.Input((7,))
    y = layers.Reshape([SIZES[k] for k in term])(layers.Dense(math.prod(SIZES[k] for k in term))(x))
    if not spread:  # channels along the last axis alone
        y = layers.Dense(SIZES[term[-1]])(y)
    sizes = tuple(SIZES[k] for k in output)
    y = layers.EinsumDense(f"b{term},{kernel}->b{output}", sizes, bias_axes=bias or None, activation="relu")(y)
    y = layers.Dense(3)(y) if seed % 2 else y
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    check(model, seed=seed, save=True, shrinks=bool(random_plan(ChannelGraph(model))))


FOLLOWED = {
    "kernel in another order": ("btc,mcn->btmn", (3, 6, 3), "mn", {"first": 5, "einsum": 3}),
    "position by position": ("btc,tcm->btm", (3, 6), "tm", {"first": 5, "einsum": 6}),
    "along another axis": ("btc,tm->bmc", (6, 5), "mc", {"first": 5, "einsum": 6}),
    "a factor for each channel": ("btc,c->btc", (3, 5), None, {"first": 5}),
    "summed over positions": ("btc,cm->bm", 6, "m", {"first": 5, "einsum": 6}),
    "with an ellipsis": ("...c,cm->...m", 6, "m", {"first": 5, "einsum": 6}),
    "with one behind": ("bt...,tm->bm...", 6, None, {"first": 5, "einsum": 6}),
}


@pytest.mark.parametrize("kind", FOLLOWED)
def test_einsum_dense_follows(kind):
    equation, shape, bias, groups = FOLLOWED[kind]
    x = keras.Input((3, 2))
    y = layers.EinsumDense(equation, shape, bias_axes=bias, name="einsum")(layers.Dense(5, name="first")(x))
    y = layers.Flatten()(layers.ReLU()(y))
    check(keras.Model(x, layers.Dense(2)(y)), prunable=groups, save=True)


def test_a_kernel_for_each_head_is_even_and_heads_can_go():
    x = keras.Input((7,))
    y = layers.Reshape((4, 6))(layers.Dense(24, name="first")(x))
    y = layers.EinsumDense("bhc,hcd->bhd", (4, 5), bias_axes="hd", activation="relu", name="each")(y)
    graph, _ = check(keras.Model(x, layers.Dense(3)(layers.Flatten()(y))), save=True)
    assert {(g.size, g.are_heads) for g in graph.prunable()} == {(6, False), (5, False), (4, True)}


def test_a_bias_that_keras_may_turn_stays():
    x = keras.Input((6, 2))
    y = layers.EinsumDense("btc,tm->bmc", (6, 9), bias_axes="m", name="einsum")(layers.Dense(9, name="first")(x))
    graph = ChannelGraph(keras.Model(x, layers.Dense(2)(y)))
    assert "has a bias that Keras adds along the last axis" in graph.group("first").pinned_because


BATCH = layers.BatchNormalization
NETWORKS = {
    "MLP-Mixer": (mixing_networks.mlp_mixer, {"tokens0_hidden": 5, "channels0_hidden": 7}),
    "MLP-Mixer, followed": (lambda: mixing_networks.mlp_mixer(normalize=BATCH, depth=1), {"patches": 6}),
    "MLP-Mixer under RMSNormalization": (
        lambda: mixing_networks.mlp_mixer(normalize=layers.RMSNormalization, depth=1),
        {"tokens0_hidden": 5},
    ),
    "gMLP": (lambda: mixing_networks.gmlp(depth=1), {"hidden0": 4}),
    "gMLP, followed": (lambda: mixing_networks.gmlp(normalize=BATCH, depth=1), {"patches": 6, "hidden0": 4}),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_that_mix_positions(kind):
    make, groups = NETWORKS[kind]
    graph, _ = check(make(), save=True)
    assert groups.items() <= {g.name: g.size for g in graph.prunable(residual=True)}.items()
    of_positions = [g for g in graph.groups if g.producers[0].startswith(("tokens0_out", "gate0"))]
    assert of_positions
    assert all(g.pinned_because for g in of_positions)


def test_plans_of_earlier_versions_still_fit():
    model = mixing_networks.mlp_mixer(depth=1)
    earlier = ChannelGraph(model, opens_attention=False)
    assert earlier.group("patches").size == 1
    assert earlier.fingerprint() in ChannelGraph(model).fingerprints()


def test_costs_of_mixed_positions_follow_the_channels():
    graph = ChannelGraph(mixing_networks.mlp_mixer(normalize=BATCH, depth=1))
    macs = {x.path: x.macs for x in count_cost(graph).layers}
    halved = {x.path: x.macs for x in count_cost(graph, graph.at_widths({"patches": 3})).layers}
    assert macs["tokens0_hidden"] == 6 * 4 * 5
    assert halved["tokens0_hidden"] == 3 * 4 * 5
    assert group_fractions(graph)["patches"][1] > 0.8


@settings(max_examples=6)
@given(st.lists(st.sampled_from("tcrpa"), min_size=2, max_size=5), st.booleans(), st.integers(0, 9))
def test_random_chains_of_dense_layers_along_two_axes(chain, skips, seed):
    x = keras.Input((4, 3))
    y = layers.Dense(5)(x)
    for kind in chain:
        before = y
        if kind in "tp":
            y = layers.Permute((2, 1))(layers.Dense(y.shape[1] if skips else 6)(layers.Permute((2, 1))(y)))
        elif kind == "c":
            y = layers.Dense(y.shape[-1] if skips else 7, activation="relu")(y)
        elif kind == "r":
            y = layers.BatchNormalization()(y)
        else:
            y = layers.Reshape((y.shape[2], y.shape[1]))(layers.Activation("gelu")(y))
        y = layers.Add()([before, y]) if skips and before.shape == y.shape else y
    y = layers.Dense(2)(layers.Flatten()(y) if seed % 2 else layers.GlobalAveragePooling1D()(y))
    model = keras.Model(x, y)
    check(model, seed=seed, shrinks=bool(random_plan(ChannelGraph(model))))
