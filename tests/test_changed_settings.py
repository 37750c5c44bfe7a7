"""What changed between two runs is said in a few words, by the names of the flags."""

import pytest

from dcp_tf.changed_settings import describe_changes

TRAINING = {"epochs": 3, "learning_rate": 0.01, "seed": 0, "batch_size": 128, "momentum": 0.9, "clip_norm": None}
BEFORE = {
    "method": "dcp",
    "rate": 0.5,
    "selection": "fast",
    "exclude": [],
    "target": None,
    "reconstruction": 1.0,
    "discrimination": 1.0,
    "auxiliary": TRAINING,
    "finetuning": {**TRAINING, "epochs": 10},
    "data": 17,
    "weights": 4,
    "seed": 0,
}


def with_training(part, **changed):
    return {part: {**BEFORE[part], **changed}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        (
            {"seed": 1, **with_training("auxiliary", seed=1), **with_training("finetuning", seed=1)},
            "--seed 0 -> 1",
        ),
        ({"rate": 0.3, "exclude": ["stem.*"]}, '--exclude [] -> ["stem.*"], --rate 0.5 -> 0.3'),
        (
            with_training("finetuning", learning_rate=0.1, clip_norm=1.0),
            "--clip_norm not given -> 1.0, --finetune_lr 0.01 -> 0.1",
        ),
        (with_training("auxiliary", epochs=1), "--aux_epochs 3 -> 1"),
        (with_training("auxiliary", momentum=0.5), "momentum 0.9 -> 0.5"),
        (
            {**with_training("auxiliary", batch_size=1), **with_training("finetuning", batch_size=1)},
            "--batch_size 128 -> 1",
        ),
        ({"target": {"measure": "macs", "text": "60%"}}, "--target_macs not given -> 60%"),
        ({"discrimination": 0.0}, "--losses"),
        ({"data": 18, "weights": 5}, "other training images, normalization or augmentation, another model"),
    ],
)
def test_only_what_differs_is_said(changed, said):
    assert describe_changes(BEFORE, {**BEFORE, **changed}) == said


def test_another_method_is_all_that_is_said_of_its_own_settings():
    other = {
        key: value for key, value in BEFORE.items() if key not in ("selection", "reconstruction", "discrimination")
    }
    assert describe_changes(BEFORE, {**other, "method": "l1"}) == "--method dcp -> l1"


def test_long_values_are_cut():
    line = describe_changes(BEFORE, {**BEFORE, "exclude": ["x" * 500]})
    assert len(line) < 100
