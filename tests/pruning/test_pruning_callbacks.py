"""A model is pruned and fine-tuned as it was trained: its optimizer, callbacks of both trainings, stops and resumes."""

import keras
import pytest
from test_pruning_runs import FINETUNING, chain, joined, same_result, small

import dcp_tf
from dcp_tf.errors import RunError, UsageError

callbacks = keras.callbacks
METHOD = small(auxiliary_trains="all")
SHORT = dcp_tf.TrainConfig(epochs=4, batch_size=16)


class Counts(callbacks.Callback):
    """Counts epochs, and stands for whatever stops a run."""

    def __init__(self, fails_in=None):
        super().__init__()
        self.epochs, self.fails_in = 0, fails_in

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.fails_in:
            raise OSError("no space")
        self.epochs += 1


def given(fails_in=None):
    stopping = callbacks.EarlyStopping("val_loss", patience=2)
    return {"auxiliary": [Counts()], "finetuning": [stopping, Counts(fails_in)]}


@pytest.fixture(scope="module")
def some(digits):
    (images, labels), _ = digits
    return images[:96], labels[:96]


def run(some, compiled=True, method=METHOD, **settings):
    model = chain()
    if compiled:
        model.compile(keras.optimizers.AdamW(1e-3, weight_decay=0.01), "sparse_categorical_crossentropy")
    return dcp_tf.prune(
        model, some, method, **{"auxiliary": SHORT, "finetuning": SHORT, "looks_at_baseline": False, **settings}
    )


def test_both_trainings_use_the_compiled_optimizer_and_their_callbacks_and_resume(some, tmp_path, capsys):
    watched = given()
    whole = run(some, callbacks=watched)
    lines = capsys.readouterr().err
    assert "fine-tuning: AdamW, as the model was compiled, learning rate 0.0003" in lines
    assert "auxiliary fine-tuning: AdamW, as the model was compiled" in lines
    rates = {phase["name"]: phase["history"][0]["learning_rate"] for phase in whole.history if "history" in phase}
    assert all(0.00025 < rate < 0.0003 for rate in (rates["auxiliary"], rates["fine-tuning"]))
    assert [watched[phase][-1].epochs for phase in ("auxiliary", "finetuning")] == [
        len(phase["history"]) for phase in whole.history if "history" in phase
    ]
    with pytest.raises(RunError, match="the callback Counts failed in on_epoch_end of fine-tuning"):
        run(some, callbacks=given(fails_in=1), state_dir=tmp_path)
    again = given()
    assert same_result(run(some, callbacks=again, state_dir=tmp_path, resume=True), whole)
    assert again["finetuning"][-1].epochs == watched["finetuning"][-1].epochs


def test_an_optimizer_that_is_asked_for_comes_before_the_compiled_one(some):
    l1 = {"method": dcp_tf.L1(rate=0.5, round_to=1)}
    plain = run(some, compiled=False, finetuning=FINETUNING, **l1)
    sgd = dcp_tf.TrainConfig(epochs=2, batch_size=16, learning_rate=0.01, optimizer="sgd")
    assert same_result(run(some, finetuning=sgd, **l1), plain)
    lion = run(some, finetuning=dcp_tf.TrainConfig(epochs=1, batch_size=16, optimizer="lion"), **l1)
    assert lion.history[-1]["history"][0]["loss"] != plain.history[-1]["history"][0]["loss"]


@pytest.mark.slow
def test_classifiers_alone_train_with_the_optimizer_that_is_asked_for_and_with_callbacks(some):
    method, watched = small(auxiliary_layers=("join",), per_step=4), Counts()
    losses = []
    for settings in ({}, {"optimizer": "adam", "learning_rate": 0.01}, {"optimizer": "adamw"}, {"epochs": 2}):
        config = dcp_tf.TrainConfig(**{"epochs": 1, "batch_size": 16, "learning_rate": 0.01, **settings})
        of_heads = {"auxiliary": [watched]} if "epochs" in settings else None
        result = dcp_tf.prune(
            joined(), some, method, auxiliary=config, finetuning=None, callbacks=of_heads, looks_at_baseline=False
        )
        losses.append(result.history[0]["history"][-1]["losses"][0])
    assert losses[1] != losses[0] != losses[2]
    assert watched.epochs == 2


def test_callbacks_of_no_training_are_refused_before_anything_is_done(some):
    with pytest.raises(UsageError, match="'auxiliary' or 'finetuning', received 'selection'"):
        run(some, callbacks={"selection": []})
    with pytest.raises(UsageError, match="leave out the callback BackupAndRestore"):
        run(some, callbacks=[callbacks.BackupAndRestore("here")])
