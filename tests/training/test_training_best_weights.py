"""Fine-tuning ends with the best weights by held-out inputs, those before it included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.data import hold_out, make_array_split
from dcp_tf.errors import UsageError
from dcp_tf.training import (
    ClassificationLoss,
    Distillation,
    MeanSquaredError,
    TrainConfig,
    TrainState,
    fit,
    seed_everything,
    soft_targets,
)
from dcp_tf.training.best_weights import BestEpoch, BestWeights

LOGITS = ClassificationLoss("logits")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(120, 6)).astype("float32")
LABELS = (IMAGES[:, :3] + 0.5 * RNG.normal(size=(120, 3))).argmax(1)
DATA = make_array_split(IMAGES, LABELS)


def network():
    seed_everything(0)
    inputs = keras.Input((6,))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs)))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.2)(x)))


def config(**settings):
    return TrainConfig(**{"epochs": 6, "batch_size": 32, "held_out": 30, **settings})


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_weights_before_a_training_that_harms_are_kept(capsys):
    model = network()
    fit(model, DATA, [LOGITS], TrainConfig(epochs=30, batch_size=32))
    before = model.get_weights()
    history = fit(model, DATA, [LOGITS], config(learning_rate=50.0), keep_best=True)
    assert same(model.get_weights(), before)
    assert len(history) == 6
    assert history.held_out["kept_epoch"] == 0
    assert history.held_out["kept"] == history.held_out["before"] > max(r["held_out_top1"] for r in history)
    assert "kept the model as it was before fine-tuning" in capsys.readouterr().err


@pytest.mark.parametrize("ema", [0.5, pytest.param(0.0, marks=pytest.mark.slow)])
def test_the_best_epoch_is_kept_and_named(capsys, ema):
    model, seen = network(), []

    def validation():
        seen.append(model.get_weights())
        return {}

    settings = config(learning_rate=0.5, ema=ema, schedule="step", boundaries=(0.99,))
    history = fit(model, DATA, [LOGITS], settings, keep_best=True, validation=validation)
    kept = max(history, key=lambda record: (record["held_out_top1"], -record["held_out_loss"]))
    assert kept["held_out_top1"] > history.held_out["before"] + 0.2  # more than luck
    assert history.held_out["kept_epoch"] == kept["epoch"]
    assert history.held_out["kept"] == kept["held_out_top1"]
    assert same(model.get_weights(), seen[kept["epoch"] - 1])
    ((_, held),) = [hold_out(DATA, 30)]
    right = np.mean(np.concatenate([model(x).numpy().argmax(1) == y for x, y in held.batches(16)]))
    assert right == pytest.approx(kept["held_out_top1"])
    assert f"kept epoch {kept['epoch']} of 6 (held-out top1 {right:.4f}; before" in capsys.readouterr().err


@pytest.mark.parametrize(("inputs", "kept"), [(20, 0), (20, 1), (200, 1)])
def test_a_few_inputs_must_show_a_clear_gain(inputs, kept):
    best = BestEpoch(network(), LOGITS, list)
    # Two more of twenty right may be luck, six are not; of two hundred a tenth more is enough.
    before, after = (12, 18) if (inputs, kept) == (20, 1) else (12 * inputs // 20, 14 * inputs // 20)
    measured = iter([(1.0, before / inputs), (0.9, after / inputs)])
    best._measure, best._count = lambda: next(measured), inputs
    best.begin()
    best.compare(1)
    assert best.summary()["kept_epoch"] == kept


def test_the_values_with_the_lowest_loss_come_back():
    variable = keras.Variable([1.0, 2.0])
    best = BestWeights([variable], loss=3.0)
    for loss, value in ((4.0, [9.0, 9.0]), (2.0, [5.0, 6.0]), (2.0, [7.0, 8.0]), (np.nan, [0.0, 0.0])):
        variable.assign(value)
        best.offer(loss)
    best.restore()
    assert (best.loss, variable.numpy().tolist()) == (2.0, [5.0, 6.0])


def test_held_out_inputs_are_never_trained_on():
    held = np.concatenate([x for x, _ in hold_out(DATA, 30)[1].batches(30)])
    changed = np.where((IMAGES[:, None] == held).all(2).any(1)[:, None], 100.0, IMAGES)
    assert (changed == 100).sum() == 30 * 6
    histories = [
        fit(network(), make_array_split(images, LABELS), [LOGITS], config(), keep_best=True)
        for images in (IMAGES, changed)
    ]
    losses, others = ([record["loss"] for record in history] for history in histories)
    assert losses == others
    assert [r["held_out_loss"] for r in histories[0]] != [r["held_out_loss"] for r in histories[1]]


class Stop(Exception):
    """Stands for whatever stops a run."""


@pytest.mark.parametrize("stopped_in", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_a_resumed_run_keeps_the_same_weights(tmp_path, stopped_in):
    def run(model, state=None, stop=0):
        epochs = iter(range(1, 100))

        def validation():
            if next(epochs) == stop:
                raise Stop
            return {}

        mask = np.ones((6, 8))
        mask[:, ::2] = 0
        masks = {model.layers[1].kernel.path: mask}
        # The rate soon is so high that the best epoch is an early one, before the stop.
        settings = config(learning_rate=30.0, ema=0.3, warmup=4, schedule="step", boundaries=(0.99,))
        arguments = {"masks": masks, "keep_best": True, "validation": validation, "checkpoint": state}
        history = fit(model, DATA, [LOGITS], settings, **arguments)
        assert (model.layers[1].kernel.numpy()[:, ::2] == 0).all()
        return history

    whole, resumed, state = network(), network(), TrainState(tmp_path / "state.npz")
    history = run(whole)
    with pytest.raises(Stop):
        run(network(), state, stopped_in)
    for _ in range(2):  # the second time all epochs are done
        assert run(resumed, state).held_out == history.held_out
        assert same(resumed.get_weights(), whole.get_weights())


def test_masked_weights_are_zero_in_the_weights_before_too():
    model = network()
    mask = np.zeros((6, 8))
    fit(model, DATA, [LOGITS], config(learning_rate=1e-9), masks={model.layers[1].kernel.path: mask}, keep_best=True)
    assert (model.layers[1].kernel.numpy() == 0).all()


def test_without_labels_the_distance_to_the_teacher_decides():
    teacher = soft_targets(network(), "logits")
    model = network()
    model.layers[1].kernel.assign(model.layers[1].kernel * 0.5)
    data = make_array_split(IMAGES)
    for loss in (MeanSquaredError(), Distillation(LOGITS, 1.0)):
        history = fit(model, data, [loss], config(learning_rate=0.01), teacher=teacher, keep_best=True)
        assert history.held_out["kept"] >= 0
    assert history.held_out["images"] == 30


def test_a_loss_without_accuracy_is_compared_by_itself():
    targets = IMAGES[:, :1] * 2
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    history = fit(model, make_array_split(IMAGES, targets), [MeanSquaredError()], config(), keep_best=True)
    assert history.held_out["metric"] == "loss"
    assert history.held_out["kept"] == min(record["held_out_loss"] for record in history) < history.held_out["before"]


def test_nothing_is_held_out_where_nobody_asks():
    for settings, keep in ((config(), False), (config(held_out=0), True)):
        history = fit(network(), DATA, [LOGITS], settings, keep_best=keep)
        assert history.held_out is None
        assert "held_out_loss" not in history[0]
    with pytest.raises(UsageError, match="held out of a data split"):
        fit(network(), lambda epoch: tf.data.Dataset.from_tensors((IMAGES, LABELS)), [LOGITS], config(), keep_best=True)


def test_small_data_gets_as_many_epochs_as_the_least_number_of_steps_takes():
    few = {"min_steps": 7, "min_batch_size": 16, "max_epochs": 4}
    history = fit(network(), DATA, [LOGITS], config(epochs=1, **few), keep_best=True)
    assert len(history) == history.resolved["epochs"] == 2  # 90 images make six steps of 16
    assert history.resolved["batch_size"] == 15
    for settings, epochs, batch_size in (
        ({"epochs": 5, **few}, 5, 30),
        ({"epochs": 1, **few, "min_batch_size": None}, 3, 30),
        ({"epochs": 1, **few, "max_epochs": None}, 1, 15),
        ({"epochs": 1, **few, "min_steps": 100}, 4, 15),
        ({"epochs": 1, **few, "batch_size": 8}, 1, 8),
        ({"epochs": 1, **few, "steps_per_epoch": 1}, 1, 30),
        ({"epochs": 0, **few}, 0, 30),
        ({"epochs": 2}, 2, 30),
    ):
        resolved = config(**settings).for_inputs(90)
        assert (resolved.epochs, resolved.batch_size) == (epochs, batch_size)


def test_no_batch_is_of_a_few_images():
    assert [TrainConfig(1).for_inputs(n).batch_size for n in (128, 129, 300, 50_000)] == [128, 65, 100, 128]
