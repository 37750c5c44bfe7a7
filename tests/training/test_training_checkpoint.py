"""Runs that are stopped and go on, and weights on disk."""

import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from dcp_tf.errors import RunError, UsageError
from dcp_tf.training import (
    ClassificationLoss,
    TrainConfig,
    TrainState,
    fit,
    load_weights,
    save_model,
    save_weights,
    seed_everything,
)

LOGITS = ClassificationLoss("logits")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(40, 8, 8, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 40).astype("int32")


def network(classes=3, seed=0):
    seed_everything(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(classes)(keras.layers.Dropout(0.3)(x)))


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(len(IMAGES))
    return tf.data.Dataset.from_tensor_slices((IMAGES[order], LABELS[order])).batch(16)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def without_time(history):
    return [{key: value for key, value in record.items() if key != "seconds"} for record in history]


class Stop(Exception):
    """Stands for whatever stops a run."""


def stop_in_epoch(number):
    """A validation function that is stopped in the middle of an epoch."""
    epochs = iter(range(1, 100))

    def validation():
        if next(epochs) == number:
            raise Stop
        return {"validation_top1": 0.5}

    return validation


@pytest.mark.parametrize("stopped_in", [1, 2, 4])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path, stopped_in):
    config = TrainConfig(4, batch_size=16)
    whole, resumed = network(), network(seed=9)
    history = fit(whole, batches, [LOGITS], config, validation=lambda: {"validation_top1": 0.5})

    state = TrainState(tmp_path / "state.npz")
    with pytest.raises(Stop):
        fit(network(), batches, [LOGITS], config, validation=stop_in_epoch(stopped_in), checkpoint=state)
    assert not state.finished()
    if stopped_in == 1:  # nothing was saved, so the run starts anew, from the same weights
        resumed = network()
    again = fit(resumed, batches, [LOGITS], config, validation=stop_in_epoch(99), checkpoint=state)
    assert same(whole, resumed)
    assert without_time(again) == without_time(history)
    assert state.finished()


def test_a_finished_phase_is_read_and_not_trained_again(tmp_path):
    state, config, model, other = TrainState(tmp_path / "state.npz"), TrainConfig(2), network(), network(seed=9)
    history = fit(model, batches, [LOGITS], config, checkpoint=state)

    def no_data(epoch):
        raise AssertionError("a finished phase needs no data")

    assert fit(other, no_data, [LOGITS], config, checkpoint=state) == history
    assert same(model, other)


@pytest.mark.parametrize("cause", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.slow)])
def test_a_killed_process_goes_on_to_the_same_weights(tmp_path, cause):
    config, state = TrainConfig(60), TrainState(tmp_path / "state.npz")
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import tensorflow as tf
        tf.config.optimizer.set_experimental_options({{"disable_meta_optimizer": True}})  # as in this process
        from test_training_checkpoint import LOGITS, TrainConfig, TrainState, batches, fit, network
        fit(network(), batches, [LOGITS], TrainConfig(60), checkpoint=TrainState({str(state.path)!r}))
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, env=environment, text=True)
    for line in process.stderr:
        if line.startswith("fine-tuning 25/"):
            process.send_signal(cause)
    assert process.wait() == -cause
    assert not state.finished()

    whole, killed = network(), network(seed=9)
    fit(whole, batches, [LOGITS], config)
    history = fit(killed, batches, [LOGITS], config, checkpoint=state)
    assert same(whole, killed)
    assert len(history) == 60


def test_a_state_of_other_settings_or_of_another_model_is_refused(tmp_path):
    state = TrainState(tmp_path / "state.npz")
    fit(network(), batches, [LOGITS], TrainConfig(2), checkpoint=state)
    with pytest.raises(UsageError, match="epochs 2 -> 3"):
        fit(network(), batches, [LOGITS], TrainConfig(3), checkpoint=state)
    with pytest.raises(UsageError, match="phase fine-tuning -> auxiliary"):
        fit(network(), batches, [LOGITS], TrainConfig(2), checkpoint=state, phase="auxiliary")
    model = network()
    mask = {model.weights[0].path: np.ones(model.weights[0].shape)}
    with pytest.raises(UsageError, match="masks"):
        fit(model, batches, [LOGITS], TrainConfig(2), checkpoint=state, masks=mask)
    other = network(classes=4)
    before = other.get_weights()
    with pytest.raises(UsageError, match="another model"):
        fit(other, batches, [LOGITS], TrainConfig(2), checkpoint=state)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "no archive", "cut"])
def test_a_damaged_state_is_named(tmp_path, damage):
    state = TrainState(tmp_path / "state.npz")
    fit(network(), batches, [LOGITS], TrainConfig(1), checkpoint=state)
    whole = state.path.read_bytes()
    state.path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(RunError, match=r"state\.npz is (damaged|no saved)"):
        fit(network(), batches, [LOGITS], TrainConfig(1), checkpoint=state)
    with pytest.raises(RunError, match=r"state\.npz"):
        state.finished()


def test_weights_of_another_kind_are_no_training_state(tmp_path):
    save_weights(network(), tmp_path / "weights.npz")
    with pytest.raises(RunError, match="no saved training state"):
        fit(network(), batches, [LOGITS], TrainConfig(1), checkpoint=TrainState(tmp_path / "weights.npz"))


def test_weights_return_from_disk_whatever_the_layers_are_called(tmp_path):
    model = network()
    path = save_weights(model, tmp_path / "weights.npz")
    other = network(seed=9)  # Keras names its layers anew
    assert not same(model, other)
    load_weights(other, path)
    assert same(model, other)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    path = save_weights(network(), tmp_path / "weights.npz")
    other = network(classes=4, seed=9)
    before = other.get_weights()
    with pytest.raises(UsageError, match="fits another model"):
        load_weights(other, path)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
    with pytest.raises(UsageError, match="no file"):
        load_weights(other, tmp_path / "absent.npz")


def test_a_saved_model_loads_in_plain_keras(tmp_path):
    model = network()
    path = save_model(model, tmp_path / "model.keras")
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_paths_need_their_suffix(tmp_path):
    with pytest.raises(UsageError, match=r"\.keras"):
        save_model(network(), tmp_path / "model.h5")
    with pytest.raises(UsageError, match=r"\.npz"):
        save_weights(network(), tmp_path / "weights")
    with pytest.raises(UsageError, match=r"\.npz"):
        TrainState(tmp_path / "state")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = save_weights(network(), tmp_path / "weights.npz")
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(RunError, match="No space left"):
        save_weights(network(seed=9), path)
    assert path.read_bytes() == before
