"""The loss and gradients of Algorithm 2's problem with two inputs, two outputs and sample weights, against Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from branching_nets import branching_net

from dcp_tf.graph import ChannelGraph
from dcp_tf.models.signature import with_flat_signature
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor
from dcp_tf.pruning.elimination.fisher import sampled_loss
from dcp_tf.pruning.problem.consumers import KernelMasks
from dcp_tf.pruning.problem.problem import ChannelProblem, SubProblem
from dcp_tf.pruning.problem.stages import StageLoss, channel_unit
from dcp_tf.training.joint_loss import JointLoss
from dcp_tf.training.losses import ClassificationLoss, MeanSquaredError
from dcp_tf.training.targets import Weighted

LOSS_WEIGHTS = {"classes0": 1.0, "numbers1": 3.0}
LOSS = JointLoss(tuple(LOSS_WEIGHTS), (ClassificationLoss("logits"), MeanSquaredError()), tuple(LOSS_WEIGHTS.values()))


@pytest.fixture(scope="module")
def net():
    return branching_net(["classes", "numbers"], [1, 2], 2, "tuple", images=10)


@pytest.fixture(scope="module")
def sample_weights():
    rng = np.random.default_rng(1)
    return {name: rng.uniform(0.1, 3.0, 10).astype("float32") for name in LOSS_WEIGHTS}


def problem_of(net, group, sample_weights):
    graph = ChannelGraph(with_flat_signature(net.model))
    unit, cache = channel_unit(graph, graph.group(group)), Cache(2**28)
    rows = [slice(0, 4), slice(4, 8), slice(8, 10)]
    inputs = [[tf.constant(x[some]) for x in net.inputs.values()] for some in rows]
    parts = [
        {n: tf.constant(x[some]) for n, x in both.items()} for both in (net.labels, sample_weights) for some in rows
    ]
    targets = [Weighted(*pair) for pair in zip(parts[:3], parts[3:], strict=True)]
    cursors = tuple(ActivationCursor(graph.trace, inputs, cache) for _ in range(2))
    for cursor in cursors:
        cursor.advance(unit.calls[0])
    stage_loss = StageLoss(tuple(graph.trace.outputs), lambda x: x, LOSS)
    consumers = KernelMasks().consumer_kernels(unit.consumers)
    settings, rng = SubProblem(reconstruction=0.0), np.random.default_rng(0)
    return ChannelProblem(graph, group, consumers, unit.size, stage_loss, cursors, targets, settings, cache, rng)


@pytest.mark.parametrize("group", ["stem_conv", "classes0_block_conv", "meta_hidden"])
def test_loss_and_gradients_are_those_that_keras_computes(net, sample_weights, group):
    problem = problem_of(net, group, sample_weights)
    model = net.model
    losses = (keras.losses.SparseCategoricalCrossentropy(from_logits=True), keras.losses.MeanSquaredError())
    kernels = [consumer.kernel.value for consumer in problem.consumers]
    with tf.GradientTape() as tape:
        outputs = model(net.nested_inputs, training=False)
        values = [
            weight * loss(net.labels[name], output, sample_weight=sample_weights[name])
            for (name, weight), loss, output in zip(LOSS_WEIGHTS.items(), losses, outputs, strict=True)
        ]
        total = tf.add_n(values)
    assert problem.loss().discrimination == pytest.approx(float(total), rel=1e-4)
    for mine, keras_own in zip(problem._gradients, tape.gradient(total, kernels), strict=True):
        assert np.allclose(mine, keras_own, rtol=1e-3, atol=1e-5)


def test_outer_products_of_sampled_gradients_are_the_weighted_curvature():
    logits, numbers, images = np.array([0.5, -0.3, 0.1]), np.array([0.2, -1.0]), 20_000
    weights = {"classes0": 0.25, "numbers1": 2.0}
    outputs = [tf.constant(np.tile(x, (images, 1)).astype("float32")) for x in (logits, numbers)]
    labels = {"classes0": tf.zeros(images, tf.int32), "numbers1": tf.zeros((images, 2))}
    targets = Weighted(labels, {name: tf.fill([images], weight) for name, weight in weights.items()})
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = sampled_loss(LOSS, tuple(outputs), targets, tf.constant([1, 2]))
    slopes = np.concatenate([x.numpy() for x in tape.gradient(value, outputs)], axis=1).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum()
    expected = np.zeros((5, 5))
    expected[:3, :3] = 1.0 * 0.25 * (np.diag(p) - np.outer(p, p))
    expected[3:, 3:] = 3.0 * 2.0 * 2 / len(numbers) * np.eye(2)
    assert np.allclose(slopes.T @ slopes / images, expected, atol=0.12)
    assert np.allclose((slopes.T @ slopes / images)[:3, :3], expected[:3, :3], atol=0.01)
