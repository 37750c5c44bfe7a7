"""`--optimizer` and `--aux_optimizer`: learning rate and weight decay follow them, unless they are given."""

import copy

import pytest
from absl import flags

from dcp_tf.tools import prune, train
from dcp_tf.tools.cli.training_flags import read_training


def config(program, phase, *arguments):
    values = copy.deepcopy(program.PROGRAM.flags)
    values(["program", *arguments])
    return read_training(values, phase)


@pytest.mark.parametrize(
    ("program", "phase", "arguments", "expected"),
    [
        (prune, "finetuning", [], (None, 0.01, 1e-4)),
        (prune, "finetuning", ["--optimizer=adamw"], ("adamw", 0.001, 0.004)),
        (prune, "finetuning", ["--optimizer=adam", "--finetune_lr=0.01"], ("adam", 0.01, 0)),
        (prune, "finetuning", ["--optimizer=adam", "--weight_decay=0.0001"], ("adam", 0.001, 1e-4)),
        (prune, "finetuning", ["--aux_optimizer=adam"], (None, 0.01, 1e-4)),
        (prune, "auxiliary", ["--optimizer=adam"], (None, 0.01, 1e-4)),
        (prune, "auxiliary", ["--aux_optimizer=nadam", "--aux_lr=0.01"], ("nadam", 0.01, 0)),
        (train, "baseline", ["--optimizer=sgd"], ("sgd", 0.1, 1e-4)),
        (train, "baseline", ["--optimizer=lion", "--schedule=constant"], ("lion", 0.001, 0)),
    ],
)
def test_rate_and_decay_follow_the_optimizer(program, phase, arguments, expected):
    settings = config(program, phase, *arguments)
    assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == expected


def test_an_unknown_optimizer_is_one_line():
    with pytest.raises(flags.IllegalFlagValueError, match="adamm"):
        config(prune, "finetuning", "--optimizer=adamm")
