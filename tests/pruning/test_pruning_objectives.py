"""Pruning of models that are no classifiers, by both selections, with labels and without."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import BARE

import dcp_tf
from dcp_tf.data import as_split
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, masked
from dcp_tf.training import TrainConfig, choose_objective, fit

layers = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(128, 8, 8, 3)).astype("float32")
SHORT = TrainConfig(epochs=1, batch_size=32, learning_rate=0.01)


def rows(images):
    return (images.reshape(len(images), 4, -1).mean(-1) > 0.5).astype(int)


def vector(units, activation=None):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, activation="relu", name="second")(x)
    x = layers.Dense(units, activation=activation, name="end")(layers.Flatten()(x))
    return keras.Model(image, x)


def unet(units, activation=None):
    image = keras.Input((8, 8, 3))
    a = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(layers.MaxPooling2D()(a))
    x = layers.Concatenate()([layers.UpSampling2D()(x), a])
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="third")(x)
    return keras.Model(image, layers.Conv2D(units, 1, activation=activation, name="end")(x))


KINDS = {
    "multilabel": (lambda: vector(4), rows(IMAGES), "auto"),
    "regression": (lambda: vector(2), 4 * IMAGES.mean((1, 2))[:, :2] - 2, "auto"),
    "maps": (lambda: unet(3, "softmax"), IMAGES.argmax(-1), "auto"),
    "embedding": (lambda: vector(6), rows(IMAGES).argmax(-1), "arcface"),
}


@pytest.fixture(scope="module")
def trained():
    made = {}

    def get(kind):
        if kind not in made:
            keras.utils.set_random_seed(3)
            build, labels, loss = KINDS[kind]
            model, data = build(), as_split((IMAGES, labels))
            objective = choose_objective(model, data, loss)
            rate = 0.0005 if loss == "arcface" else 0.02  # its loss is of the order of its scale, 64
            fit(
                objective.with_loss_head(model, data),
                data,
                [objective.loss],
                TrainConfig(epochs=6, batch_size=32, learning_rate=rate),
            )
            made[kind] = model, data, objective
        return made[kind]

    return get


QUICK = [("regression", "exact", True), ("maps", "fast", False)]  # the programs prune the other kinds
EVERY = list(itertools.product(KINDS, ("fast", "exact"), (True, False)))


@pytest.mark.parametrize(
    ("kind", "selection", "labelled"),
    [pytest.param(*each, marks=() if each in QUICK else pytest.mark.slow) for each in EVERY],
)
def test_every_kind_is_pruned(kind, selection, labelled, trained):
    model, data, objective = trained(kind)
    before = [w.copy() for w in model.get_weights()]
    method = dcp_tf.DCP(rate=0.5, selection=selection, selection_samples=64, selection_batch=32)
    given = (IMAGES, data.labels) if labelled else IMAGES
    result = dcp_tf.prune(
        model,
        given,
        method,
        validation_data=given if labelled else None,
        objective=KINDS[kind][2],
        auxiliary=dataclasses.replace(SHORT, learning_rate=0.0005) if kind == "embedding" else SHORT,
        finetuning=dataclasses.replace(SHORT, learning_rate=0.0005) if kind == "embedding" else SHORT,
    )
    assert all(len(group.kept) == 4 for group in result.plan.groups)
    assert result.model.output_shape == model.output_shape
    assert (objective.primary in result.before_finetuning) == labelled
    assert np.isfinite(objective.evaluate(result.model, data.batches(64))[objective.primary])
    # Surgery is exact, and the baseline stays as it was.
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    graph = ChannelGraph(model, [(None, 8, 8, 3)])
    kept = result.plan.kept(graph)
    np.testing.assert_allclose(result.plan.apply(model)(IMAGES), masked(graph, kept)(IMAGES), rtol=1e-4, atol=1e-5)


def test_validation_data_is_looked_at_before_anything_is_done(trained, tmp_path):
    model, data, _ = trained("regression")
    for given, words in (
        (IMAGES[:, :6], r"validation_data has \(6, 8, 3\)"),
        (IMAGES, "validation_data has no labels"),
        ((IMAGES, np.zeros((len(IMAGES), 7))), "validation_data"),
    ):
        with pytest.raises(dcp_tf.UsageError, match=words):
            dcp_tf.prune(model, data, dcp_tf.DCP(rate=0.5), validation_data=given, state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_selection_by_squared_errors_beats_chance(trained):
    model, data, _ = trained("regression")
    errors = {}
    for method, seeds in ((dcp_tf.DCP(rate=0.5, selection_samples=128), (0,)), (dcp_tf.Random(rate=0.5), (0, 1, 2))):
        runs = [dcp_tf.prune(model, data, method, validation_data=data, seed=seed, **BARE) for seed in seeds]
        errors[method.name] = np.mean([run.before_finetuning["mse"] for run in runs])
    assert errors["dcp"] < errors["random"]


def test_an_objective_of_the_users_own(trained):
    model, data, _ = trained("regression")

    def absolute(labels, outputs):
        return tf.reduce_mean(tf.abs(labels - outputs))

    made = []

    def head(name, shape, output_shape, data_format):
        feature_map = keras.Input(batch_shape=shape)
        made.append(shape)
        return keras.Model(feature_map, layers.Dense(output_shape[-1])(layers.Flatten()(feature_map)), name=name)

    objective = dcp_tf.Custom(absolute, make_head=head)
    method = dcp_tf.DCP(rate=0.5, selection_samples=64)
    result = dcp_tf.prune(
        model, data, method, validation_data=data, objective=objective, auxiliary=SHORT, finetuning=SHORT
    )
    assert made
    assert result.before_finetuning["loss"] > 0
    assert result.model.count_params() < model.count_params()


def test_an_objective_that_does_not_fit_is_refused(trained):
    model, data, _ = trained("regression")
    with pytest.raises(UsageError, match="float32"):
        dcp_tf.prune(model, (IMAGES, data.labels[:, 0]), dcp_tf.DCP(), objective="softmax")
    with pytest.raises(UsageError, match="one for an image"):
        dcp_tf.prune(trained("maps")[0], IMAGES, dcp_tf.DCP(), objective="arcface")
    for objective in (
        dcp_tf.Custom(keras.losses.mean_absolute_error, primary="mae"),
        dcp_tf.Custom(keras.losses.mean_absolute_error, metrics=lambda model, batches: {"loss": 1.0}, primary="mae"),
    ):
        with pytest.raises(UsageError, match="primary='mae' must be one of what metrics gives, loss"):
            dcp_tf.prune(model, data, dcp_tf.L1(), validation_data=data, objective=objective, finetuning=None)
