"""What a model is for: what is read off outputs and labels, losses with their curvature, heads, targets, bad labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import as_split, load
from dcp_tf.errors import UsageError
from dcp_tf.training import (
    Classification,
    ClassificationLoss,
    Custom,
    Distillation,
    Embedding,
    MeanSquaredError,
    Regression,
    TrainConfig,
    as_objective,
    choose_for_outputs,
    choose_objective,
    fit,
    seed_everything,
)
from dcp_tf.training.embeddings import DirectionLoss
from dcp_tf.training.head_layers import ResizeLinearly

RNG = np.random.default_rng(0)
N = 12
layers = keras.layers


class Labelled:
    """As much of a data split as an objective asks for."""

    def __init__(self, labels):
        self.labels = None if labels is None else np.asarray(labels)


ROWS = np.arange(N * 3).reshape(N, 3) % 2
ONE_HOT = np.eye(3, dtype=int)[np.arange(N) % 3]
READ_OFF = [
    # kind, shape of the output, labels -> loss, dense
    ("logits", (None, 3), np.arange(N) % 3, "softmax", False),
    ("softmax", (None, 3), np.arange(N) % 3, "softmax", False),
    ("sigmoid", (None, 3), np.arange(N) % 3, "sigmoid", False),
    ("logits", (None, 3), ONE_HOT, "softmax", False),
    ("logits", (None, 3), np.full((N, 3), 1 / 3), "softmax", False),
    ("sigmoid", (None, 3), ONE_HOT, "sigmoid", False),
    ("sigmoid", (None, 3), ROWS, "multilabel", False),
    ("sigmoid", (None, 3), ROWS.astype("float32"), "multilabel", False),
    ("logits", (None, 3), ROWS, "multilabel", False),
    ("logits", (None, 3), RNG.normal(size=(N, 3)), "mse", False),
    ("logits", (None, 1), np.arange(N) % 2, "sigmoid", False),
    ("sigmoid", (None, 1), np.arange(N) % 2.0, "sigmoid", False),
    ("logits", (None, 1), np.linspace(0, 1, N), "mse", False),
    ("logits", (None, 1), np.arange(N) - 6, "mse", False),
    ("sigmoid", (None, 1), np.linspace(0, 1, N), "mse", False),
    ("softmax", (None, 4, 5, 3), RNG.integers(0, 3, (N, 4, 5)), "softmax", True),
    ("logits", (None, None, None, 3), RNG.integers(0, 3, (N, 4, 5)), "softmax", True),
    ("logits", (None, 4, 5, 3), RNG.normal(size=(N, 4, 5, 3)), "mse", True),
    ("sigmoid", (None, 4, 5, 1), RNG.integers(0, 2, (N, 4, 5, 1)), "sigmoid", True),
    ("sigmoid", (None, 4, 5, 3), RNG.uniform(size=(N, 4, 5, 3)), "mse", True),
    ("sigmoid", (None, 4, 5, 3), RNG.integers(0, 2, (N, 4, 5, 3)), "multilabel", True),
    ("logits", (None, 7, 3), RNG.integers(0, 3, (N, 7)), "softmax", True),
    ("softmax", (None, 3), None, "softmax", False),
    ("sigmoid", (None, 3), None, "sigmoid", False),
    ("sigmoid", (None, 8, 8, 3), None, "sigmoid", True),
    ("softmax", (None, 7, 3), None, "softmax", True),
    ("logits", (None, 3), np.arange(N) % 3.0, "softmax", False),
    ("sigmoid", (None, 1), np.arange(N)[:, None] % 2.0, "sigmoid", False),
    ("sigmoid", (None, 1), np.arange(N) % 2 == 0, "sigmoid", False),
    ("logits", (None, 1), RNG.choice((-1.0, 1.0, 3.0), N), "mse", False),
]


@pytest.mark.parametrize(("kind", "shape", "labels", "loss", "is_dense"), READ_OFF)
def test_the_loss_is_read_off_outputs_and_labels(kind, shape, labels, loss, is_dense):
    found = choose_for_outputs(kind, shape, Labelled(labels))
    assert (found.name, found.is_dense) == (loss, is_dense)


BAD = {
    "float labels of classes": ("logits", (None, 3), np.arange(N) / 2, "auto", r"float64.*integers.*mse.*\(N, 3\)"),
    "classes from 1": ("logits", (None, 3), np.arange(N) % 3 + 1, "auto", "from 1 to 3.*from 0: subtract 1"),
    "classes of places from 1": ("softmax", (None, 2, 3), np.arange(N * 2).reshape(N, 2) % 3 + 1, "auto", "1 to 3"),
    "two classes from 1": ("sigmoid", (None, 1), np.arange(N) % 2 + 1.0, "auto", "from 1 to 2.*from 0: subtract 1"),
    "two classes from 1, a logit": ("logits", (None, 1), np.arange(N) % 2 + 1, "auto", "from 1 to 2.*loss=mse"),
    "two classes of signs": ("sigmoid", (None, 1), np.arange(N) % 2 * 2 - 1, "auto", r"-1 and 1.*0 and 1.*y == 1"),
    "signs, a logit": ("logits", (None, 1), np.arange(N) % 2 * 2.0 - 1, "auto", r"-1 and 1.*y == 1.*loss=mse"),
    "signs, two logits": ("logits", (None, 2), np.arange(N) % 2 * 2 - 1, "auto", r"-1 and 1.*0 and 1"),
    "masks of 255": ("sigmoid", (None, 4, 1), np.arange(N * 4).reshape(N, 4) % 2 * 255, "auto", r"0 and 255.*y == 255"),
    "one-hot for one output": ("sigmoid", (None, 1), ONE_HOT[:, :2], "auto", r"rows of two.*y\[..., 1\]"),
    "numbers beyond a sigmoid": ("sigmoid", (None, 1), np.linspace(0, 90, N), "auto", "0 to 90.*sigmoid.*0 to 1"),
    "numbers for classes": ("sigmoid", (None, 1), np.arange(N), "auto", "label 11.*1 output;.*loss=mse"),
    "a class too many": ("softmax", (None, 3), np.arange(N), "auto", "label 11, but the model has 3 outputs"),
    "a negative class": ("softmax", (None, 3), np.arange(N) - 1, "auto", "negative label -1"),
    "a wide row": ("sigmoid", (None, 3), np.zeros((N, 4), int), "auto", r"\(12, 4\).*\(N, 3\)"),
    "rows that do not sum to 1": ("softmax", (None, 3), ROWS, "auto", "do not sum to 1"),
    "numbers of classes as rows": ("logits", (None, 3), np.arange(N), "multilabel", r"\(12,\).*\(N, 3\)"),
    "counts": ("logits", (None, 3), ROWS * 5, "multilabel", "between 0 and 5"),
    "maps of another size": (
        "softmax",
        (None, 8, 8, 3),
        np.zeros((N, 4, 4), int),
        "auto",
        r"\(12, 4, 4\).*\(N, 8, 8\)",
    ),
    "one class for a map": ("softmax", (None, 8, 8, 3), np.zeros(N, int), "auto", r"\(12,\)"),
    "maps for one answer": ("logits", (None, 3), np.zeros((N, 8, 8), int), "auto", r"\(12, 8, 8\)"),
    "numbers of another width": ("logits", (None, 3), np.zeros((N, 2)), "mse", r"\(12, 2\).*\(N, 3\)"),
    "NaN": ("logits", (None, 1), np.full(N, np.nan), "mse", "NaN"),
    "a sigmoid for softmax": ("sigmoid", (None, 3), np.arange(N) % 3, "softmax", "ends in a sigmoid has no softmax"),
    "a softmax of one": ("softmax", (None, 1), np.arange(N) % 2, "auto", "single output"),
    "margins of rows": ("logits", (None, 3), ROWS, "arcface", "one class number"),
    "margins of maps": ("logits", (None, 8, 8, 3), np.zeros((N, 8, 8), int), "cosface", "one embedding an image"),
    "margins of one class": ("logits", (None, 3), np.zeros(N, int), "asoftmax", "one class"),
    "an unknown loss": ("logits", (None, 3), np.arange(N) % 3, "hinge", "unknown loss 'hinge'"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_do_not_fit_are_one_clear_line(case):
    kind, shape, labels, loss, line = BAD[case]
    with pytest.raises(UsageError, match=line) as caught:
        choose_for_outputs(kind, shape, Labelled(labels), loss, what="the images of x")
    assert "\n" not in str(caught.value)


def test_labels_that_may_be_numbered_from_1_are_noted():
    from dcp_tf.training.label_checks import numbering_note

    note = numbering_note(np.arange(1, 10), (None, 10))
    assert "from 1 to 9" in note
    assert "subtract 1" in note
    assert numbering_note(np.arange(10), (None, 10)) is None
    assert numbering_note(np.array([2, 5]), (None, 10)) is None  # some classes alone
    assert numbering_note(np.array([1, 1]), (None, 1)) is None
    assert numbering_note(None, (None, 10)) is None


def test_whole_floats_are_classes():
    outputs, labels = RNG.normal(size=(N, 3)).astype("float32"), np.arange(N) % 3
    loss = ClassificationLoss("logits")
    assert loss(labels.astype("float32"), outputs) == loss(labels, outputs)
    objective = choose_for_outputs("logits", (None, 3), Labelled(labels.astype("float32")))
    measured = [objective.evaluate(lambda x: x, [(outputs, y)]) for y in (labels, labels.astype("float32"))]
    assert measured[0] == measured[1]
    with pytest.raises(UsageError, match="whole-number"):
        loss(labels + 0.5, outputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match="whole-number"):
        tf.function(loss)(labels + 0.5, outputs)


@pytest.mark.parametrize("end", [layers.Dense(3), layers.Dense(1), layers.Reshape((2, 2, 1))])
def test_linear_outputs_without_labels_are_met_by_squared_errors(end):
    image = keras.Input((4,))
    model = keras.Model(image, end(layers.Dense(4)(image)))
    images = as_split(RNG.normal(size=(N, 4)))
    objective = choose_objective(model, images)
    assert objective.name == "mse"
    assert choose_objective(model, images, "sigmoid").name == "sigmoid"
    outputs = model(images.inputs)
    assert objective.loss(objective.targets(model, images)(images.inputs), outputs) == 0
    assert objective.loss(objective.targets(model, images)(images.inputs), outputs + 1) > 0.1


def test_steps_of_a_sequence_are_no_pixels():
    outputs = np.eye(3, dtype="float32")[np.array([[0, 1, 2, 2], [1, 1, 0, 2]])]
    labels = np.array([[0, 1, 2, 2], [1, 0, 0, 2]])
    objective = choose_for_outputs("softmax", (None, 4, 3), Labelled(labels))
    assert objective.evaluate(lambda x: x, [(outputs, labels)]) == {"step_accuracy": 7 / 8, "sequence_accuracy": 0.5}
    assert objective.primary == objective.loss.accuracy_name == "step_accuracy"
    assert "step" in objective.describe()


def test_a_loss_of_maps_is_the_mean_of_the_losses_of_their_places():
    outputs = RNG.normal(size=(3, 4, 5, 6)).astype("float32")
    labels = RNG.integers(0, 6, (3, 4, 5))
    loss = ClassificationLoss("logits")
    flat = loss(labels.reshape(-1), outputs.reshape(-1, 6))
    for form in (labels, labels[..., None], np.eye(6)[labels]):
        np.testing.assert_allclose(loss(form, outputs), flat, rtol=1e-5)
    np.testing.assert_allclose(loss.accuracy(labels, outputs), (outputs.argmax(-1) == labels).mean((1, 2)), rtol=1e-6)


def test_multilabel_logits_equal_sigmoid_outputs():
    logits, labels = RNG.normal(size=(5, 3)).astype("float32"), RNG.integers(0, 2, (5, 3))
    of_logits, of_sigmoid = ClassificationLoss("logits", independent=True), ClassificationLoss("sigmoid")
    np.testing.assert_allclose(of_logits(labels, logits), of_sigmoid(labels, tf.sigmoid(logits)), rtol=1e-5)
    np.testing.assert_allclose(of_logits.accuracy(labels, logits), ((logits > 0) == labels).mean(-1), rtol=1e-6)


def test_squared_errors_in_units_of_the_labels():
    outputs, labels = RNG.normal(size=(2, 7, 3)).astype("float32")
    value = MeanSquaredError((1.0, 2.0, 5.0))(labels, outputs)
    np.testing.assert_allclose(value, np.mean(((labels - outputs) / [1, 2, 5]) ** 2), rtol=1e-5)
    one = MeanSquaredError()(labels[:, 0], outputs[:, :1])
    np.testing.assert_allclose(one, np.mean((labels[:, 0] - outputs[:, 0]) ** 2), rtol=1e-5)
    with pytest.raises(UsageError, match="shape"):
        MeanSquaredError()(labels[:, :2], outputs)


CURVED = {
    "softmax": (ClassificationLoss("logits"), (4,)),
    "maps": (ClassificationLoss("logits"), (3, 2, 4)),
    "yes or no": (ClassificationLoss("logits", independent=True), (5,)),
    "numbers": (MeanSquaredError((1.0, 3.0)), (2,)),
    "maps of numbers": (MeanSquaredError(2.0), (3, 3, 2)),
    "directions": (DirectionLoss(), (4,)),
}


@pytest.mark.parametrize("name", CURVED)
def test_the_mean_square_of_a_sampled_gradient_is_the_curvature(name):
    loss, shape = CURVED[name]
    outputs = tf.constant(RNG.normal(size=(1, *shape)).astype("float32"))
    draws = 4000
    many = tf.repeat(outputs, draws, axis=0)
    with tf.GradientTape() as tape:
        tape.watch(many)
        value = loss.sampled(many, tf.constant([1, 2]))
    found = np.square(tape.gradient(value, many).numpy()).mean(0)
    # With the outputs' own answers as labels, the Hessian is the Gauss-Newton matrix.
    answers = outputs if name in ("numbers", "maps of numbers", "directions") else loss.as_probabilities(outputs)
    with tf.GradientTape() as outer:
        outer.watch(outputs)
        with tf.GradientTape() as inner:
            inner.watch(outputs)
            value = loss(tf.stop_gradient(answers), outputs)
        gradient = inner.gradient(value, outputs)
    hessian = tf.reshape(outer.jacobian(gradient, outputs), (tf.size(outputs), -1))
    np.testing.assert_allclose(found.ravel(), np.diag(hessian), rtol=0.15, atol=2e-3)


@pytest.mark.parametrize(("before", "after"), [((4, 6), (8, 12)), ((4, 4), (7, 9)), ((8, 6), (4, 3)), ((1, 3), (5, 5))])
def test_maps_are_resized_as_tensorflow_does(before, after):
    maps = RNG.normal(size=(2, *before, 3)).astype("float32")
    expected = tf.image.resize(maps, after, method="bilinear", antialias=False)
    np.testing.assert_allclose(ResizeLinearly(after)(maps), expected, rtol=1e-4, atol=1e-5)


def test_a_head_of_numbers_begins_at_their_mean_and_spread():
    labels = RNG.normal(size=(200, 2)) * [100, 0.01] + [500, -3]
    objective = Regression().bind((None, 2), Labelled(labels))
    head = objective.head("h", (None, 6, 6, 4), (None, 2), "channels_last")
    for variable in head.variables:
        if "dense" in variable.path:
            variable.assign(variable * 0)
    found = head(np.zeros((1, 6, 6, 4), "float32"))
    np.testing.assert_allclose(found[0], labels.mean(0), rtol=1e-4)
    error = objective.head_loss(labels.astype("float32"), tf.repeat(found, 200, axis=0))
    np.testing.assert_allclose(error, 1.0, rtol=1e-3)


def classifier(units, activation=None):
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu")(image)
    return keras.Model(image, layers.Dense(units, activation=activation)(layers.GlobalAveragePooling2D()(x)))


def test_classes_of_embeddings_begin_at_their_mean_directions():
    images = RNG.normal(size=(40, 6, 6, 3)).astype("float32")
    labels = np.arange(40) % 3
    model, data = classifier(5), as_split((images, labels))
    objective = Embedding("cosface").bind((None, 5), data)
    ended = objective.with_loss_head(model, data)(images).numpy()
    directions = model(images).numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centres = np.stack([directions[labels == k].sum(0) for k in range(3)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    np.testing.assert_allclose(ended[:, :3], directions @ centres.T, atol=1e-4)
    np.testing.assert_allclose(ended[:, 3:], directions, atol=1e-4)
    head = objective.head("h", (None, 4, 4, 8), (None, 5), "channels_last")
    assert head(np.zeros((2, 4, 4, 8), "float32")).shape == (2, 3)


@pytest.mark.parametrize("loss", ["arcface", "cosface", "asoftmax"])
def test_embeddings_without_batch_normalization_learn_from_random_weights(loss):
    seed_everything(0)
    x = image = keras.Input((8, 8, 1))
    for filters in (16, 32, 64):
        x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(filters, 3, 2, "same", kernel_initializer="he_normal")(x))
    model = keras.Model(image, layers.Dense(32, kernel_initializer="he_normal")(layers.Flatten()(x)))
    digits = load("digits", normalization="digits")
    objective = choose_objective(model, digits.train, loss)
    before = objective.evaluate(model, digits.test.batches(256))["recall_at_1"]
    config = TrainConfig(epochs=8, batch_size=64, learning_rate=0.05)
    history = fit(objective.with_loss_head(model, None), digits.train, [objective.loss], config)
    assert history[-1]["class_accuracy"] > 0.5
    assert objective.evaluate(model, digits.test.batches(256))["recall_at_1"] > before + 0.04


@pytest.mark.parametrize("loss", ["softmax", "mse", "arcface"])
def test_a_student_equal_to_its_teacher_is_at_no_distance(loss):
    images = RNG.normal(size=(30, 6, 6, 3)).astype("float32")
    labels = RNG.normal(size=(30, 4)) if loss == "mse" else np.arange(30) % 4
    model, data = classifier(4), as_split((images, labels))
    objective = choose_objective(model, data, loss)
    taught = objective.targets(model, data)(images)
    outputs = objective.with_loss_head(model, data)(images)
    np.testing.assert_allclose(Distillation(objective.loss, 1.0)(labels, outputs, taught), 0.0, atol=1e-3)


@pytest.mark.parametrize("loss", ["arcface", "cosface", "asoftmax"])
def test_embeddings_are_as_far_from_a_teachers_as_their_angle_says(loss):
    images = RNG.normal(size=(30, 6, 6, 3)).astype("float32")
    teacher, student, data = classifier(4), classifier(4), as_split((images, np.arange(30) % 5))
    objective = choose_objective(teacher, data, loss)
    taught, outputs = objective.targets(teacher, data)(images), objective.with_loss_head(student, data)(images)
    first, second = teacher(images).numpy(), student(images).numpy()
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    distance = objective.loss.distance(taught, outputs, temperature=4.0)
    np.testing.assert_allclose(distance, objective.margin.scale * (1 - cosines).mean(), rtol=1e-4)


def test_a_loss_of_the_users_own():
    def huber(labels, outputs):
        return tf.reduce_mean(keras.losses.huber(labels, outputs))

    images, labels = RNG.normal(size=(20, 6, 6, 3)).astype("float32"), RNG.normal(size=(20, 4)).astype("float32")
    model, data = classifier(4, "sigmoid"), as_split((images, labels))
    objective = as_objective(huber, model, data)
    assert isinstance(objective, Custom)
    assert "huber" in repr(objective)
    head = objective.head("h", (None, 4, 4, 8), (None, 4), "channels_last")
    assert ((head(RNG.normal(size=(3, 4, 4, 8))) > 0) & (head(RNG.normal(size=(3, 4, 4, 8))) < 1)).numpy().all()
    measured = objective.evaluate(model, data.batches(7))
    np.testing.assert_allclose(measured["loss"], huber(labels, model(images)), rtol=1e-5)
    with pytest.raises(UsageError, match="has no `distance`"):
        Distillation(objective.loss, 0.5)


def test_a_loss_of_the_users_own_traces_the_model_once():
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2), Counting()])
    data = as_split((np.zeros((20, 6, 6, 3), "float32"), np.zeros((20, 2), "float32")))
    objective = as_objective(lambda labels, outputs: tf.reduce_mean((labels - outputs) ** 2), model, data)
    traces.clear()
    objective.evaluate(model, data.batches(4))
    assert len(traces) == 1


def test_what_is_no_objective_is_refused():
    model, data = classifier(4), as_split((np.zeros((4, 6, 6, 3), "float32"), np.arange(4)))
    with pytest.raises(UsageError, match="received int"):
        as_objective(3, model, data)
    with pytest.raises(UsageError, match="not both"):
        as_objective(Classification(), model, data, "softmax")
