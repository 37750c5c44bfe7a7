"""`fit`: what a training needs, checked and put together."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import DataSplit, hold_out
from dcp_tf.errors import UsageError
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.best_weights import BestEpoch
from dcp_tf.training.callbacks import Callbacks
from dcp_tf.training.checkpoint import History, TrainState
from dcp_tf.training.distribution import Replicas, current_strategy
from dcp_tf.training.epoch_records import scalars
from dcp_tf.training.held_out_metrics import HeldOutMetrics
from dcp_tf.training.layers import batch_norms, override_attribute
from dcp_tf.training.losses import Loss
from dcp_tf.training.step import TrainStep
from dcp_tf.training.training_run import TrainingRun


def fit(
    model: keras.Model,
    split_or_batches: DataSplit | Callable[[int], tf.data.Dataset],
    losses: Sequence[Loss],
    config: TrainConfig,
    *,
    loss_weights: Sequence[float] | None = None,
    augment: bool = True,
    validation: Callable[[], Mapping[str, float]] | None = None,
    masks: Mapping[str | int, np.ndarray] | None = None,
    teacher: Callable[[tf.Tensor], tf.Tensor] | None = None,
    checkpoint: TrainState | None = None,
    phase: str = "fine-tuning",
    log_dir: str | None = None,
    frozen_batch_norm: bool = False,
    keep_best: bool = False,
    seen: int = 0,
    lr_setting: str = "learning_rate",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    metrics: Sequence[keras.metrics.Metric] | Mapping[str, Sequence[keras.metrics.Metric]] = (),
) -> History:
    """Trains `model` in place. The result depends only on its weights, the data, the arguments and the seed.

    Layers with `trainable=False` do not change. The learning rate is that of the schedule in the middle of each step,
    or of each epoch if tf.data does not know the number of steps. Inside of `distributed(strategy)` the
    replicas split each batch; the result equals that of one device up to rounding (BatchNormalization sees the whole
    batch).

    Args:
        model: with one output, or several in any structure: auxiliary heads first, the final output last (in the
            order of `keras.tree.flatten`, which sorts the keys of a dict).
        split_or_batches: a `dcp_tf.data.DataSplit`, or a function from the epoch (from 0) to a finite
            `tf.data.Dataset`. Elements are `(images, labels)`, `(images, labels, sample weights)` or images alone.
        losses: one per output, or a `JointLoss` for several that follow each other; all get the same labels.
        config: how to train.
        loss_weights: one per loss; all 1 if None.
        augment: passed to `split.batches`.
        validation: called after each epoch; its results are logged and put into the history.
        masks: per weight, by its path or `id()`, an array of 0 and 1; where it is 0 the weight stays exactly 0.
        teacher: from images to probabilities, see `soft_targets`: the labels for data without any, and the targets of
            `Distillation`.
        checkpoint: saved after each epoch. If it holds epochs already, training resumes after them, and the result
            equals that of a run that was never stopped.
        phase: its name in logs and errors.
        log_dir: folder for TensorBoard scalars.
        frozen_batch_norm: BatchNormalization layers act as in inference and are not trained.
        keep_best: hold `config.held_out` inputs of the split out of training, and end with the weights that do best on
            them, of any epoch or from before the first; the kept epoch is logged.
        seen: how many inputs of the split the weights were fitted to before; see `dcp_tf.data.hold_out`.
        lr_setting: what errors call the learning rate.
        callbacks: of Keras; see `dcp_tf.training.callbacks`. Under a strategy they get the model of the replicas. A
            learning rate that one sets stays until it is set again. The weights that one sets at the end of the
            training replace those of the best epoch.
        metrics: of Keras, measured on the held-out inputs after each epoch (so `keep_best` must be set) and called
            `held_out_NAME` in records, `val_NAME` in callbacks; for several outputs by the output's name.

    Returns:
        One record per epoch.

    Raises:
        UsageError: data, losses, masks or checkpoint do not fit the model.
        RunError: the loss or a weight became NaN or infinite, or a checkpoint could not be read or written.
    """
    loss_weights = [1.0] * len(losses) if loss_weights is None else [float(weight) for weight in loss_weights]
    masks = masks or {}
    source, held_out, config = _divide(split_or_batches, config, phase, keep_best, seen)
    if metrics and held_out is None and config.epochs:
        raise UsageError("metrics are measured on held-out inputs: set keep_best, and held_out above 0", "held_out")
    callbacks = Callbacks(callbacks, config, phase)
    batches = batches_by_epoch(source, config.batch_size, augment, config.seed)
    settings = {
        "phase": phase,
        "loss_weights": loss_weights,
        "frozen_batch_norm": frozen_batch_norm,
        "masks": _digest(masks),
        **({"augment": augment} if hasattr(source, "batches") else {}),
        **dataclasses.asdict(config),
        "held_out": 0 if held_out is None else held_out.size,
        **({"callbacks": callbacks.names} if callbacks else {}),
    }
    if config.epochs == 0:
        return History()
    with (
        override_attribute(batch_norms(model) if frozen_batch_norm else (), "trainable", False),
        scalars(log_dir) as log,
    ):
        replicas = Replicas(model, current_strategy())
        step = TrainStep(
            replicas.model,
            losses,
            loss_weights,
            config,
            masks=replicas.own_keys(masks),
            teacher=teacher,
            strategy=replicas.strategy,
        )
        replicas.gather()  # the masked weights are 0 now
        run = TrainingRun(model, replicas, step, config, phase, lr_setting, validation, callbacks, checkpoint, settings)
        if held_out is not None:
            held_out_batches = functools.partial(held_out.batches, config.batch_size)
            run.best = BestEpoch(model, losses[-1], held_out_batches, teacher)
            run.metrics = HeldOutMetrics(metrics, model, losses[-1], held_out_batches) if metrics else None
        of_keras = keras.tree.flatten(metrics)
        with callbacks.around(replicas.model, step.optimizer.keras, step.accuracy_name, of_keras):
            history = run.epochs(batches, log)
    history.held_out_inputs = held_out
    history.resolved = {"epochs": len(history), "batch_size": config.batch_size, "clip_norm": step.clip_norm}
    return history


def _divide(
    source: Any, config: TrainConfig, phase: str, keep_best: bool, seen: int
) -> tuple[Any, DataSplit | None, TrainConfig]:
    """The training data, the held-out data, and the configuration for so many inputs."""
    if not hasattr(source, "batches"):
        if keep_best:
            raise UsageError("keep_best needs inputs that are held out of a data split; give a data split")
        return source, None, config
    held_out = None
    if keep_best and config.epochs and config.held_out != 0:
        source, held_out = hold_out(source, config.held_out, config.seed, seen)
    resolved = config.for_inputs(source.size)
    if resolved.epochs > config.epochs or 2 * resolved.batch_size <= min(config.batch_size, source.size):
        progress.say(f"{phase}: {resolved.epochs} epochs in batches of {resolved.batch_size}, since the data is small")
    return source, held_out, resolved


def batches_by_epoch(source: Any, batch_size: int, augment: bool, seed: int) -> Callable[[int], tf.data.Dataset]:
    """From the epoch to its batches; their order depends only on the seed and the epoch."""
    if hasattr(source, "batches"):
        return lambda epoch: source.batches(batch_size, shuffle=True, augment=augment, seed=seed, epoch=epoch)
    if callable(source):
        return source
    raise UsageError(
        f"Expected a data split, or a function from the epoch to batches. Received: {type(source).__name__}"
    )


def _digest(masks: Mapping[str | int, np.ndarray]) -> int:
    """A digest of the masks, so that a run does not resume with other masks."""
    return zlib.crc32(b"".join(np.asarray(mask, bool).tobytes() for mask in masks.values()))
