"""A model at chance is not believed, and the cause is found; a model that is only weak is left alone."""

import dataclasses

import keras
import numpy as np
import pytest

from dcp_tf.data import find_normalization, make_array_split, split_from_arrays
from dcp_tf.models.signature import with_flat_signature
from dcp_tf.settings.normalization import NORMALIZATIONS
from dcp_tf.training import Directions, as_objective, choose_for_outputs
from dcp_tf.training.baseline_check import check_baseline
from dcp_tf.training.joint_objective import each_output
from dcp_tf.training.verified import Verified

RNG = np.random.default_rng(0)
CLASSES = 10
TEMPLATES = RNG.uniform(0.1, 0.9, (CLASSES, 6, 6, 3))
LABELS = np.arange(600) % CLASSES
UNIT = np.clip(TEMPLATES[LABELS] + RNG.normal(0, 0.05, (600, 6, 6, 3)), 0, 1)
PIXELS = np.round(255 * UNIT).astype(np.uint8)
RANGES = ("unit", "raw", "tf", "imagenet", "caffe")


def model_for(name, share=1.0):
    """Knows the templates in one pixel range, in which it is right on a share of the images, and nothing else."""
    templates = NORMALIZATIONS[name].apply(TEMPLATES, 1.0).reshape(CLASSES, -1)
    spread = templates.std()

    def predict(images):
        images = np.asarray(images, np.float64).reshape(len(images), -1)
        distances = np.square((images[:, None] - templates) / spread).mean(-1)
        return np.maximum(0.0, 0.2 - distances).astype(np.float32)

    return predict


def classes(labels, outputs=CLASSES, kind="logits"):
    return choose_for_outputs(kind, (None, outputs), make_array_split(np.zeros((len(labels), 1)), labels))


def checked(predict, split, objective=None, **options):
    return check_baseline(predict, objective or classes(split.labels), split, split, **options)


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("given", RANGES)
def test_the_pixel_range_is_found(wanted, given):
    split = split_from_arrays(PIXELS, LABELS, normalization=given)
    check = checked(model_for(wanted), split)
    if wanted == given:
        assert not check.lines()
        assert check.figures["top1"] > 0.95
        assert check.headline() == f"baseline: top1 {check.figures['top1']:.4f} on 600 images"
    else:
        assert check.chance == pytest.approx(0.1, abs=0.02)
        assert check.ranges[0].settings == f"normalization={wanted!r}"
        assert check.ranges[0].value > 0.95
        assert f"normalization={wanted!r}" in check.lines()[-1]


def normalization_of(settings):
    given = eval(f"dict({settings})")
    return find_normalization(given.pop("normalization", "none"), **given)


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("low_and_high", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_the_settings_for_arrays_of_floats_make_it_right(wanted, low_and_high):
    low, high = low_and_high
    images = (low + UNIT * (high - low)).astype(np.float32)
    check = checked(model_for(wanted), split_from_arrays(images, LABELS))
    if check.warning is None:  # they are as they should be
        assert check.figures["top1"] > 0.95
        return
    best = check.ranges[0]
    assert best.value > 0.95
    if best.settings is None:
        assert (wanted, low_and_high != (0.0, 1.0)) == ("caffe", True)  # no setting turns such floats to BGR
        return
    right = split_from_arrays(images, LABELS, normalization=normalization_of(best.settings))
    assert checked(model_for(wanted), right).figures["top1"] > 0.95


@pytest.mark.parametrize("shape", [(600, 6, 18), (600, 108)])
def test_images_without_a_channel_axis_have_ranges_too(shape):
    check = checked(model_for("unit"), make_array_split(PIXELS.reshape(shape), LABELS))
    assert check.ranges[0].name == "0 to 1"
    assert check.ranges[0].value > 0.95
    assert "must be brought to" in check.lines()[-1]
    assert not checked(model_for("unit"), make_array_split(UNIT.reshape(shape), LABELS)).lines()


PERMUTED = RNG.permutation(CLASSES)


@pytest.mark.parametrize(
    ("labels", "outputs", "name"),
    [
        (PERMUTED[LABELS], CLASSES, "another order"),
        (LABELS + 1, CLASSES + 1, "labels less 1"),
        (np.where(LABELS < 3, LABELS, (LABELS - 3 + 1) % 7 + 3), CLASSES, "another order"),  # some are right
    ],
)
def test_the_order_of_the_classes_is_found(labels, outputs, name):
    def predict(images):
        return np.pad(model_for("unit")(images), ((0, 0), (0, outputs - CLASSES)))

    check = checked(predict, split_from_arrays(PIXELS, labels), classes(labels, outputs))
    best = max(check.orders, key=lambda order: order.value)
    assert best.value > 0.95
    assert name in (best.name, "labels less 1")
    assert "classes" in check.lines()[-1]
    if best.outputs:
        right = np.array(best.outputs)[labels]
        assert np.mean(right == LABELS) == 1
    assert not checked(predict, split_from_arrays(PIXELS, LABELS), classes(labels, outputs)).lines()


def test_a_wrong_range_and_a_wrong_order_are_found_together():
    check = checked(model_for("raw"), split_from_arrays(PIXELS, PERMUTED[LABELS]))
    assert "normalization='raw'" in check.lines()[-1]
    assert "another order" in check.lines()[-1]


def normalized(mean, variance):
    """Knows the templates if its BatchNormalization, which is frozen, has the statistics of the images."""
    size, weights = TEMPLATES[0].size, keras.initializers.Constant
    offset = np.random.default_rng(1).normal(0, 30, size)
    spread = np.sqrt(VARIANCE + 1e-3)
    templates = (TEMPLATES.reshape(CLASSES, -1) - MEAN) / spread
    norm = keras.layers.BatchNormalization(center=False, scale=False, trainable=False)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Flatten(),
            keras.layers.ReLU(max_value=1.0),  # no other range of pixels helps
            keras.layers.Dense(size, kernel_initializer="identity", bias_initializer=weights(offset)),
            norm,
            keras.layers.Dropout(0.9),
            keras.layers.Dense(CLASSES, None, True, weights(templates.T), weights(-np.square(templates).sum(-1) / 2)),
        ]
    )
    norm.set_weights(
        [offset + mean, variance + np.zeros(size)] if mean is not None else [np.zeros(size), np.ones(size)]
    )
    return model


MEAN, VARIANCE = UNIT.reshape(600, -1).mean(0), UNIT.reshape(600, -1).var(0)


@pytest.mark.parametrize("mean", [None, MEAN + 20])
def test_moving_statistics_of_other_images_are_found(mean):
    model, split = normalized(mean, VARIANCE), split_from_arrays(UNIT.astype(np.float32), LABELS)
    outputs = model.predict(UNIT[:9], verbose=0)
    cause = checked(model, split).lines()[-1]
    assert "likely cause: the moving statistics of BatchNormalization do not fit these images" in cause
    assert ("1 of 1 layers still have mean 0 and variance 1" in cause) == (mean is None)
    np.testing.assert_array_equal(model.predict(UNIT[:9], verbose=0), outputs)
    assert not model.layers[3].trainable


def test_moving_statistics_are_not_the_cause_of_other_faults():
    model, split = normalized(MEAN, VARIANCE), split_from_arrays(UNIT.astype(np.float32), LABELS)
    assert not checked(model, split).lines()
    assert "statistics" not in str(checked(model, split_from_arrays(PIXELS, LABELS, normalization="raw")).lines())
    model.layers[-1].set_weights([0 * weights for weights in model.layers[-1].get_weights()])
    assert "statistics" not in str(checked(model, split).lines())
    model.layers[3].set_weights([np.zeros(108), np.ones(108)])
    assert "looks untrained" in checked(model, split).lines()[-1]


def test_classes_are_called_by_their_names():
    names = [f"shape {number}" for number in range(CLASSES)]
    check = checked(model_for("unit"), split_from_arrays(PIXELS, LABELS[::-1]), class_names=names)
    assert "0 (shape 0) is output 9" in check.lines()[-1]
    assert "below chance" in check.lines()[0]


def test_wrong_data_are_explained_by_nothing():
    check = checked(model_for("unit"), split_from_arrays(RNG.integers(0, 255, PIXELS.shape).astype("uint8"), LABELS))
    assert "at chance" in check.lines()[0]
    assert "wrong data?" in check.lines()[-1]


def answers(labels, share, outputs, seed=1):
    """Outputs that are right on a share of the images, and at random on the others; images hold their numbers."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.uniform(size=len(labels)) < share, labels, rng.integers(0, outputs, len(labels)))
    return lambda images: np.eye(outputs, dtype="float32")[said[np.asarray(images)[:, 0].astype(int)]]


def numbered(labels):
    return make_array_split(np.arange(len(labels))[:, None].astype("float32"), labels)


FAIR = {
    "weak on 100 classes": (np.arange(1000) % 100, 100, 0.1),
    "weak on two": (np.arange(5000) % 2, 2, 0.12),
    "rare positives": ((np.arange(1000) % 10 == 0).astype(int), 2, 0.5),
    "few images": (np.arange(12) % 3, 3, 0.7),
    "good": (np.arange(200) % 7, 7, 0.9),
    "one class": (np.zeros(50, int), 3, 1.0),
}


@pytest.mark.parametrize("case", FAIR)
def test_models_that_know_something_are_believed(case):
    labels, outputs, share = FAIR[case]
    data = numbered(labels)
    for seed in range(3):
        assert not checked(answers(labels, share, outputs, seed), data, classes(labels, outputs)).lines()


@pytest.mark.parametrize(
    ("labels", "outputs"),
    [(np.arange(1000) % 100, 100), (np.arange(5000) % 2, 2), ((np.arange(1000) % 10 == 0).astype(int), 2)],
)
def test_models_at_chance_are_not(labels, outputs):
    data, objective = numbered(labels), classes(labels, outputs)
    assert "at chance" in checked(answers(labels, 0.0, outputs), data, objective).warning
    constant = np.eye(outputs, dtype="float32")[:1]  # right on nine of ten, if the classes are uneven
    check = checked(lambda images: np.repeat(constant, len(images), 0), data, objective)
    assert "at chance" in check.warning


def test_what_is_expected():
    labels = np.arange(1000) % 5
    data, objective = numbered(labels), classes(labels, 5)
    predict = answers(labels, 0.8, 5)  # right on .84
    assert not checked(predict, data, objective, expected=0.85).lines()
    assert "0.97 is expected" in checked(predict, data, objective, expected=0.97).warning
    assert not checked(answers(labels, 0.0, 5), data, objective, is_trained=False).lines()


def numbers(outputs=2):
    labels = RNG.normal(5, 2, (400, outputs)).astype("float32")
    return labels, numbered(labels), choose_for_outputs("logits", (None, outputs), make_array_split(labels, labels))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda y: y, None),
        (lambda y: 5 + 0.25 * (y - 5) + RNG.normal(0, 1, y.shape) * 0.25, None),
        (lambda y: np.full_like(y, 5), "explains nothing"),
        (lambda y: RNG.permutation(y), "explains nothing"),
        (lambda y: (y - 5) / 2, "label = 2 output + 5"),
    ],
    ids=["right", "weak", "the mean", "shuffled", "other units"],
)
def test_numbers(change, line):
    labels, data, objective = numbers()
    outputs = change(labels).astype("float32")
    lines = checked(lambda images: outputs[np.asarray(images)[:, 0].astype(int)], data, objective).lines()
    assert line in " ".join(lines) if line else not lines


def test_labels_that_do_not_count_say_nothing():
    labels, _, objective = numbers()
    weights = (np.arange(400) % 4 == 0).astype("float32")
    data = make_array_split(np.repeat(np.arange(400.0)[:, None], 2, 1), labels, weights=weights)
    outputs = np.where(weights[:, None] > 0, labels, -50).astype("float32")
    assert not checked(lambda images: outputs[np.asarray(images)[:, 0].astype(int)], data, objective).lines()


@pytest.mark.parametrize(
    ("kind", "shape", "labels"),
    [
        ("sigmoid", (None, 6), RNG.integers(0, 2, (300, 6))),
        ("softmax", (None, 5, 5, 3), RNG.integers(0, 3, (300, 5, 5))),
        ("softmax", (None, 8, 4), RNG.integers(0, 4, (300, 8))),
    ],
    ids=["several classes", "maps", "sequences"],
)
def test_other_answers(kind, shape, labels):
    data = numbered(labels)
    objective = choose_for_outputs(kind, shape, data)
    right = labels.astype("float32") if kind == "sigmoid" else np.eye(shape[-1], dtype="float32")[labels]
    noisy = np.where(RNG.uniform(size=labels.shape)[..., None] < 0.6, right.reshape(*labels.shape, -1), 0.3)
    noisy = noisy.reshape(right.shape).astype("float32")
    for outputs, is_chance in ((right, False), (noisy, False), (right[RNG.permutation(len(right))], True)):
        check = checked(lambda images, said=outputs: said[np.asarray(images)[:, 0].astype(int)], data, objective)
        assert ("at chance" in (check.warning or "")) is is_chance, check


@dataclasses.dataclass
class Pairs:
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    fold: np.ndarray


def test_faces_that_are_verified_by_guessing():
    people = np.repeat(np.arange(40), 10)
    left = np.arange(400)
    same = left % 2 == 0
    right = np.where(same, left // 10 * 10 + (left + 1) % 10, (left + 170) % 400)
    objective = Verified(Directions(), Pairs(left, right, same, left % 4), mirror=False)
    data = numbered(people)
    directions = RNG.normal(size=(40, 8))
    known = (directions[people] + RNG.normal(0, 0.3, (400, 8))).astype("float32")
    unknown = RNG.normal(size=(400, 8)).astype("float32")
    for embeddings, warns in ((known, False), (unknown, True)):
        check = checked(lambda images, said=embeddings: said[np.asarray(images)[:, 0].astype(int)], data, objective)
        assert ("no better than chance" in (check.warning or "")) is warns


def test_faces_of_which_no_two_are_of_one_person_are_measured_by_their_pairs_alone():
    left = np.arange(100)
    objective = Verified(Directions(), Pairs(left, (left + 50) % 100, left % 2 == 0, left % 4), mirror=False)
    embeddings = RNG.normal(size=(100, 8)).astype("float32")
    check = checked(lambda images: embeddings[np.asarray(images)[:, 0].astype(int)], numbered(left), objective)
    assert check.headline().startswith("baseline: verification_accuracy")
    assert not check.ranges


def test_training_images_stand_in_for_unlabelled_test_images():
    train, test = split_from_arrays(PIXELS, LABELS), split_from_arrays(PIXELS)
    check = check_baseline(model_for("raw"), classes(LABELS), train, test)
    assert "on 400 training images" in check.headline()
    assert "normalization='raw'" in check.lines()[-1]
    assert check_baseline(model_for("raw"), classes(LABELS), test, test) is None


def test_several_outputs_are_measured_on_training_data_and_their_images_in_other_ranges():
    image, size = keras.Input((8, 8, 1), name="image"), keras.Input((1,), name="size")
    mean = keras.layers.GlobalAveragePooling2D()(image)
    outputs = {"both": keras.layers.Add(name="both")([mean, size]), "one": keras.layers.Flatten(name="one")(mean)}
    model = with_flat_signature(keras.Model({"image": image, "size": size}, outputs))
    rng = np.random.default_rng(0)
    images, sizes = rng.integers(0, 256, (64, 8, 8, 1)), rng.normal(0, 0.1, (64, 1)).astype(np.float32)
    images = images * np.linspace(0, 1, 64)[:, None, None, None]
    right = images.mean((1, 2)) / 255
    labels = {"both": right + sizes, "one": right}
    data = make_array_split({"image": images.astype(np.float32), "size": sizes}, labels).bound_to(model)
    objective = as_objective(None, model, data)
    check = check_baseline(model, objective, data)
    assert (check.part, check.images) == ("training", 64)
    for _, part, own_model, (own,) in each_output(objective, model, data):
        found = check_baseline(own_model, part, own)
        assert found.ranges[0].name == "0 to 1"
        assert found.ranges[0].value > 0.99
        assert "the model takes other pixels, 0 to 1" in found.cause
