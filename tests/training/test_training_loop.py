"""What fit promises, on small models: what moves and what does not, epochs, history, what is printed."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_nets import IMAGES, LOGITS, batches, convolutional, plain, same, values

from dcp_tf.training import ClassificationLoss, TrainConfig, fit, seed_everything


def test_masked_weights_are_and_stay_exactly_zero():
    model = convolutional()
    kernel, gamma = model.get_layer("conv").kernel, model.get_layer("norm").gamma
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, kernel.shape)
    before = kernel.numpy()
    masks = {kernel.path: mask, id(gamma): np.array([1, 0, 1, 0, 1, 1])}
    fit(model, batches(), [LOGITS], plain(2, momentum=0.9, weight_decay=0.01), masks=masks)
    assert np.count_nonzero(kernel.numpy()[mask == 0]) == 0
    assert np.count_nonzero(gamma.numpy()[[1, 3]]) == 0
    assert np.all(kernel.numpy()[mask == 1] != before[mask == 1])


def test_untrainable_layers_do_not_move():
    model = convolutional()
    for name in ("conv", "norm"):
        model.get_layer(name).trainable = False
    before = values(model)
    fit(model, batches(), [LOGITS], plain(2, momentum=0.9, weight_decay=0.01))
    moved = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert moved == {"act/alpha", "depthwise/kernel", "depthwise/bias", "final/kernel", "final/bias"}


def test_frozen_batch_norm_stays_and_is_released_again():
    model = convolutional()
    before = values(model)
    fit(model, batches(), [LOGITS], plain(), frozen_batch_norm=True)
    after = values(model)
    assert all(np.array_equal(after[path], value) for path, value in before.items() if path.startswith("norm/"))
    assert not np.array_equal(after["conv/kernel"], before["conv/kernel"])
    assert model.get_layer("norm").trainable
    fit(model, batches(), [LOGITS], plain())
    assert not any(np.array_equal(values(model)[path], after[path]) for path in after if path.startswith("norm/"))


def test_running_statistics_follow_the_momentum_of_the_run_which_is_then_undone():
    def moved(momentum):
        model = convolutional()
        norm = model.get_layer("norm")
        fit(model, batches(size=40), [LOGITS], plain(batch_norm_momentum=momentum))
        assert norm.momentum == 0.99
        return norm.moving_mean.numpy()

    np.testing.assert_allclose(moved(0.05), 95 * moved(None), rtol=1e-4, atol=1e-6)


def test_running_statistics_of_a_short_training_are_those_of_its_last_weights():
    model = convolutional()
    norm = model.get_layer("norm")
    norm.moving_mean.assign(norm.moving_mean + 1000.0)  # of weights that are gone
    fit(model, batches(size=8), [LOGITS], plain(2))
    assert np.abs(norm.moving_mean.numpy()).max() < 1.0


def test_equal_seeds_give_equal_weights_whatever_was_drawn_before():
    def trained(seed):
        model = convolutional(dropout=0.5)
        model(IMAGES, training=True)  # moves Dropout's random state, and the moving means
        tf.random.uniform((3,))
        return values(model), fit(model, batches(), [LOGITS], plain(2, seed=seed)), values(model)

    (start_a, history_a, a), (start_b, history_b, b), (_, _, other) = trained(5), trained(5), trained(6)
    assert same(start_a, start_b)
    assert same(a, b)
    assert not same(a, other)
    assert [r["loss"] for r in history_a] == [r["loss"] for r in history_b]


@pytest.mark.parametrize("kind", ["logits", "softmax", "sigmoid"])
def test_a_toy_problem_is_learned(kind):
    seed_everything(0)
    images = np.zeros((96, 8, 8, 1), "float32")
    labels = np.arange(96) % 3
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] = 1.0
    images += np.random.default_rng(0).normal(size=images.shape, scale=0.3)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    activation = None if kind == "logits" else kind
    model = keras.Model(inputs, keras.layers.Dense(3, activation=activation)(x))
    history = fit(model, batches(images.astype("float32"), labels, 32), [ClassificationLoss(kind)], TrainConfig(8))
    assert history[-1]["top1"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"]


def test_history_and_validation():
    calls = []

    def validation():
        calls.append(1)
        return {"validation_top1": np.float32(len(calls) / 10)}

    history = fit(convolutional(), batches(), [LOGITS], TrainConfig(3), validation=validation)
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert [record["validation_top1"] for record in history] == pytest.approx([0.1, 0.2, 0.3])
    rates = [record["learning_rate"] for record in history]
    assert rates[0] > rates[1] > rates[2]
    assert all(record["seconds"] > 0 for record in history)
    assert json.loads(json.dumps(history)) == history


def test_a_line_per_epoch_is_printed(capsys):
    fit(convolutional(), batches(), [LOGITS], TrainConfig(2), phase="auxiliary heads")
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["auxiliary heads 1/2", "auxiliary heads 2/2"]
    assert all(word in lines[0] for word in ("loss", "top1", "lr"))


def test_scalars_are_written_for_tensorboard(tmp_path):
    history = fit(convolutional(), batches(), [LOGITS], plain(2), log_dir=tmp_path, phase="fine-tuning")
    records = tf.data.TFRecordDataset([str(path) for path in tmp_path.iterdir()])
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in records]
    found = {(e.step, v.tag): tf.make_ndarray(v.tensor).item() for e in events for v in e.summary.value}
    for record in history:
        assert found[record["epoch"], "fine-tuning/loss"] == pytest.approx(record["loss"], rel=1e-6)
        assert found[record["epoch"], "fine-tuning/top1"] == pytest.approx(record["top1"], rel=1e-6)


def test_split_objects_are_asked_for_shuffled_augmented_batches():
    asked = []

    class Split:
        size = 40

        def batches(self, batch_size, **arguments):
            asked.append((batch_size, arguments))
            return batches(size=batch_size)(0)

    fit(convolutional(), Split(), [LOGITS], plain(2, batch_size=20, seed=7), augment=False)
    same_for_all = {"shuffle": True, "augment": False, "seed": 7}
    assert asked == [(20, {**same_for_all, "epoch": 0}), (20, {**same_for_all, "epoch": 1})]


def test_zero_epochs_change_nothing():
    model = convolutional()
    before = values(model)
    assert fit(model, batches(), [LOGITS], TrainConfig(0)) == []
    assert same(values(model), before)


def test_a_data_set_of_unknown_length_trains():
    unknown = lambda epoch: batches()(epoch).filter(lambda *_: True)  # noqa: E731
    history = fit(convolutional(), unknown, [LOGITS], TrainConfig(2, learning_rate=0.1))
    assert history[0]["learning_rate"] == pytest.approx(0.1 * (1 + np.cos(np.pi / 4)) / 2)
