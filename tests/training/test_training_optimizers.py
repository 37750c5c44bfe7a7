"""Any optimizer of Keras trains, resumes and keeps masked weights at zero; whose rate and weight decay apply."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from test_training_checkpoint import Stop, stop_in_epoch
from training_nets import LOGITS, batches, convolutional, linear, same, values

from dcp_tf.errors import UsageError
from dcp_tf.settings.optimizers import OPTIMIZERS, OptimizerConfig, rate_and_decay
from dcp_tf.settings.training import FINETUNING
from dcp_tf.training import TrainConfig, TrainState, fit
from dcp_tf.training.optimizer import optimizer_named, with_compiled_optimizer

optimizers, schedules = keras.optimizers, keras.optimizers.schedules
X, Y = np.random.default_rng(0).normal(size=(32, 6)).astype("float32"), np.arange(32) % 3
ROWS = np.ones((6, 8))
ROWS[2] = ROWS[4:, 3:] = 0
PARTS = {"first/.*": optimizers.SGD(0.1, momentum=0.9)}
OTHERS = {
    "schedule": optimizers.AdamW(schedules.CosineDecay(0.01, 12)),
    "accumulation": optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "clipvalue": optimizers.RMSprop(0.01, clipvalue=0.01),
    "parts": optimizers.MultiOptimizer(optimizers.OptimizerMap(optimizers.Adam(0.01), PARTS)),
    "amsgrad": optimizers.Adam(0.01, amsgrad=True, weight_decay=0.1),
}


@keras.saving.register_keras_serializable("tests")
class Slower(optimizers.SGD):
    """A user's own optimizer."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(0.5 * gradient, variable, learning_rate)


def dense(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(8, "relu", name="first"), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6,)), *layers])


def config_of(optimizer, epochs=3, **settings):
    return TrainConfig(epochs, batch_size=8, optimizer=optimizer, **settings)


QUICK = ("muon", "schedule", "parts")


@pytest.mark.parametrize(
    "optimizer", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in (*OPTIMIZERS, *OTHERS)]
)
def test_every_optimizer_trains_resumes_to_equal_weights_and_keeps_masked_weights_at_zero(optimizer, tmp_path):
    config = config_of(OTHERS.get(optimizer, optimizer))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["optimizer"] == config.optimizer
    whole, state, data = dense(), TrainState(tmp_path / "state.npz"), batches(X, Y, 8)

    def train(model, **more):
        return fit(model, data, [LOGITS], config, masks={model.layers[0].kernel.path: ROWS}, **more)

    before = values(whole)
    history = train(whole, validation=dict)
    with pytest.raises(Stop):
        train(dense(), checkpoint=state, validation=stop_in_epoch(3))
    resumed = dense(seed=1)
    assert [record["loss"] for record in train(resumed, checkpoint=state)] == [record["loss"] for record in history]
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True))
    kernel = whole.layers[0].kernel.numpy()
    assert not kernel[ROWS == 0].any()
    assert kernel[ROWS == 1].all()
    assert not same(before, values(whole))


def test_a_users_own_optimizer_trains():
    slower, plain = dense(), dense()
    fit(slower, batches(X, Y, 8), [LOGITS], config_of(Slower(0.1), 1))
    fit(plain, batches(X, Y, 8), [LOGITS], config_of(optimizers.SGD(0.05), 1))
    for a, b in zip(slower.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_optimizer_given_to_a_training_equals_keras_own_fit():
    ours, kerass = linear(), linear()
    given = optimizers.AdamW(schedules.ExponentialDecay(0.02, 2, 0.5), weight_decay=0.1)
    x, y = X[:, :5], Y
    fit(ours, batches(x, y, 8), [LOGITS], config_of(given, 2, clip_norm=0, decay="all"))
    kerass.compile(given, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kerass.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), kerass.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_a_named_optimizer_has_the_rate_and_the_decay_that_keras_gives_it(name):
    optimizer = optimizer_named(name)()
    config = config_of(name)
    assert (config.learning_rate, config.weight_decay) == rate_and_decay(name)
    assert config.learning_rate == pytest.approx(float(optimizer.learning_rate), rel=1e-6)
    assert config.weight_decay == (optimizer.weight_decay or 0)


def test_numbers_that_were_chosen_hold_for_any_optimizer():
    chosen = {"learning_rate": 0.1, "weight_decay": 1e-4}
    for optimizer in ("adam", optimizers.AdamW(0.5, weight_decay=0.5)):
        config = config_of(optimizer, **chosen)
        assert (config.learning_rate, config.weight_decay) == (0.1, 1e-4)
    assert dataclasses.replace(FINETUNING, optimizer="adamw").learning_rate == 1e-3
    assert dataclasses.replace(config_of("adam", **chosen), optimizer="adamw").learning_rate == 0.1
    own = config_of(optimizers.AdamW(0.5, weight_decay=0.25))
    assert (own.learning_rate, own.weight_decay) == (0.5, 0.25)


def test_weights_that_decay_are_those_of_the_setting_and_decay_once():
    shrunk = {}
    for optimizer in ("sgd", "adamw", optimizers.SGD(0.1)):
        model = convolutional()
        model.get_layer("final").bias.assign(np.ones(3))
        before = values(model)
        config = config_of(optimizer, 1, learning_rate=0.1, weight_decay=0.5, schedule="constant", clip_norm=0)
        config = dataclasses.replace(config, momentum=0.0) if optimizer == "sgd" else config
        no_loss = lambda labels, outputs: 0.0 * outputs[0, 0]  # noqa: E731
        fit(model, batches(size=20), [no_loss], config)
        after = values(model)
        for path, value in before.items():
            if path.endswith("/kernel"):
                np.testing.assert_allclose(after[path], value * (1 - 0.1 * 0.5) ** 2, rtol=1e-5)
            elif "moving" not in path:
                np.testing.assert_array_equal(after[path], value)
        shrunk[str(optimizer)] = after
    assert len(shrunk) == 3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"optimizer": "adamm"}, "optimizer must be one of sgd, adam,"),
        ({"optimizer": optimizers.Adam}, "such as keras.optimizers.AdamW"),
        ({"optimizer": "adam", "momentum": 0.5}, "momentum and nesterov"),
        ({"optimizer": OTHERS["schedule"], "learning_rate": 0.1}, "schedule of its own"),
        ({"optimizer": OTHERS["schedule"], "warmup": 1.0}, "schedule of its own"),
        ({"optimizer": optimizers.Adam(use_ema=True)}, "TrainConfig(ema=0.99)"),
    ],
)
def test_what_cannot_be_is_one_line(settings, line):
    with pytest.raises(UsageError) as raised:
        TrainConfig(1, **settings)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("compiled", "name", "rate"),
    [
        (optimizers.SGD(0.5), None, 0.01),
        (optimizers.Adam(1e-3), "Adam", 3e-4),
        (optimizers.AdamW(1e-7, weight_decay=0.3), "AdamW", 3e-5),
        (optimizers.AdamW(schedules.CosineDecay(0.5, 9)), "AdamW", 3e-4),
        (optimizers.LossScaleOptimizer(optimizers.Adam(2e-4)), "Adam", 6e-5),
    ],
)
def test_a_model_is_trained_with_the_optimizer_that_it_was_compiled_with(compiled, name, rate, capsys):
    model = dense()
    assert with_compiled_optimizer(FINETUNING, model, "fine-tuning") is FINETUNING
    model.compile(compiled, "mse")
    config = with_compiled_optimizer(FINETUNING, model, "fine-tuning")
    assert config.learning_rate == pytest.approx(rate)
    assert (config.optimizer and config.optimizer["class_name"]) == name
    assert (f"fine-tuning: {name}, as the model was compiled" in capsys.readouterr().err) == (name is not None)
    for told in ("sgd", "lion"):
        asked = dataclasses.replace(FINETUNING, optimizer=told)
        assert with_compiled_optimizer(asked, model, "fine-tuning") is asked


@pytest.mark.parametrize("how", ["names", "variables", "both"])
def test_what_the_compiled_optimizer_keeps_from_decaying_does_not_decay_in_a_copy_either(how):
    model, copy = convolutional(), convolutional()
    adamw = optimizers.AdamW(0.1, weight_decay=0.5)
    named = {"names": ["kern"], "variables": [], "both": ["gamma"]}[how]
    listed = [] if how == "names" else [model.get_layer("conv").kernel]
    adamw.exclude_from_weight_decay(listed, named)
    model.compile(adamw, "mse")
    config = with_compiled_optimizer(dataclasses.replace(FINETUNING, epochs=1, decay="kernels"), model, "fine-tuning")
    config = dataclasses.replace(config, optimizer=json_again(config.optimizer))
    before = values(copy)
    fit(copy, batches(size=20), [lambda labels, outputs: 0.0 * outputs[0, 0]], config)
    after, still = values(copy), {v.path for v in copy.trainable_variables if not adamw_decays(v, named, listed)}
    assert still
    for variable in copy.trainable_variables:
        if "kernel" in variable.name:
            kept = np.array_equal(before[variable.path], after[variable.path])
            assert kept == (variable.path in still), variable.path


def adamw_decays(variable, named, listed):
    return variable.path not in {v.path for v in listed} and not any(name in variable.name for name in named)


def json_again(setting):
    again = OptimizerConfig(json.loads(json.dumps(setting)))
    again.kind = setting.kind
    return again


def test_variables_of_another_model_cannot_be_kept_from_decaying():
    adamw = optimizers.AdamW(0.1)
    adamw.exclude_from_weight_decay([dense().trainable_variables[0]])
    with pytest.raises(UsageError, match="var_names"):
        config_of(adamw)


@pytest.mark.parametrize(("rate", "name"), [(0.01, None), (0.1, None), (0.002, "Adam"), (1e-4, "Adam")])
def test_a_rate_that_was_chosen_for_sgd_keeps_sgd(rate, name, capsys):
    model = dense()
    model.compile(optimizers.Adam(1e-3), "mse")
    config = with_compiled_optimizer(TrainConfig(2, learning_rate=rate), model, "fine-tuning")
    assert config.learning_rate == pytest.approx(rate)
    assert (config.optimizer and config.optimizer["class_name"]) == name
    assert ("fine-tuning: SGD, since learning_rate=" in capsys.readouterr().err) == (name is None)


def test_a_compiled_moving_average_becomes_that_of_the_training(capsys):
    model = dense()
    model.compile(optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9), "mse")
    config = with_compiled_optimizer(FINETUNING, model, "fine-tuning")
    assert config.ema == 0.9
    fit(model, batches(X, Y, 8), [LOGITS], dataclasses.replace(config, epochs=1))
