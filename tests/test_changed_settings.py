"""What changed between two runs is said in a few words, by the names of the settings."""

import pytest

from dcp_tf.changed_settings import describe_changes
from dcp_tf.tools import prune  # noqa: F401  (its flags)
from dcp_tf.tools.cli.program import name_flags

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
    "trainable": 4,
    "seed": 0,
}


def with_training(part, **changed):
    return {part: {**BEFORE[part], **changed}}


@pytest.mark.parametrize(
    ("changed", "line", "names"),
    [
        ({}, "", []),
        (
            {"seed": 1, **with_training("auxiliary", seed=1), **with_training("finetuning", seed=1)},
            "seed 0 -> 1",
            ["seed"],
        ),
        ({"rate": 0.3, "exclude": ["stem.*"]}, 'exclude [] -> ["stem.*"], rate 0.5 -> 0.3', ["exclude", "rate"]),
        (
            with_training("finetuning", learning_rate=0.1, clip_norm=1.0),
            "finetuning.clip_norm not given -> 1.0, finetuning.learning_rate 0.01 -> 0.1",
            ["finetuning.clip_norm", "finetuning.learning_rate"],
        ),
        (
            {**with_training("auxiliary", batch_size=1), **with_training("finetuning", batch_size=1)},
            "auxiliary.batch_size and finetuning.batch_size 128 -> 1",
            ["auxiliary.batch_size", "finetuning.batch_size"],
        ),
        ({"target": {"measure": "macs", "text": "60%"}}, "target_macs not given -> 60%", ["target_macs"]),
        (
            {"trainable": 8},
            "4 weights were trainable, 8 are now: freeze the same layers, or unfreeze as before",
            ["unfreeze"],
        ),
        ({"data": 18, "weights": 5}, "other training images, normalization or augmentation, another model", []),
    ],
)
def test_only_what_differs_is_said(changed, line, names):
    assert describe_changes(BEFORE, {**BEFORE, **changed}) == (line, names)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (with_training("auxiliary", epochs=1), "--aux_epochs 3 -> 1"),
        (with_training("auxiliary", momentum=0.5), "auxiliary.momentum 0.9 -> 0.5"),  # no flag sets it
        (
            {**with_training("auxiliary", batch_size=1), **with_training("finetuning", batch_size=1)},
            "--batch_size 128 -> 1",
        ),
        (with_training("finetuning", learning_rate=0.1), "--finetune_lr 0.01 -> 0.1"),
        ({"discrimination": 0.0}, "--losses 1.0 -> 0.0"),
    ],
)
def test_programs_call_the_changes_by_their_flags(changed, line):
    assert name_flags(*describe_changes(BEFORE, {**BEFORE, **changed})) == line


def test_another_method_is_all_that_is_said_of_its_own_settings():
    other = {
        key: value for key, value in BEFORE.items() if key not in ("selection", "reconstruction", "discrimination")
    }
    assert describe_changes(BEFORE, {**other, "method": "l1"}) == ("method dcp -> l1", ["method"])


def test_long_values_are_cut():
    line, _ = describe_changes(BEFORE, {**BEFORE, "exclude": ["x" * 500]})
    assert len(line) < 100
