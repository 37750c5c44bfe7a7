"""Keras' callbacks in a training: what they see, set and stop, and that a resumed run ends as a whole one does."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from test_training_checkpoint import without_time
from training_nets import LOGITS, batches, convolutional, plain, same, values

from dcp_tf.data import as_split
from dcp_tf.errors import RunError, UsageError
from dcp_tf.training import TrainConfig, TrainState, fit

callbacks = keras.callbacks
IMAGES = np.random.default_rng(0).normal(size=(60, 8, 8, 3)).astype("float32")
LABELS = np.random.default_rng(1).integers(0, 3, 60).astype("int32")
CONFIG = TrainConfig(6, batch_size=16, optimizer=keras.optimizers.AdamW(0.01))


class Own(callbacks.Callback):
    """Halves the rate now and then and pulls a weight to its average, which numbers of each step decide."""

    def __init__(self, fails_in=None, hook="on_epoch_end"):
        super().__init__()
        self.steps, self.averages, self.seen, self.fails_in, self.hook = 0, [], {}, fails_in, hook

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.seen[self.steps % 5] = logs["loss"]

    def on_epoch_begin(self, epoch, logs=None):
        self._fail("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._fail("on_epoch_end", epoch)
        self.averages.append(self.model.get_layer("conv").kernel.numpy() * 0.5)
        self.model.get_layer("conv").kernel.assign(sum(self.averages) / len(self.averages) * 2)
        if self.steps % 2:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2

    def _fail(self, hook, epoch):
        if (hook, epoch) == (self.hook, self.fails_in):
            raise ValueError("disk\nfull")


def split():
    return as_split((IMAGES, LABELS))


def all_of(folder, **own):
    stopping = callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    logger = callbacks.CSVLogger(folder / "log.csv")
    saver = callbacks.ModelCheckpoint(folder / "best.keras", "val_accuracy", save_best_only=True)
    return [stopping, logger, saver, Own(**own), callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5)]


def train(folder, model, config=CONFIG, given=None, **more):
    folder.mkdir(exist_ok=True)
    given = all_of(folder) if given is None else given
    history = fit(model, split(), [LOGITS], config, callbacks=given, keep_best=True, **more)
    return history, given


@pytest.mark.parametrize(
    "where",
    [("on_epoch_end", 0), ("on_epoch_begin", 2), pytest.param(("on_epoch_end", 3), marks=pytest.mark.slow)],
)
def test_a_failing_callback_is_one_line_and_the_resumed_run_equals_a_whole_one(where, tmp_path):
    hook, epoch = where
    whole, state = convolutional(dropout=0.3), TrainState(tmp_path / "state.npz")
    history, given = train(tmp_path / "whole", whole)
    failing = all_of(tmp_path, fails_in=epoch, hook=hook)
    with pytest.raises(RunError) as raised:
        train(tmp_path, convolutional(dropout=0.3), given=failing, checkpoint=state)
    assert f"the callback Own failed in {hook} of fine-tuning (ValueError: disk)" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert state.path.exists() == (epoch > 0)

    resumed = convolutional(dropout=0.3, seed=0 if epoch == 0 else 9)
    again, others = train(tmp_path, resumed, checkpoint=state)
    assert without_time(again) == without_time(history)
    assert same(values(whole), values(resumed))
    assert [own.steps for own in (given[3], others[3])] == [len(history) * 4] * 2
    assert given[3].seen == others[3].seen
    assert given[0].best_epoch == others[0].best_epoch
    whole_log, log = (
        {row["epoch"]: row for row in csv.DictReader((folder / "log.csv").read_text().splitlines())}
        for folder in (tmp_path / "whole", tmp_path)
    )
    assert log == whole_log  # but that an epoch that was cut off may stand there twice
    assert float(log["0"]["val_loss"]) == history[0]["held_out_loss"]

    finished = convolutional(dropout=0.3, seed=3)
    assert without_time(train(tmp_path, finished, checkpoint=state)[0]) == without_time(history)
    assert same(values(finished), values(whole))
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert saved.count_params() == whole.count_params()


@pytest.mark.slow
def test_a_killed_process_resumes_with_its_callbacks_to_the_weights_of_a_whole_run(tmp_path):
    program = textwrap.dedent(f"""
        import pathlib, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import tensorflow as tf
        tf.config.optimizer.set_experimental_options({{"disable_meta_optimizer": True}})  # as in this process
        from test_training_callbacks import TrainState, convolutional, LONG, train, watched
        folder = pathlib.Path({str(tmp_path)!r})
        train(folder, convolutional(dropout=0.3), LONG, watched(folder), checkpoint=TrainState(folder / "state.npz"))
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, env=environment, text=True)
    for line in process.stderr:
        if line.startswith("fine-tuning 17/"):
            process.kill()
    assert process.wait() == -signal.SIGKILL
    killed, whole, state = convolutional(dropout=0.3, seed=9), convolutional(dropout=0.3), tmp_path / "state.npz"
    history, given = train(tmp_path, killed, LONG, watched(tmp_path), checkpoint=TrainState(state))
    expected, others = train(tmp_path / "whole", whole, LONG, watched(tmp_path / "whole"))
    assert without_time(history) == without_time(expected)
    assert same(values(killed), values(whole))
    assert (given[0].best_epoch, given[1].steps) == (others[0].best_epoch, others[1].steps)


LONG = dataclasses.replace(CONFIG, epochs=60)


def watched(folder):
    """What a run is watched by; TensorBoard where it is installed."""
    stopping = callbacks.EarlyStopping("val_loss", patience=50, restore_best_weights=True)
    board = [callbacks.TensorBoard(folder / "board", write_graph=False)] if find_spec("tensorboard") else []
    return [stopping, Own(), *board]


def test_early_stopping_stops_and_its_best_weights_replace_those_of_the_best_epoch(tmp_path, capsys):
    stopping = callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    model, kept = convolutional(), []
    keep = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    steep = dataclasses.replace(CONFIG, epochs=30, learning_rate=0.3)
    history, _ = train(tmp_path, model, steep, [stopping, keep], checkpoint=TrainState(tmp_path / "state.npz"))
    losses = [record["held_out_loss"] for record in history]
    assert len(history) < 30
    assert history.resolved["epochs"] == len(history)
    for weight, best in zip(model.get_weights(), kept[int(np.argmin(losses))], strict=True):
        np.testing.assert_array_equal(weight, best)
    lines = capsys.readouterr().err
    assert f"a callback ended it after epoch {len(history)} of 30" in lines
    assert (history.held_out is None) == ("a callback set the weights at the end" in lines)
    assert TrainState(tmp_path / "state.npz").finished()


def test_a_callback_that_ends_an_epoch_in_its_midst_ends_the_training():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    history = fit(convolutional(), batches(), [LOGITS], plain(5), callbacks=[Stop()])
    assert [record["epoch"] for record in history] == [1]


def test_rates_that_callbacks_set_stay():
    def rates(given, **settings):
        history = fit(convolutional(), batches(), [LOGITS], TrainConfig(4, **settings), callbacks=given)
        return [record["learning_rate"] for record in history]

    scheduled = rates([])
    assert len(set(scheduled)) == 4
    np.testing.assert_allclose(rates([callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)])[-1], 0.1 / 16)
    assert rates([callbacks.LearningRateScheduler(lambda epoch, rate: rate)]) == pytest.approx([0.1] * 4)
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=100)
    reduced = rates([plateau])
    assert reduced[:2] == scheduled[:2]
    np.testing.assert_allclose(reduced[2:], [scheduled[1] / 10, scheduled[1] / 100], rtol=1e-5)
    assert rates([callbacks.LambdaCallback(on_epoch_end=lambda *_: None)]) == scheduled


def test_the_model_is_as_it_was_after_the_training():
    model = convolutional()
    fit(model, batches(), [LOGITS], plain(), callbacks=[callbacks.History()])
    assert not hasattr(model, "optimizer")
    model.compile("adam", "mse")
    compiled = model.optimizer
    fit(model, batches(), [LOGITS], plain(), callbacks=[callbacks.History()])
    assert model.optimizer is compiled


def test_callbacks_change_nothing_by_being_there():
    alone, watched = convolutional(dropout=0.2), convolutional(dropout=0.2)
    history = fit(alone, batches(), [LOGITS], TrainConfig(3))
    seen = callbacks.History()
    assert without_time(fit(watched, batches(), [LOGITS], TrainConfig(3), callbacks=[seen])) == without_time(history)
    assert same(values(alone), values(watched))
    assert seen.history["loss"] == [record["loss"] for record in history]
    assert seen.history["accuracy"] == [record["top1"] for record in history]


def test_a_run_resumes_with_the_same_callbacks_alone_and_says_what_it_cannot_keep(tmp_path, capsys):
    class Draws(callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.generator = np.random.default_rng(0)

    state = TrainState(tmp_path / "state.npz")
    fit(convolutional(), batches(), [LOGITS], plain(2), callbacks=[Draws()], checkpoint=state)
    assert "cannot have generator of the callback Draws" in capsys.readouterr().err
    with pytest.raises(UsageError, match="callbacks"):
        fit(convolutional(), batches(), [LOGITS], plain(2), callbacks=[callbacks.History()], checkpoint=state)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (callbacks.History(), "must be a list"),
        ([callbacks.EarlyStopping], "must be a list"),
        ([callbacks.BackupAndRestore("folder")], "leave out the callback BackupAndRestore"),
        ([callbacks.SwapEMAWeights()], "leave out the callback SwapEMAWeights"),
    ],
)
def test_what_is_no_callback_or_cannot_work_is_refused(given, line):
    with pytest.raises(UsageError, match=line):
        fit(convolutional(), batches(), [LOGITS], plain(), callbacks=given)


def test_a_quantity_that_is_not_measured_is_named_in_one_line():
    with pytest.raises(RunError, match=r"EarlyStopping failed in on_epoch_end.*val_auc"):
        fit(convolutional(), batches(), [LOGITS], plain(), callbacks=[callbacks.EarlyStopping("val_auc")])
