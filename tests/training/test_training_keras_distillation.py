"""A teacher in a user's own `fit` or loop: the student alone is trained, and what is minimized is what it says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dcp_tf
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((96, 6), dtype="float32")
CLASSES = (IMAGES[:, 0] > 0.5).astype("int32") + (IMAGES[:, 1] > 0.5)
BOXES = IMAGES[:, :2] * 3


def network(width=8, nested=dict, seed=0, activation=None):
    keras.utils.set_random_seed(seed)
    image = keras.Input((6,), name="image")
    x = keras.layers.BatchNormalization()(
        keras.layers.Dense(width, "relu", kernel_regularizer=keras.regularizers.L2(0.01))(image)
    )
    classes = keras.layers.Dense(3, activation, name="classes")(x)
    boxes = keras.layers.Dense(2, name="boxes")(x)
    outputs = {"classes": classes, "boxes": boxes} if nested is dict else [classes, boxes] if nested else classes
    return keras.Model(image, outputs)


def compiled(model, **settings):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if len(model.outputs) > 1:
        settings = {
            "loss": {"classes": loss, "boxes": "mse"},
            "loss_weights": {"classes": 1.0, "boxes": 2.0},
            **settings,
        }
    model.compile(**{"optimizer": keras.optimizers.Adam(0.02), "loss": loss, **settings})
    return model


def labels_for(nested):
    return {"classes": CLASSES, "boxes": BOXES} if nested is dict else [CLASSES, BOXES] if nested else CLASSES


def values(model):
    return [v.numpy() for v in model.variables]


@pytest.mark.parametrize("nested", [None, list, dict])
def test_the_distiller_trains_the_student_alone(nested):
    teacher, student = network(16, nested, seed=1), compiled(network(4, nested, seed=2))
    teacher.layers[1].trainable = False
    before, flags = values(teacher), [layer.trainable for layer in teacher.layers]
    distiller = dcp_tf.distiller(student, teacher=teacher)
    assert isinstance(distiller, keras.distillation.Distiller)
    start = student.get_weights()
    history = distiller.fit(IMAGES, labels_for(nested), epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert all(np.array_equal(a, b) for a, b in zip(before, values(teacher), strict=True))
    assert [layer.trainable for layer in teacher.layers] == flags
    assert any(not np.array_equal(a, b) for a, b in zip(start, student.get_weights(), strict=True))
    assert len(distiller.trainable_variables) == len(student.trainable_variables)
    assert int(student.optimizer.iterations) == 0  # the distiller has its own


def test_a_student_learns_to_answer_as_its_teacher_without_labels():
    teacher, student = network(16, seed=1), compiled(network(16, seed=2))
    far = dcp_tf.distill(student, teacher)(IMAGES, None, student(IMAGES))
    dcp_tf.distiller(student, teacher).fit(IMAGES, epochs=40, batch_size=48, verbose=0)
    assert dcp_tf.distill(student, teacher)(IMAGES, None, student(IMAGES)) < 0.5 * far


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_of_any_loop_is_the_weighted_sum(weight):
    """By numbers: Hinton's distance of the classes, squared errors of the boxes, both with the compiled weights."""
    teacher, student = network(16, seed=1), compiled(network(4, seed=2))
    outputs, taught = ({k: v.numpy() for k, v in m(IMAGES).items()} for m in (student, teacher))

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    a, b = log_softmax(taught["classes"] / 4), log_softmax(outputs["classes"] / 4)
    distance = 16 * (np.exp(a) * (a - b)).sum(-1).mean() + 2 * np.square(taught["boxes"] - outputs["boxes"]).mean()
    weights = np.linspace(0.5, 2, 96).astype("float32")
    of_labels = -log_softmax(outputs["classes"])[np.arange(96), CLASSES] * weights
    of_labels = of_labels.mean() + 2 * (np.square(outputs["boxes"] - BOXES).mean(-1) * weights).mean()
    penalty = 0.01 * np.square(student.layers[1].kernel.numpy()).sum()
    loss = dcp_tf.distill(student, teacher, weight=weight)
    sample_weights = {"classes": weights, "boxes": weights}
    value = loss(IMAGES, labels_for(dict), student(IMAGES), sample_weights)
    expected = (1 - weight) * of_labels + weight * distance + penalty
    assert value.numpy() == pytest.approx(expected, rel=1e-4)
    distiller = dcp_tf.distiller(student, teacher, weight=weight)
    value = distiller.compute_loss(IMAGES, labels_for(dict), distiller(IMAGES), sample_weights)
    assert value.numpy() == pytest.approx(expected, rel=1e-4)


def test_a_loop_of_tensorflow_trains_with_it():
    teacher, student = network(16, None, seed=1), network(4, None, seed=2)
    loss, optimizer, seen = dcp_tf.distill(student, teacher), keras.optimizers.SGD(0.1), []
    for _ in range(20):
        with tf.GradientTape() as tape:
            seen.append(loss(IMAGES, None, student(IMAGES, training=True)))
        gradients = tape.gradient(seen[-1], student.trainable_variables)
        optimizer.apply_gradients(zip(gradients, student.trainable_variables, strict=True))
    assert seen[-1] < seen[0]
    with pytest.raises(UsageError, match="not compiled"):
        loss(IMAGES, CLASSES, student(IMAGES))


def test_class_weights_count():
    teacher, student = network(16, None, seed=1), compiled(network(4, None, seed=2))
    plain, heavy = (
        dcp_tf.distiller(student, teacher, weight=0.0).fit(IMAGES, CLASSES, verbose=0, class_weight=w, batch_size=96)
        for w in (None, {0: 10.0, 1: 10.0, 2: 10.0})
    )
    assert heavy.history["student_loss"][0] > 5 * plain.history["student_loss"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": 3}, "teacher must be a functional"),
        ({"weight": 1.5}, "weight between 0 and 1"),
        ({"weight": "half"}, "weight must be a number"),
        ({"temperature": 0}, "temperature above 0"),
        ({"teacher": keras.Sequential([keras.Input((6,)), keras.layers.Dense(7)])}, "other inputs or outputs"),
        ({"student": network(4)}, "is not compiled with a loss"),
    ],
)
def test_mistakes_are_one_line(change, words):
    arguments = {"student": compiled(network(4)), "teacher": network(5), **change}
    with pytest.raises(UsageError, match=words):
        dcp_tf.distiller(**arguments)
