"""Every default in one table: users have runs to compare with, so a changed one must be meant, here too."""

import inspect
import re

import pytest

import dcp_tf
from dcp_tf.pruning import METHODS
from dcp_tf.tools import compare, finetune, prune, quickstart, train

CHOICE = {
    "method": "dcp",
    "rate": 0.5,
    "kernel_rate": 0.3,
    "epsilon": 1e-4,
    "allocation": None,
    "round_to": 16,
    "min_channels": 1,
    "prune_residual": False,
    "prune_blocks": False,
    "search_scope": False,
    "rotate_streams": False,
    "ignore_statistics": False,
    "update": False,
    "losses": "joint",
    "auxiliary_losses": None,
    "per_stage": False,
    "selection": "fast",
    "per_step": None,
    "score": None,
    "selection_passes": None,
    "recover": None,
    "selection_samples": 4096,
    "selection_views": None,
    "selection_batch": 128,
    "selection_lr": 0.01,
    "cache_gib": 2.0,
    "cache_disk_gib": 8.0,
}
SCHEDULE = {
    "schedule": "cosine",
    "boundaries": [0.4, 0.6],
    "warmup": 0.0,
    "weight_decay": 1e-4,
    "decay": "kernels",
    "clip_norm": None,
    "label_smoothing": 0.0,
    "mixed_precision": "float32",
    "ema": 0.0,
    "max_steps_per_epoch": None,
    "optimizer": None,
}
AUXILIARY = {
    "aux_epochs": 3,
    "aux_lr": 0.01,
    "aux_schedule": "cosine",
    "aux_boundaries": [0.4, 0.6],
    "aux_optimizer": None,
    "auxiliary_trains": None,
}
FINETUNING = {
    "finetune_epochs": 10,
    "finetune_lr": 0.01,
    "held_out": None,
    "distillation": None,
    "unfreeze": False,
    "batch_size": 128,
}
FILES = {
    "quantization": ["float32", "int8"],
    "int8_io": "float",
    "bias_correction": True,
    "calibration_samples": 200,
    "threads": 1,
    "qat_epochs": 1,
    "qat_lr": 1e-3,
    "qat_batch_size": 64,
    "qat_distillation": 0.5,
    "benchmark_runs": 50,
}
PRUNE = {**CHOICE, **AUXILIARY, **FINETUNING, **SCHEDULE, **FILES, "seed": 0, "dataset": "digits", "strategy": "one"}
PRUNE["steps"] = 1
QUICKSTART = {"epochs": 12, "learning_rate": 0.1, "aux_epochs": 4, "finetune_epochs": 12, "batch_size": 64}
QUICKSTART["selection_samples"] = 1024
ALL_METHODS = {
    *("dcp", "adapt_dcp", "dkp", "dcp_dkp", "adapt_dkp", "random", "l1", "l2", "fpgm", "bn_scale", "taylor", "apoz"),
    *("thinet", "lasso", "width_multiplier"),
}


@pytest.mark.parametrize(
    ("program", "table"),
    [
        (prune, PRUNE),
        (quickstart, {**CHOICE, **AUXILIARY, **FINETUNING, **SCHEDULE, **FILES, **QUICKSTART}),
        (train, {**SCHEDULE, "epochs": 30, "learning_rate": 0.1, "batch_size": 128, "bn_sparsity": 0.0}),
        (finetune, {**SCHEDULE, **FINETUNING}),
        (compare, {**AUXILIARY, **FINETUNING, **SCHEDULE, "methods": ["random", "l1", "dcp"], "seeds": 3}),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
def test_the_flags_of_the_programs(program, table):
    flags = {name: program.PROGRAM.flags[name].default for name in table}
    numbers = {key: list(map(float, flags[key])) for key in ("boundaries", "aux_boundaries") if key in flags}
    assert flags | numbers == table


@pytest.mark.parametrize(("phase", "epochs", "rate"), [("auxiliary", 3, 0.01), ("finetuning", 10, 0.01)])
def test_the_trainings_of_prune_in_python(phase, epochs, rate):
    config = inspect.signature(dcp_tf.prune).parameters[phase].default
    assert (config.epochs, config.learning_rate, config.batch_size) == (epochs, rate, 128)
    assert (config.min_steps, config.min_batch_size) == (300, 32)  # where images are few


def test_the_methods_in_python():
    of_all = {key: CHOICE[key] for key in CHOICE.keys() - {"method", "kernel_rate", "epsilon", "update", "losses"}}
    of_all |= {"auxiliary_losses": 2, "reconstruction": 1.0, "discrimination": 1.0, "auxiliary_trains": None}
    for method in (dcp_tf.DCP(), dcp_tf.AdaptDCP(), dcp_tf.DCPDKP()):
        assert {key: getattr(method, key) for key in of_all} == of_all
    assert dcp_tf.AdaptDCP().epsilon == dcp_tf.AdaptDKP().epsilon == 1e-4
    assert (dcp_tf.DKP().rate, dcp_tf.DCPDKP().kernel_rate, dcp_tf.Random().update) == (0.5, 0.3, False)


def test_a_training_in_python():
    settings = {name: value for name, value in SCHEDULE.items() if name != "max_steps_per_epoch"}
    settings |= {"momentum": 0.9, "nesterov": True, "batch_norm_momentum": 0.9, "factor": 0.1, "boundaries": (0.4, 0.6)}
    config = dcp_tf.TrainConfig(epochs=1)
    assert {name: getattr(config, name) for name in settings} == settings


def test_every_method_can_be_asked_for_by_name():
    assert set(METHODS) == ALL_METHODS
    for program in (prune, quickstart):
        words = set(re.findall(r"\w+", program.PROGRAM.flags["method"].help))
        assert words >= ALL_METHODS
    for name, method in METHODS.items():
        assert method.name == method().name == name
