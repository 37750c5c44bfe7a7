"""Objectives of several outputs: the weighted sum of their losses, its curvature, heads, targets and metrics."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from joint_nets import INPUTS, LABELS, WEIGHTS, N, NamedSplit, branching

from dcp_tf.data import as_split
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.training import (
    Classification,
    ClassificationLoss,
    Custom,
    Distillation,
    Joint,
    JointLoss,
    MeanSquaredError,
    Regression,
    TrainConfig,
    as_objective,
    fit,
)
from dcp_tf.training.best_weights import BestEpoch
from dcp_tf.training.heads import augment, find_positions
from dcp_tf.training.idle_heads import head_losses
from dcp_tf.training.losses import loss_of
from dcp_tf.training.pooled_heads import are_pooled, train_pooled_heads

RNG = np.random.default_rng(5)
NAMES = ("classes", "boxes")
LOSS = JointLoss(NAMES, (ClassificationLoss("logits"), MeanSquaredError()), (0.5, 3.0))
OUTPUTS = (RNG.normal(size=(N, 3)), RNG.normal(size=(N, 4)))


def second_moments(loss, draws, labels=None):
    """Per image the mean of `g g^T` of sampled gradients at all outputs."""
    outputs = tf.constant(np.concatenate(OUTPUTS, -1), tf.float32)

    @tf.function(autograph=False)
    def square(number):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = loss.sampled((outputs[:, :3], outputs[:, 3:]), tf.stack([3, number]), labels)
        slopes = tape.gradient(value, outputs)
        return slopes[:, :, None] * slopes[:, None, :]

    return np.mean([square(tf.constant(i)) for i in range(draws)], 0)


def test_a_joint_loss_is_the_weighted_sum_that_keras_computes():
    weights = {name: WEIGHTS[name] for name in NAMES}
    outputs = tuple(x.astype("float32") for x in OUTPUTS)
    for own in (None, weights):
        by_keras = 0.5 * keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
            LABELS["classes"], outputs[0], own and own["classes"]
        ) + 3.0 * keras.losses.MeanSquaredError()(LABELS["boxes"], outputs[1], own and own["boxes"])
        np.testing.assert_allclose(LOSS(LABELS, outputs, weights=own), by_keras, rtol=1e-5)


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_sample_weights_count_in_losses_and_distances_of_classes(kind):
    loss, logits = ClassificationLoss(kind), RNG.normal(size=(N, 3)).astype("float32")
    outputs = {"logits": lambda x: x, "softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}[kind](logits)
    teacher = ClassificationLoss("sigmoid" if kind == "sigmoid" else "softmax").as_probabilities(
        RNG.uniform(0.1, 0.8, (N, 3)).astype("float32")
    )
    weights, labels = WEIGHTS["classes"], LABELS["classes"]
    for value in (lambda y, x, t, w: loss(y, x, weights=w), lambda y, x, t, w: loss.distance(t, x, 2.0, weights=w)):
        single = [value(labels[i : i + 1], outputs[i : i + 1], teacher[i : i + 1], None) for i in range(N)]
        np.testing.assert_allclose(value(labels, outputs, teacher, weights), np.mean(weights * single), rtol=1e-5)
        np.testing.assert_allclose(value(labels, outputs, teacher, None), np.mean(single), rtol=1e-5)


def test_the_gradient_of_a_joint_loss_with_weights_is_its_slope():
    weights = {"classes": WEIGHTS["classes"], "boxes": WEIGHTS["boxes"]}

    def value(flat):
        flat = tf.reshape(tf.cast(flat, tf.float32), (N, 7))
        return LOSS(LABELS, (flat[:, :3], flat[:, 3:]), weights=weights)

    at = np.concatenate(OUTPUTS, -1).ravel()
    with tf.GradientTape() as tape:
        x = tf.constant(at, tf.float32)
        tape.watch(x)
        loss = value(x)
    gradient, step = tape.gradient(loss, x).numpy(), 1e-2
    for i in range(0, len(at), 5):
        shift = step * np.eye(len(at))[i]
        np.testing.assert_allclose(gradient[i], (value(at + shift) - value(at - shift)) / (2 * step), atol=2e-4)


def test_squares_of_sampled_gradients_are_the_curvature_of_the_weighted_sum():
    measured = second_moments(LOSS, 4000)
    for image in range(N):
        p = tf.nn.softmax(OUTPUTS[0][image]).numpy()
        exact = np.zeros((7, 7))
        exact[:3, :3] = 0.5 * (np.diag(p) - np.outer(p, p))
        exact[3:, 3:] = 3.0 * 2 / 4 * np.eye(4)
        np.testing.assert_allclose(measured[image], exact, atol=0.15)


def test_parts_without_sampling_are_drawn_apart_from_others():
    loss = JointLoss(NAMES, (ClassificationLoss("logits"), lambda y, x: tf.reduce_mean(tf.abs(y - x))), (1.0, 4.0))
    measured = second_moments(loss, 2000, LABELS)
    np.testing.assert_allclose(measured[:, :3, 3:], 0, atol=0.05)
    np.testing.assert_allclose(np.diagonal(measured[0])[3:], 4.0 / 16, rtol=1e-4)


def test_a_teacher_teaches_the_parts_that_have_a_distance():
    custom = JointLoss(NAMES, (ClassificationLoss("logits"), lambda y, x: tf.reduce_mean(tf.abs(y - x))), (1.0, 2.0))
    answers = {"classes": tf.nn.softmax(RNG.normal(size=(N, 3))), "boxes": RNG.normal(size=(N, 4))}
    outputs = tuple(x.astype("float32") for x in OUTPUTS)
    value = loss_of(Distillation(custom, 0.3), LABELS, outputs, answers)
    classes = 0.7 * custom.losses[0](LABELS["classes"], outputs[0]) + 0.3 * custom.losses[0].distance(
        answers["classes"], outputs[0], 4.0
    )
    np.testing.assert_allclose(value, classes + 2 * np.abs(LABELS["boxes"] - outputs[1]).mean(), rtol=1e-5)
    targets = custom.distance_targets(LABELS, answers)
    np.testing.assert_allclose(
        custom.distance(targets, outputs, 1.0),
        custom.losses[0].distance(answers["classes"], outputs[0], 1.0)
        + 2 * np.abs(LABELS["boxes"] - outputs[1]).mean(),
        rtol=1e-5,
    )
    assert not hasattr(JointLoss(("boxes",), custom.losses[1:], (1.0,)), "distance")


def test_a_users_loss_per_sample_is_weighted_and_one_number_is_refused():
    per_sample = lambda y, x: tf.reduce_mean(tf.abs(y - x), -1)  # noqa: E731
    value = loss_of(per_sample, LABELS["boxes"], OUTPUTS[1], weights=WEIGHTS["boxes"])
    errors = np.abs(LABELS["boxes"] - OUTPUTS[1]).mean(-1)
    np.testing.assert_allclose(value, np.mean(errors * WEIGHTS["boxes"]), rtol=1e-5)
    with pytest.raises(UsageError, match="gives one number for a whole batch"):
        loss_of(lambda y, x: tf.reduce_mean(x), LABELS["boxes"], OUTPUTS[1], weights=WEIGHTS["boxes"])


def test_each_output_gets_the_objective_that_its_activation_and_labels_suggest():
    model = branching()
    objective = as_objective(None, model, NamedSplit(), loss_weights={"boxes": 10.0})
    assert objective.names == ("classes", "boxes", "mask")
    assert objective.part("classes") == Classification()
    assert objective.part("mask") == Classification("sigmoid", is_dense=True)
    assert isinstance(objective.part("boxes"), Regression)
    assert objective.loss.loss_weights == (1.0, 10.0, 1.0)
    assert objective.describe().endswith("boxes: mean squared error x 10, mask: sigmoid cross-entropy of each place")


def test_outputs_without_labels_and_those_left_out_imitate_the_baseline():
    model = branching()
    without = {name: LABELS[name] for name in ("classes", "mask")}
    objective = as_objective(None, model, NamedSplit(without))
    assert objective.lacks_labels(NamedSplit(without))
    assert not as_objective(None, model, NamedSplit()).lacks_labels(NamedSplit())
    given = as_objective({"classes": "softmax", "boxes": None}, model, NamedSplit())
    assert given.imitated == ("boxes", "mask")
    assert given.part("mask").imitates
    data = given.training_data(NamedSplit(weights=WEIGHTS))
    assert set(data.labels) == set(data.weights) == {"classes"}
    answers = given.targets(model, data)(INPUTS)
    outputs = model(INPUTS)
    np.testing.assert_array_equal(answers["boxes"], outputs[1])
    np.testing.assert_allclose(answers["classes"], tf.nn.softmax(outputs[0]), rtol=1e-5)


def test_a_head_serves_the_outputs_behind_it_whose_kind_it_can_predict():
    model = branching()
    objective = as_objective(None, model, NamedSplit())
    graph = ChannelGraph(model)
    augmented = augment(graph, 0, objective, at=("trunk",))
    (position,) = augmented.positions
    assert position.names == objective.names
    head = augmented.heads[0](tf.zeros((2, 8, 8, 5)))
    assert [tuple(x.shape) for x in head] == [(2, 3), (2, 4), (2, 8, 8, 1)]
    heads, final = augmented.model(INPUTS)
    assert len(heads) == len(final) == 3
    assert objective.head_loss_of(position.names).names == objective.names
    (position,) = find_positions(graph, 0, objective, ("pooled",))
    assert position.names == ("classes", "boxes")


def test_metrics_are_those_of_each_output_and_the_weighted_sum_of_losses():
    model = branching()
    objective = as_objective(None, model, NamedSplit(), loss_weights=[2.0, 1.0, 0.0])
    figures = objective.evaluate(model, NamedSplit(weights=WEIGHTS).batches(5))
    outputs = model(INPUTS)
    parts = zip(objective.parts, outputs, strict=True)
    losses = {name: loss_of(part.loss, LABELS[name], x, weights=WEIGHTS[name]) for (name, part, _), x in parts}
    np.testing.assert_allclose(figures["boxes_loss"], losses["boxes"], rtol=1e-4)
    np.testing.assert_allclose(figures["loss"], 2 * losses["classes"] + losses["boxes"], rtol=1e-4)
    assert figures["classes_top1"] == np.mean(np.argmax(outputs[0], -1) == LABELS["classes"])
    assert {"boxes_mse", "boxes_r2", "mask_mean_iou"} <= set(figures)
    partial = objective.evaluate(model, NamedSplit({"boxes": LABELS["boxes"]}).batches(5))
    assert "classes_loss" not in partial
    np.testing.assert_allclose(partial["loss"], partial["boxes_loss"])


def test_training_several_outputs_equals_gradient_descent_by_hand():
    names = ("classes", "boxes")
    model, by_hand = branching(names), branching(names)
    objective = Joint((("classes", Classification(), 0.25), ("boxes", Custom(MeanSquaredError()), 2.0)))
    data = NamedSplit({name: LABELS[name] for name in names}, {"classes": WEIGHTS["classes"]})
    config = TrainConfig(
        epochs=1, learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="step", boundaries=(), clip_norm=0.0
    )
    history = fit(model, lambda epoch: data.batches(N), [objective.loss], config)
    with tf.GradientTape() as tape:
        classes, boxes = by_hand(INPUTS, training=True)
        loss = 0.25 * keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
            LABELS["classes"], classes, WEIGHTS["classes"]
        ) + 2.0 * keras.losses.MeanSquaredError()(LABELS["boxes"], boxes)
    slopes = tape.gradient(loss, by_hand.trainable_variables)
    for variable, gradient in zip(by_hand.trainable_variables, slopes, strict=True):
        variable.assign_sub(0.1 * gradient)
    for a, b in zip(model.trainable_variables, by_hand.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(history[0]["loss"], loss, rtol=1e-5)
    assert {"classes_top1", "classes_loss", "boxes_loss"} <= set(history[0])


@pytest.mark.parametrize(
    ("objective", "arguments", "message"),
    [
        ({"boxs": "mse"}, {}, "names the output 'boxs'; those of the model are classes, boxes, mask"),
        (["mse"], {}, "has 1 entries; the model has 3 outputs"),
        (lambda y, x: 0.0, {}, "give objective for each by its name"),
        (None, {"loss_weights": {"boxes": -1}}, "loss_weights must be numbers from 0; that of 'boxes' is -1"),
        (None, {"loss_weights": 3.0}, "give loss_weights for each by its name"),
        ({"classes": "mse"}, {}, r"the data \(output 'classes'\) has labels of shape \(12,\)"),
        (Joint((("a", Regression(), 1.0),)), {}, "is for the outputs a; the model has classes, boxes, mask"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused(objective, arguments, message):
    with pytest.raises(UsageError, match=message):
        as_objective(objective, branching(), NamedSplit(), **arguments)


def test_one_output_takes_no_loss_weights_and_a_dict_of_one():
    model, data = branching(("boxes",)), NamedSplit(LABELS["boxes"])
    assert as_objective({"boxes": "mse"}, model, data) == as_objective("mse", model, data)
    with pytest.raises(UsageError, match="the model has one: leave them out"):
        as_objective("mse", model, data, loss_weights={"boxes": 2.0})


def test_pooled_heads_of_several_outputs_are_trained_on_cached_features():
    names = ("classes", "boxes")
    model = branching(names)
    inputs = RNG.normal(size=(200, 8, 8, 3)).astype("float32")
    answers = dict(zip(names, model(inputs), strict=True))
    data = as_split((inputs, {"boxes": answers["boxes"].numpy()})).bound_to(model)
    objective = as_objective(None, model, data)
    augmented = augment(ChannelGraph(model), 0, objective, at=("trunk",))
    assert are_pooled(augmented.heads)
    teacher = objective.targets(model, data)
    config = TrainConfig(epochs=20, batch_size=32, learning_rate=0.05, weight_decay=0.0)
    record = train_pooled_heads(
        augmented, ChannelGraph(model).trace, data, augmented.losses(objective)[:-1], config, teacher, 64, 2**24
    )
    assert record["losses"] == [sum(record[f"{name}_losses"][0] for name in names)]
    classes, boxes = augmented.model(inputs)[0]
    assert np.mean(np.argmax(classes, -1) == np.argmax(answers["classes"], -1)) > 0.8
    assert np.mean((boxes - answers["boxes"]) ** 2) < 0.3 * np.var(answers["boxes"], 0).mean()
    measured = head_losses(augmented, objective, data.labels, record)
    assert [(head.output, head.is_at_chance) for head in measured] == [("boxes", False)]
    idle = head_losses(augmented, objective, data.labels, {"losses": [1e3], "boxes_losses": [1e3]})
    assert next(str(head) for head in idle if head.is_at_chance).startswith("trunk (loss 1e+03 for boxes")


def test_the_layers_of_heads_are_named_with_the_outputs_that_they_serve():
    model = branching()
    objective = as_objective(None, model, NamedSplit())
    named = [
        augment(ChannelGraph(model), 0, objective, at=(layer,)).describe_positions(3) for layer in ("trunk", "pooled")
    ]
    assert named == ["trunk", "pooled (for classes, boxes)"]


def test_held_out_samples_count_by_their_weights():
    names = ("classes", "boxes")
    model, data = branching(names), NamedSplit({name: LABELS[name] for name in names}, WEIGHTS)
    best = BestEpoch(model, LOSS, lambda: data.batches(5))
    best.begin()
    expected = loss_of(LOSS, LABELS, model(INPUTS), weights=WEIGHTS)
    np.testing.assert_allclose(best.summary()["before"], expected, rtol=1e-5)


TWO_DEVICES = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from joint_nets import LABELS, WEIGHTS, NamedSplit, branching
from dcp_tf.training import Distillation, TrainConfig, as_objective, distributed, fit, make_strategy
histories, weights = [], []
for strategy in (None, make_strategy("mirrored")):
    model, data = branching(), NamedSplit({{"classes": LABELS["classes"]}}, {{"classes": WEIGHTS["classes"]}})
    objective = as_objective(None, model, data, loss_weights={{"boxes": 3.0}})
    teacher = objective.targets(branching(seed=4), data)
    with distributed(strategy):
        config = TrainConfig(epochs=2, learning_rate=0.1)
        losses = [Distillation(objective.loss, 0.5)]
        histories.append(fit(model, lambda epoch: data.batches(5), losses, config, teacher=teacher))
    weights.append([v.numpy() for v in model.weights])
for one, two in zip(*weights):
    np.testing.assert_allclose(two, one, atol=2e-6)
for name in ("loss", "classes_loss", "boxes_loss", "mask_pixel_accuracy"):
    np.testing.assert_allclose(histories[1][-1][name], histories[0][-1][name], rtol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_two_replicas_train_several_outputs_as_one_device():
    tests = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(tests.parents[1])}
    script = TWO_DEVICES.format(tests=str(tests))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "equal" in done.stdout, done.stderr[-2000:]
