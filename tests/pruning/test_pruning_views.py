"""Few images are seen several times by the selection, where the model recognizes crops of them."""

import keras
import numpy as np
import pytest
from keras import layers

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.pruning.context import prepare
from dcp_tf.pruning.views import with_views

# Classes are told by their color, which each crop shows.
LABELS = np.arange(40) % 4
COLORS = np.eye(4, 3, dtype=np.float32)
IMAGES = COLORS[LABELS][:, None, None] + np.random.default_rng(0).normal(0, 0.05, (40, 32, 32, 3)).astype("float32")
NOISE = np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32")
NONE = dcp_tf.TrainConfig(epochs=0)


def network(recognizes=True):
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(image)
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x) if recognizes else layers.Flatten()(x)
    model = keras.Model(image, layers.Dense(4 if recognizes else 50)(x))
    if recognizes:
        model.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(IMAGES, LABELS, epochs=60, verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    return network()


def context(model, images=IMAGES, labels=LABELS, **settings):
    method = dcp_tf.DCP(rate=0.5, round_to=1, selection_samples=200, **settings)
    return prepare(model, (images, labels), method, auxiliary=NONE, finetuning=NONE)


def test_crops_fill_the_selection_set(model):
    views = with_views(context(model))
    assert (views.selection_data.size, views.data.size) == (200, 40)
    assert with_views(context(model, labels=None)).selection_data.size == 200


def test_what_crops_would_spoil_stays_as_it_is(model):
    assert with_views(context(network(recognizes=False), NOISE)).selection_data is None
    assert with_views(context(model, selection_views=1)).selection_data is None
    many = np.concatenate([IMAGES] * 5), np.concatenate([LABELS] * 5)
    assert with_views(context(model, *many)).selection_data is None


def test_the_number_can_be_given(model):
    assert with_views(context(network(recognizes=False), NOISE, selection_views=3)).selection_data.size == 120


def test_vectors_have_no_crops():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(16, "relu"), layers.Dense(4)])
    vectors = np.random.default_rng(0).random((40, 20)).astype("float32")
    assert with_views(context(model, vectors)).selection_data is None
    with pytest.raises(UsageError, match="leave it out"):
        with_views(context(model, vectors, selection_views=2))


def test_a_run_on_views_fits_the_held_out_images(model, capsys):
    method = dcp_tf.DCP(rate=0.5, round_to=1, selection_samples=200, discrimination=0.0)
    result = dcp_tf.prune(model, (IMAGES, LABELS), method, validation_data=(IMAGES, LABELS), finetuning=NONE)
    assert "5 views of each of 40 images" in capsys.readouterr().err
    assert result.before_finetuning["top1"] > 0.9
    again = dcp_tf.prune(model, (IMAGES, LABELS), method, finetuning=NONE)
    assert again.plan.to_json() == result.plan.to_json()
