"""Heads, value channels and query-key pairs are chosen by every method, as many of each head."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from pruning_nets import BARE

import dcp_tf
from dcp_tf import data as load
from dcp_tf import models
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import prepare
from dcp_tf.pruning.allocation.sensitivity import loss_rises
from dcp_tf.pruning.allocation.steps import allocate
from dcp_tf.pruning.budget import Target, Widths, cost_at, group_width, possible_widths

HEADS, SIZE = 2, 4
INSIDE = ("attention/heads", "attention/query", "attention/value")


def network(by_hand=False):
    keras.utils.set_random_seed(3)
    x = keras.Input((6, 5))
    y = layers.Dense(7, activation="relu", name="first")(x)
    rows = 3 if by_hand == "windows" else 6
    y = ops.reshape(y, (-1, rows, 7)) if by_hand == "windows" else y
    if by_hand == "one layer":
        parts = ops.split(layers.Dense(3 * HEADS * SIZE, name="qkv")(y), 3, axis=-1)
        query, key, value = (layers.Reshape((rows, HEADS, SIZE))(part) for part in parts)
    elif by_hand:
        query, key, value = (
            layers.Reshape((rows, HEADS, SIZE))(layers.Dense(HEADS * SIZE, name=name)(y)) for name in ("q", "k", "v")
        )
    if by_hand:
        scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", query, key))
        y = layers.Reshape((rows, HEADS * SIZE))(ops.einsum("bhqk,bkhd->bqhd", scores, value))
        y = layers.Dense(7, name="attention")(y)
    else:
        y = layers.MultiHeadAttention(HEADS, SIZE, name="attention")(y, y)
    y = layers.GlobalAveragePooling1D()(layers.ReLU()(ops.reshape(y, (-1, 6, 7)) if by_hand == "windows" else y))
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="classes")(y))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def data(count=48):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 6, 5)).astype("float32"), rng.integers(0, 3, count)


def plain(rates, exclude, **settings):
    """DCP on one group, without anything but the choice and the fit."""
    options = {"round_to": 1, "min_channels": 1, "discrimination": 0.0, "auxiliary_losses": 0, "recover": 0}
    return dcp_tf.DCP(rates=rates, exclude=exclude, **options | settings)


def repeat_channel(kernel, bias, factor, part=0):
    """Makes the second channel of each head a multiple of the first, in one part of what a layer makes."""
    for variable in (kernel, bias):
        values = np.array(variable).reshape(variable.shape[0] if variable is kernel else 1, -1, HEADS, SIZE)
        values[:, part, :, 1] = factor * values[:, part, :, 0]
        variable.assign(values.reshape(variable.shape))


@pytest.mark.parametrize("by_hand", [False, True, "one layer", "windows"])
@pytest.mark.parametrize("what", ["query", "value"])
def test_a_channel_that_repeats_another_goes_without_loss(what, by_hand):
    model = network(by_hand)
    attention = None if by_hand else model.get_layer("attention")
    if by_hand == "one layer":
        repeat_channel(*model.get_layer("qkv").weights, 2.0, part=("query", "key", "value").index(what))
    else:
        layer = model.get_layer(what[0]) if by_hand else getattr(attention, f"{what}_dense")
        repeat_channel(layer.kernel, layer.bias, 2.0)
    graph = ChannelGraph(model)
    (name,) = (g.name for g in graph.prunable() if g.head is not None and g.silenced == (what == "query"))
    others = tuple(g.name for g in graph.prunable() if g.name != name)
    images, labels = data()
    method = plain(((name, 1 / SIZE),), others)
    result = dcp_tf.prune(model, (images, labels), method, **BARE, verbose=0)
    assert len(result.plan.channels[name]) == HEADS * (SIZE - 1)
    np.testing.assert_allclose(result.model.predict(images, verbose=0), model.predict(images, verbose=0), atol=2e-3)


def test_a_channel_that_attention_reads_goes_without_loss():
    model = network()
    first = model.get_layer("first")
    for variable in (first.kernel, first.bias):
        values = np.array(variable)
        values[..., 1] = 2 * values[..., 0]
        variable.assign(values)
    images, labels = data()
    method = plain((("first", 1 / 7),), (*INSIDE, "attention"))
    result = dcp_tf.prune(model, (images, labels), method, **BARE, verbose=0)
    assert len(result.plan.channels["first"]) == 6
    np.testing.assert_allclose(result.model.predict(images, verbose=0), model.predict(images, verbose=0), atol=2e-2)


METHODS = {
    "l1": dcp_tf.L1,
    "taylor": lambda **s: dcp_tf.Taylor(selection_samples=32, **s),
    "random": dcp_tf.Random,
    "thinet": lambda **s: dcp_tf.ThiNet(selection_samples=32, **s),
    "fast": lambda **s: dcp_tf.DCP(selection_samples=32, auxiliary_losses=0, recover=0, **s),
    "exact": lambda **s: dcp_tf.DCP(selection_samples=32, auxiliary_losses=0, selection="exact", **s),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_prunes_inside_of_attention(name):
    model = network()
    method = METHODS[name](rate=0.5, round_to=1, min_channels=1, rates=(("attention/heads", 0.5),), exclude=("first",))
    result = dcp_tf.prune(model, data(), method, **BARE, verbose=0)
    attention = result.model.get_layer("attention")
    # A common rate is shared by heads and the channels in them: of four channels two and a bit stay.
    assert (attention.num_heads, attention.key_dim, attention.value_dim) == (1, 3, 3)
    kept = {part: len(result.plan.channels[part]) for part in INSIDE}
    assert kept == {"attention/heads": 1, "attention/query": 3, "attention/value": 3}
    assert result.plan.apply(model).count_params() == result.model.count_params()


def test_plans_of_two_rounds_compose():
    model = network()
    method = dcp_tf.L1(round_to=1, min_channels=1, rate=0.3, rates=(("attention/heads", 0.5),))
    first = dcp_tf.prune(model, data(), method, **BARE, verbose=0)
    second = dcp_tf.prune(first.model, data(), dcp_tf.L1(round_to=1, min_channels=1, rate=0.4), **BARE, verbose=0)
    images, _ = data()
    both = first.plan.then(second.plan).apply(model)
    np.testing.assert_allclose(
        both.predict(images, verbose=0), second.model.predict(images, verbose=0), rtol=1e-4, atol=1e-5
    )


TARGETED = {
    "uniform": lambda **s: dcp_tf.L1(allocation="uniform", **s),
    "global": lambda **s: dcp_tf.DCP(selection_samples=32, auxiliary_losses=0, recover=0, **s),
}


@pytest.mark.parametrize("allocation", TARGETED)
def test_a_target_counts_the_products(allocation):
    model = network()
    method = TARGETED[allocation](target=dcp_tf.Target("macs", "60%"), round_to=1, min_channels=1)
    result = dcp_tf.prune(model, data(), method, **BARE, verbose=0)
    before, after = (dcp_tf.graph.count_cost(m) for m in (model, result.model))
    assert 0.45 < after.macs / before.macs <= 0.6
    products = next(layer.macs for layer in before.layers if layer.path == "attention/heads")
    assert products == 2 * 6 * 6 * HEADS * SIZE


def test_common_widths_of_heads_round_together():
    model = models.vit_cifar(blocks=1)  # four heads of 32 channels
    graph = ChannelGraph(model)
    inside = next(group for group in graph.groups if group.name.endswith("attention/value"))
    widths = possible_widths(inside, round_to=16)
    assert widths == list(range(16, 129, 16))
    assert group_width(inside, 0.36, round_to=16) == 96  # a fifth of it, as the heads go by the rest of the rate


@pytest.mark.parametrize("by_hand", [False, True])
def test_pairs_that_repeat_others_are_worth_nothing_to_the_allocation(by_hand):
    model = network(by_hand)
    layer = model.get_layer("q") if by_hand else model.get_layer("attention").query_dense
    for variable in (layer.kernel, layer.bias):
        variable.assign(variable * 0.1)  # so that the softmax is not one of 0 and 1
    repeat_channel(layer.kernel, layer.bias, 2.0)
    before = [np.array(weight) for weight in model.weights]
    split = load.make_array_split(*data(256))
    context = prepare(model, split, dcp_tf.DCP(selection_samples=256, auxiliary_losses=0, recover=0))
    rises = loss_rises(context, context.groups)
    (pairs,) = (group for group in context.groups if group.silenced)
    assert len(rises[pairs.name]) == pairs.size
    assert 0 <= rises[pairs.name][:HEADS].sum() < 1e-2 * rises[pairs.name][HEADS:].sum()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


@pytest.fixture(scope="module")
def three_blocks():
    return ChannelGraph(models.vit_cifar(width=96, blocks=3, heads=4))


def uneven(graph, widths, step):
    """The groups in heads whose channels in the heads that stay are no multiple of a number."""
    inside = [group for group in graph.prunable() if group.head is not None]
    assert len(inside) == 6
    left = {group.name: widths[group.name] // group.heads * widths[group.within] for group in inside}
    return {name: width for name, width in left.items() if width % step}


@pytest.mark.parametrize("step", [8, 16])
def test_channels_round_together_with_the_heads_that_stay(three_blocks, step):
    graph = three_blocks
    widths = Widths(graph, graph.prunable(), step)
    for percent in range(0, 101, 10):
        assert not uneven(graph, widths.at_rate(percent / 100), step)
    full = widths.cost({}).macs
    for share in (0.75, 0.6, 0.45):
        within = widths.within(Target("macs", f"{share:.0%}"))
        assert not uneven(graph, within, step)
        assert widths.cost(within).macs <= share * full


@pytest.mark.parametrize("step", [8, 16])
def test_allocation_rounds_channels_with_the_heads_that_stay(three_blocks, step):
    graph, rng = three_blocks, np.random.default_rng(step)
    full, heads = cost_at(graph, {}).macs, set()
    for share in (0.8, 0.65, 0.5):
        prices = {group.name: np.sort(rng.random(group.size)) for group in graph.prunable()}
        widths = allocate(graph.prunable(), prices, lambda w, s=share: cost_at(graph, w).macs <= s * full, step)
        assert not uneven(graph, widths, step)
        assert cost_at(graph, widths).macs <= share * full
        heads |= {widths[group.name] for group in graph.prunable() if group.are_heads}
    assert 3 in heads  # of which 24 channels each are more than the nearest multiple
