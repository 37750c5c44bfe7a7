"""Heads learn from one pass over a model that stays as it is."""

import keras
import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.graph import ChannelGraph
from dcp_tf.training import TrainConfig, as_objective
from dcp_tf.training.heads import augment
from dcp_tf.training.pooled_heads import are_pooled, train_pooled_heads

CONFIG = TrainConfig(epochs=2, batch_size=32, learning_rate=0.01)


def network(outputs=4):
    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 2))
    for filters in (8, 8, 16):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(outputs)(keras.layers.GlobalAveragePooling2D()(x)))


def images(count=160):
    """The class says in which corner an image is bright: pooling after a nonlinearity sees it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count).astype("int32")
    x = rng.normal(size=(count, 8, 8, 2)).astype("float32")
    return x + (labels[:, None, None, None] - 1.5) * np.array([1.0, -0.5], "float32"), labels


def trained(loss=None, outputs=4, labels=None, seed=0, **settings):
    model, (x, y) = network(outputs), images()
    split = data.make_array_split(x, y if labels is None else labels(x, y))
    graph = ChannelGraph(model)
    objective = as_objective(loss, model, split)
    loss_head = objective.loss_head(model, split)
    keras.utils.set_random_seed(seed)
    augmented = augment(graph, 2, objective, loss_head=loss_head)
    assert are_pooled(augmented.heads)
    record = train_pooled_heads(
        augmented,
        graph.trace,
        split,
        augmented.losses(objective)[:-1],
        CONFIG,
        None,
        **{"batch_size": 48, "most_bytes": 2**20} | settings,
    )
    return model, augmented, record, (x, y)


def test_heads_tell_classes_and_the_model_stays():
    model, augmented, record, (x, y) = trained()
    assert all(np.array_equal(a, b) for a, b in zip(network().get_weights(), model.get_weights(), strict=True))
    *heads, final = augmented.model(x, training=False)
    right = [float(np.mean(np.argmax(head, -1) == y)) for head in heads]
    assert min(right) > 0.6  # of four classes
    assert len(record["losses"]) == len(heads)
    assert record["top1"] > 0.5
    np.testing.assert_array_equal(final, model(x))


def test_statistics_are_those_of_the_feature_maps():
    model, augmented, _, (x, _) = trained()
    head = augmented.heads[0]
    graph = ChannelGraph(model)
    tensor = augmented.positions[0].tensor
    values = np.asarray(graph.trace.run({graph.trace.inputs[0]: x}, [tensor], training=False)[tensor])
    norm = next(layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization))
    np.testing.assert_allclose(norm.moving_mean, values.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, values.var((0, 1, 2)), rtol=1e-3, atol=1e-5)


def test_the_seed_says_all_and_few_bytes_take_fewer_images():
    weights = [np.concatenate([w.ravel() for h in trained()[1].heads for w in h.get_weights()]) for _ in range(2)]
    np.testing.assert_array_equal(*weights)
    *_, record, _ = trained(most_bytes=4 * 24 * 20)  # two heads of 8 and 8 or 16 channels
    assert np.isfinite(record["loss"])


@pytest.mark.parametrize(
    ("loss", "labels"),
    [("mse", lambda x, y: np.stack([x.mean((1, 2, 3))] * 4, 1)), ("arcface", None), ("sigmoid", None)],
)
def test_every_loss_trains_its_heads(loss, labels):
    if loss == "sigmoid":
        loss, labels = None, lambda x, y: np.eye(4, dtype="float32")[y]
    _, augmented, record, (x, _) = trained(loss, labels=labels)
    assert np.isfinite(record["losses"]).all()
    assert all(np.isfinite(np.asarray(output)).all() for output in augmented.model(x, training=False))


def test_other_heads_are_told_apart():
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.BatchNormalization()(inputs)))
    assert not are_pooled([keras.Model(inputs, x)])
