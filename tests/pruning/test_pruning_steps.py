"""Pruning in steps: the widths of the end, one plan for the first model, and resumed runs that end the same."""

import sys

import keras
import numpy as np
import pytest

import dcp_tf
from dcp_tf.errors import RunError, UsageError
from dcp_tf.pruning import prepare
from dcp_tf.pruning.budget import kept_at_rate
from dcp_tf.pruning.steps import check_steps, prune_in_steps, prune_prepared

QUICK = dcp_tf.TrainConfig(epochs=1, batch_size=64, learning_rate=0.01)


def network():
    keras.utils.set_random_seed(4)
    image = keras.Input((8, 8, 1), name="image")
    x = image
    for name, filters in (("first", 40), ("second", 64), ("third", 10)):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
    return keras.Model(image, keras.layers.Dense(10, name="out")(keras.layers.GlobalAveragePooling2D(name="pool")(x)))


@pytest.fixture(scope="module")
def some(digits):
    return tuple(part[:192] for part in digits[0])


def context(some, method):
    return prepare(network(), some, method, validation_data=some, finetuning=QUICK, auxiliary=QUICK)


def same(first, second):
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(first.variables, second.variables, strict=True))


@pytest.mark.parametrize("settings", [{"round_to": 16}, {"round_to": 1, "rates": {"second": 0.8}, "exclude": "third"}])
def test_the_widths_at_the_end_are_those_of_one_step(some, settings):
    run = context(some, dcp_tf.L1(rate=0.6, **settings))
    result = prune_in_steps(run, 3)
    for group in result.plan.groups:
        rate = dict(run.method.rates).get(group.name, 0.6)
        expected = (
            group.size if run.method.excludes(group.name) else kept_at_rate(group.size, rate, run.method.round_to)
        )
        assert len(group.kept) == expected, group
    assert [v.shape for v in result.plan.apply(run.original).variables] == [v.shape for v in result.model.variables]
    costs = [step["macs"] for step in result.steps]
    assert costs == sorted(costs, reverse=True)
    assert len({*costs}) == 3
    assert all(0 <= step["top1"] <= 1 for step in result.steps)
    assert [phase["name"] for phase in result.history if "fine-tuning" in phase["name"]] == [
        *("step 1: fine-tuning", "step 2: fine-tuning", "fine-tuning")
    ]


def test_a_target_is_kept_by_equal_ratios(some):
    run = context(some, dcp_tf.L1(target=dcp_tf.Target("macs", "25%"), round_to=1))
    full = dcp_tf.count_cost(run.original).macs
    ratios = [step["macs"] / full for step in prune_in_steps(run, 2).steps]
    assert ratios == pytest.approx([0.5, 0.25], abs=0.02)
    assert ratios[1] <= 0.25


def test_a_stopped_run_of_steps_resumes_to_the_same_model(some, tmp_path, monkeypatch):
    method = dcp_tf.L1(rate=0.5, round_to=1)
    whole = prune_in_steps(context(some, method), 2)
    calls = []

    def stop(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise RunError("stopped")
        return fine_tune(*arguments, **settings)

    module = sys.modules[prune_prepared.__module__]
    fine_tune = module.fine_tune
    monkeypatch.setattr(module, "fine_tune", stop)
    with pytest.raises(RunError):
        prune_in_steps(context(some, method), 2, state_dir=tmp_path / "state")
    monkeypatch.undo()
    resumed = prune_in_steps(context(some, method), 2, state_dir=tmp_path / "state", resume=True)
    assert resumed.plan == whole.plan
    assert same(resumed.model, whole.model)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (dcp_tf.DKP(), "removes kernels"),
        (dcp_tf.WidthMultiplier(), "pruned in one step"),
        (dcp_tf.L1(target=dcp_tf.Target("latency", "60%", lambda widths: 1.0)), "measured on one model"),
    ],
)
def test_what_cannot_go_in_steps_is_refused(method, words):
    check_steps(method, 1)
    with pytest.raises(UsageError, match=words):
        check_steps(method, 2)
