"""Class weights reach a loss as sample weights, whatever the data come from, as in `keras.Model.fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import as_split, split_batch, with_class_weight
from dcp_tf.errors import UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 3)).astype("float32")
CLASSES = np.arange(10) % 4
WEIGHTS = (RNG.random(10) + 0.5).astype("float32")
BY_CLASS = {0: 2.0, 2: 0.5, 3: 0.0}
EXPECTED = np.array([2.0, 1.0, 0.5, 0.0], "float32")[CLASSES]


def arrays(*parts):
    return parts


def pipeline(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(4)


def weights_of(split):
    return np.concatenate([split_batch(batch)[2] for batch in split.batches(3)])


@pytest.mark.parametrize("make", [arrays, pipeline])
@pytest.mark.parametrize("labels", [CLASSES, np.eye(4, dtype="float32")[CLASSES]], ids=["numbers", "rows"])
def test_each_sample_has_the_weight_of_its_class(make, labels):
    split = with_class_weight(as_split(make(X, labels)), BY_CLASS)
    np.testing.assert_array_equal(split.weights, EXPECTED)
    np.testing.assert_array_equal(weights_of(split), EXPECTED)
    weighted = with_class_weight(as_split(make(X, labels, WEIGHTS)), BY_CLASS)
    np.testing.assert_allclose(weights_of(weighted), EXPECTED * WEIGHTS)


def test_the_weights_are_those_of_keras():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    fitted = model.fit(X, CLASSES, batch_size=10, class_weight=BY_CLASS, verbose=0).history["loss"][0]
    weights = with_class_weight(as_split((X, CLASSES)), BY_CLASS).weights
    assert fitted == pytest.approx(float(loss(CLASSES, model(X), sample_weight=weights)), rel=1e-5)


def test_each_output_has_its_own():
    labels = {"a": CLASSES, "b": X}
    split = with_class_weight(as_split((X, labels, {"b": WEIGHTS})), {"a": BY_CLASS})
    weights = split_batch(next(iter(split.batches(10))))[2]
    np.testing.assert_array_equal(weights["a"], EXPECTED)
    np.testing.assert_array_equal(weights["b"], WEIGHTS)


def test_a_map_of_classes_has_a_weight_for_each_position():
    maps = RNG.integers(-1, 4, (10, 5, 5))  # -1 is ignored by many losses
    split = with_class_weight(as_split((X, maps, WEIGHTS)), BY_CLASS)
    expected = np.array([2.0, 1.0, 0.5, 0.0, 1.0], "float32")[maps] * WEIGHTS[:, None, None]
    np.testing.assert_allclose(split.weights, expected)


def test_none_changes_nothing():
    split = as_split((X, CLASSES))
    assert with_class_weight(split, None) is split


@pytest.mark.parametrize(
    ("data", "class_weight", "words"),
    [
        ((X, CLASSES), [1, 2], "must be a dict"),
        ((X, CLASSES), {}, "must be a dict"),
        ((X, CLASSES), {"cat": 2}, "class number: weight"),
        ((X, CLASSES), {0: -1}, "class number: weight"),
        ((X, WEIGHTS), {0: 1}, "needs class numbers"),
        ((X, None), {0: 1}, "needs labels"),
        ((X, {"a": CLASSES, "b": X}), {0: 1}, "names 0; give"),
        ((X, {"a": CLASSES, "b": X}), {"a": 2.0}, "class number: weight"),
    ],
)
def test_what_names_no_class_is_one_line(data, class_weight, words):
    with pytest.raises(UsageError, match=words):
        with_class_weight(as_split(data), class_weight)
