"""One line of advice where fine-tuning leaves a model behind its baseline."""

import keras
import numpy as np
import pytest

from dcp_tf.data import hold_out, make_array_split
from dcp_tf.training import Classification, History, TrainConfig, finetuning_advice

IMAGES = np.eye(4, dtype="float32")[np.arange(200) % 4]
DATA = make_array_split(IMAGES, np.arange(200) % 4)
CONFIG = TrainConfig(epochs=5, learning_rate=0.01)


def baseline():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, use_bias=False)])
    model.set_weights([10 * np.eye(4, dtype="float32")])
    return model


def history(*accuracies, training=0.5, before=0.5):
    records = History([{"held_out_top1": accuracy, "top1": training} for accuracy in accuracies])
    best = max((before, 0), *((a, -i) for i, a in enumerate(accuracies, start=1)))
    records.held_out = {"images": 20, "metric": "top1", "kept_epoch": -best[1], "kept": best[0], "before": before}
    records.held_out_inputs = hold_out(DATA)[1]
    return records


@pytest.mark.parametrize(
    ("accuracies", "training", "expected"),
    [
        ((0.1, 0.2, 0.3, 0.5, 0.7), 0.7, "30.0 points below the baseline's 1.0000: try finetuning.epochs=15"),
        ((0.1, 0.2, 0.3, 0.35, 0.4), 0.4, "50.0 points below the baseline's 1.0000: try finetuning.epochs=15"),
        ((0.5, 0.8, 0.7, 0.7, 0.7), 1.0, "more training images help, or finetuning.learning_rate=0.001"),
        ((0.6, 0.4, 0.2, 0.2, 0.2), 0.2, "try finetuning.learning_rate=0.0033 finetuning.epochs=10"),
    ],
)
def test_what_helps_depends_on_how_training_went(accuracies, training, expected):
    line = finetuning_advice(history(*accuracies, training=training), CONFIG, Classification(), baseline(), DATA)
    assert line.startswith("held-out top1 is ")
    assert expected in line
    assert line.endswith(", or prune less")


def test_nothing_is_said_of_a_model_as_good_as_its_baseline():
    assert finetuning_advice(history(0.9, 1.0, 0.96), CONFIG, Classification(), baseline(), DATA) is None
    assert (
        finetuning_advice(history(0.9, 0.95, 0.95), CONFIG, Classification(), baseline(), DATA) is None
    )  # one of 20 images
    assert finetuning_advice(History(), CONFIG, Classification(), baseline(), DATA) is None


def test_without_a_baseline_the_accuracy_should_rise():
    assert finetuning_advice(history(0.6, 0.7), CONFIG, Classification(), None, DATA) is None
    line = finetuning_advice(history(0.3, 0.4), CONFIG, Classification(), None, DATA)
    assert line == "fine-tuning did not help: try finetuning.epochs=6, or prune less"
