"""The criteria equal their papers' definitions, written out slowly, and find channels that were planted."""

import keras
import numpy as np
import pruning_nets as nets
import pytest
import tensorflow as tf

import dcp_tf
from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import METHODS, Criterion, prepare
from dcp_tf.training import ClassificationLoss

BATCH = 5
METHODS_THAT_RANK = [name for name, method in METHODS.items() if issubclass(method, Criterion)]


def split(count=14):
    return data.make_array_split(*nets.images(count))


def scores_of(name, model, group="make", **settings):
    context = prepare(model, split(), METHODS[name](selection_batch=BATCH, **settings))
    return context.method.score_channels(context, [context.graph.group(group)])[group]


def kernel_of(model, layer="make"):
    return model.get_layer(layer).kernel.numpy()


def slow_norm(order):
    return lambda kernel, k: np.linalg.norm(kernel[..., k].ravel(), order)


def slow_distances(kernel, k):
    return sum(np.linalg.norm((kernel[..., k] - kernel[..., j]).ravel()) for j in range(kernel.shape[-1]))


BY_FILTER = {"l1": slow_norm(1), "l2": slow_norm(2), "fpgm": slow_distances}


@pytest.mark.parametrize("name", BY_FILTER)
def test_scores_of_filters_equal_their_definition(name):
    model = nets.build(nets.several_channels)
    slow = np.array([BY_FILTER[name](kernel_of(model), k) for k in range(5)])
    np.testing.assert_allclose(scores_of(name, model), slow / slow.mean(), rtol=1e-6)


@pytest.mark.parametrize("name", BY_FILTER)
def test_layers_that_are_added_count_alike(name):
    model = nets.build(nets.residual)
    slow = np.zeros(5)
    for layer in ("make", "back1", "back2"):
        one = np.array([BY_FILTER[name](kernel_of(model, layer), k) for k in range(5)])
        slow += one / one.mean()
    np.testing.assert_allclose(scores_of(name, model), slow, rtol=1e-6)
    model.get_layer("make").kernel.assign(100 * kernel_of(model))
    np.testing.assert_allclose(scores_of(name, model), slow, rtol=1e-6)


def test_bn_scale_is_the_size_of_gamma():
    model = nets.build(nets.several_channels)
    gamma = model.get_layer("norm").gamma
    gamma.assign([0.5, -2.0, 0.0, 1.0, -0.1])
    assert np.argsort(-scores_of("bn_scale", model)).tolist() == [1, 3, 0, 4, 2]


def test_bn_scale_counts_each_batch_normalization_on_the_way_alike():
    model = nets.build(nets.depthwise)
    gammas = [model.get_layer(name).gamma.numpy() for name in ("norm", "norm2")]
    np.testing.assert_allclose(scores_of("bn_scale", model), sum(g / g.mean() for g in gammas), rtol=1e-6)


def batch_gradients(model, variables):
    """Per batch, in the order of the selection, its share and the gradients of the loss."""
    images, labels = nets.images()
    subset = split().balanced_subset(14, 0)
    order = np.random.default_rng([0, 0]).permutation(subset)
    for start in range(0, 14, BATCH):
        chosen = order[start : start + BATCH]
        with tf.GradientTape() as tape:
            value = ClassificationLoss("logits")(labels[chosen], model(images[chosen], training=False))
        yield len(chosen) / 14, [g.numpy() for g in tape.gradient(value, variables)]


def test_taylor_is_the_squared_gradient_of_a_gate_behind_batch_normalization():
    model = nets.build(nets.several_channels)
    norm = model.get_layer("norm")
    gamma, beta = (v.numpy() for v in (norm.gamma, norm.beta))
    slow = np.zeros(5)
    for share, (of_gamma, of_beta) in batch_gradients(model, [norm.gamma.value, norm.beta.value]):
        slow += share * np.square(of_gamma * gamma + of_beta * beta)
    np.testing.assert_allclose(scores_of("taylor", model), slow, rtol=1e-3)


@pytest.mark.parametrize("net", ["grouped", "concatenated", "residual", "shared"])
def test_taylor_is_the_squared_change_of_the_loss_along_what_reads_a_channel(net):
    model = nets.build(nets.NETS[net])
    graph = ChannelGraph(model, [(None, *nets.SHAPE)])
    group = graph.group("make")
    reads = graph.consumers(group)
    kernels = [record.operation.weights[index] for record, index, _, _ in reads]
    slow = np.zeros(group.size)
    for share, gradients in batch_gradients(model, [k.value for k in kernels]):
        changes = np.zeros(group.size)
        for (_, _, axis, channel), kernel, gradient in zip(reads, kernels, gradients, strict=True):
            product = np.moveaxis(gradient * kernel.numpy(), axis, 0)
            for position, k in enumerate(channel):
                changes[k] += product[position].sum() if k >= 0 else 0
        slow += share * np.square(changes)
    np.testing.assert_allclose(scores_of("taylor", model), slow, rtol=1e-3, atol=1e-9)


def test_apoz_is_the_share_of_zeros_behind_the_activation():
    model = nets.build(nets.several_channels)
    relu = next(layer for layer in model.layers if isinstance(layer, keras.layers.ReLU))
    values = keras.Model(model.inputs, relu.output).predict(split().inputs, verbose=0)
    np.testing.assert_allclose(scores_of("apoz", model), 1 - (values == 0).mean((0, 1, 2)), rtol=1e-6)


def test_apoz_looks_behind_pooling_and_padding_for_the_activation():
    def pooled(net, x):
        x = net.conv("make", 5, 3, activation="relu")(x)
        x = net.plain("ZeroPadding2D")(net.plain("MaxPooling2D")(x))
        return net.layer("Dense", "logits", nets.CLASSES)(net.plain("Flatten")(x))

    model = nets.build(pooled)
    values = keras.Model(model.inputs, model.get_layer("make").output).predict(split().inputs, verbose=0)
    np.testing.assert_allclose(scores_of("apoz", model), 1 - (values == 0).mean((0, 1, 2)), rtol=1e-6)


def plant(name, model):
    """Makes channel 3 of `make` one that the criterion must take for the worst."""
    make, norm = model.get_layer("make"), model.get_layer("norm")
    kernel, bias = kernel_of(model), make.bias.numpy()
    if name in ("l1", "l2"):
        kernel[..., 3] = 0
    elif name == "fpgm":
        kernel[..., 3] = np.delete(kernel, 3, -1).mean(-1)
    elif name == "bn_scale":
        norm.gamma.assign(np.where(np.arange(5) == 3, 0.0, norm.gamma.numpy()))
    else:
        bias[3] = -1e4  # dead behind its ReLU
        norm.gamma.assign(np.abs(norm.gamma.numpy()))
    make.kernel.assign(kernel)
    make.bias.assign(bias)


@pytest.mark.parametrize("name", [name for name in METHODS_THAT_RANK if name != "random"])
def test_a_planted_channel_is_the_lowest(name):
    model = nets.build(nets.several_channels)
    plant(name, model)
    scores = scores_of(name, model)
    assert np.argmin(scores) == 3
    assert (np.delete(scores, 3) > scores[3]).all()


@pytest.mark.parametrize(("name", "update"), [*((name, False) for name in METHODS_THAT_RANK), ("fpgm", True)])
def test_a_planted_channel_goes_and_the_rate_holds(name, update):
    model = nets.build(nets.several_channels)
    if name != "random":
        plant(name, model)
    method = METHODS[name](rate=0.2, update=update, auxiliary_losses=0, selection_batch=BATCH, recover=0)
    result = dcp_tf.prune(model, split(), method, **nets.BARE)
    kept = result.plan.channels
    assert {g: len(k) for g, k in kept.items()} == {"make": 4, "read": 4}
    assert name == "random" or kept["make"] == (0, 1, 2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bn_scale", "'make' pass none; leave it out with exclude="),
        ("apoz", r"'read' never are \(it has no ReLU\); leave it out with exclude="),
    ],
)
def test_a_group_that_cannot_be_ranked_is_named(name, message):
    model = nets.build(nets.with_activation)
    with pytest.raises(UsageError, match=message):
        dcp_tf.prune(model, split(), METHODS[name](rate=0.5), **nets.BARE)


@pytest.mark.parametrize("name", ["taylor", "apoz"])
def test_without_labels_the_models_own_predictions_serve(name):
    model = nets.build(nets.several_channels)
    unlabelled = data.make_array_split(nets.images()[0], None)
    result = dcp_tf.prune(model, unlabelled, METHODS[name](rate=0.4), **nets.BARE)
    assert len(result.plan.channels["make"]) == 3
