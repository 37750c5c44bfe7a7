"""Learning rates over a run."""

import math

import pytest

from dcp_tf.errors import UsageError
from dcp_tf.settings.schedules import warmed_up_cosine
from dcp_tf.training import TrainConfig, cosine_schedule, step_schedule


def test_steps_fall_at_the_boundaries_in_epochs_or_fractions():
    for rate in (step_schedule(0.1, (40, 60)), step_schedule(0.1, (0.4, 0.6), epochs=100)):
        assert [rate(epoch) for epoch in (0, 39.99, 40, 59.99, 60, 99)] == pytest.approx(
            [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
        )


def test_no_boundaries_means_a_constant_rate():
    assert {step_schedule(0.01, ())(epoch) for epoch in (0, 3.5, 1000)} == {0.01}


def test_cosine_falls_from_base_to_zero():
    rate = cosine_schedule(0.2, 10)
    assert rate(0) == 0.2
    assert rate(5) == pytest.approx(0.1)
    assert rate(2.5) == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)))
    assert rate(10) == pytest.approx(0)
    rates = [rate(epoch / 10) for epoch in range(101)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("rate", [cosine_schedule(0.2, 10, warmup=2), step_schedule(0.2, (5,), warmup=2)])
def test_warmup_rises_in_a_straight_line(rate):
    assert [rate(0), rate(1), rate(2)] == pytest.approx([0, 0.1, 0.2])
    assert rate(9) < 0.1


@pytest.mark.parametrize("boundaries", [(60, 40), (0.5, 2), (0, 3), (-1,), (4, 4)])
def test_boundaries_that_make_no_sense_are_refused(boundaries):
    with pytest.raises(UsageError):
        step_schedule(0.1, boundaries, epochs=10)


def test_fractions_need_the_length_of_the_run():
    with pytest.raises(UsageError, match="number of epochs"):
        step_schedule(0.1, (0.5,))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", -1),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("schedule", "linear"),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("clip_norm", -1.0),
        ("warmup", 5),
        ("seed", -1),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"{name.replace('warmup', 'warm-?up')}.*{value}"):
        TrainConfig(**{"epochs": 5, name: value})


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_a_warmup_that_never_ends_is_refused(schedule):
    assert TrainConfig(3, schedule=schedule, warmup=1).rate()(1) == 0.1
    with pytest.raises(UsageError, match="warm-up shorter than the run of 3 epochs"):
        TrainConfig(3, schedule=schedule, warmup=3)


def test_a_warmed_up_cosine_rises_over_a_part_and_falls_to_zero():
    rates = [warmed_up_cosine(1e-3, step, 120, warmup=0.05) for step in range(121)]
    assert rates.index(max(rates)) == 5
    # As the recovery of version 0.1.0 has them.
    known = {
        0: 1 / 6000,
        5: 9.957224306869053e-4,
        30: 8.535533905932737e-4,
        60: 5e-4,
        119: 1.7133751222137e-7,
        120: 0.0,
    }
    for step, rate in known.items():
        assert rates[step] == pytest.approx(rate, rel=1e-9, abs=1e-18)
    assert warmed_up_cosine(1e-3, 0, 10, warmup=0.05) == 1e-3  # less than a step of warm-up is none
