"""What a user can change if a fine-tuned model is worse than its baseline."""

import keras

from dcp_tf.data import DataSplit, images_per_measurement
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.checkpoint import History
from dcp_tf.training.objectives import Objective

ADVISED = ("finetuning.epochs", "finetuning.learning_rate")  # the settings that an advice may name
_NEAR = 0.01  # a loss of accuracy that needs no advice


def finetuning_advice(
    history: History, config: TrainConfig, objective: Objective, baseline: keras.Model | None, data: DataSplit
) -> str | None:
    """One line with settings to try; None where the accuracy is near the baseline's, unknown, or a loss.

    Args:
        history: of `fit(..., keep_best=True)`.
        config: as `fit` got it.
        objective: of the model.
        baseline: None: the accuracy should at least rise.
        data: the training inputs.
    """
    held_out = history.held_out
    metric = objective.primary
    if held_out is None or held_out["metric"] != metric or metric == "loss" or data.labels is None:
        return None
    if baseline is None:
        behind = _NEAR if held_out["kept_epoch"] else 1.0
        text = "fine-tuning did not help"
    else:
        batches = history.held_out_inputs.batches(images_per_measurement(data.shape))
        measured = objective.evaluate(baseline, batches)[objective.primary]
        behind = measured - held_out["kept"]
        text = f"held-out {objective.primary} is {100 * behind:.1f} points below the baseline's {measured:.4f}"
    if behind <= max(_NEAR, 1.5 / held_out["images"]):  # one image does not count
        return None
    return f"{text}: {_remedy(history, config, held_out['metric'])}, or prune less"


def _remedy(history: History, config: TrainConfig, metric: str) -> str:
    accuracies = [record[f"held_out_{metric}"] for record in history]
    best = accuracies.index(max(accuracies)) + 1
    if best >= 0.8 * len(history):  # it was still rising
        return f"try finetuning.epochs={3 * len(history)}"
    if history[-1].get(metric, 0.0) > accuracies[-1] + 0.1:  # what was learned does not hold for other images
        return f"more training images help, or finetuning.learning_rate={config.learning_rate / 10:g}"
    return f"try finetuning.learning_rate={config.learning_rate / 3:.2g} finetuning.epochs={2 * len(history)}"
