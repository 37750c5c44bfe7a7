"""The training loop: epochs, learning rate, validation, progress, and going on after a stop."""

import contextlib
import dataclasses
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.data import DataSplit, hold_out
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.best_weights import BestEpoch
from dcp_tf.training.checkpoint import History, TrainState
from dcp_tf.training.distribution import Replicas, current_strategy
from dcp_tf.training.layers import batch_norms, override_attribute, seed_random_layers
from dcp_tf.training.losses import Loss
from dcp_tf.training.step import TrainStep

_CHECK_EVERY = 50  # steps between two looks at whether the loss is finite; each look waits for the device


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
    lr_setting: str = "learning_rate",
) -> History:
    """Trains `model` in place. The result depends on its weights, the data, the arguments and the seed alone.

    Layers with `trainable=False` stay as they are. The learning rate is read off the schedule in the middle of each
    step; where the number of steps per epoch is not known to tf.data, in the middle of each epoch. Inside
    `distributed(strategy)` the strategy's replicas share each batch; the result is that of one device but for rounding
    (BatchNormalization sees the whole batch).

    Args:
        model: with one output, or several in any structure: auxiliary heads first, the final output last (in the
            order of `keras.tree.flatten`, which sorts the keys of a dict).
        split_or_batches: a `dcp_tf.data.DataSplit`, or a function from the epoch (from 0) to a finite
            `tf.data.Dataset`. Elements are `(images, labels)` or images alone.
        losses: one per output; all get the same labels.
        config: how to train.
        loss_weights: one per output; all 1 if None.
        augment: passed to `split.batches`.
        validation: called after each epoch; what it returns is printed and put into the history.
        masks: per weight, by its path or `id()`, an array of 0 and 1; where it is 0 the weight is and stays exactly 0.
        teacher: from images to probabilities, see `soft_targets`: the labels of data without any, and what
            `Distillation` learns from.
        checkpoint: saved after each epoch. If it holds epochs already, training goes on after them, and the result
            equals that of a run that was never stopped.
        phase: what the user reads.
        log_dir: folder for TensorBoard scalars.
        frozen_batch_norm: BatchNormalization layers act as in inference and are not trained.
        keep_best: hold `config.held_out` inputs of the split out of training, and end with the weights that do best on
            them, of any epoch or from before the first; which epoch that was is logged.
        lr_setting: what errors call the learning rate.

    Returns:
        One record per epoch.

    Raises:
        UsageError: data, losses, masks or checkpoint do not fit the model.
        RunError: the loss or a weight became NaN or infinite, or a checkpoint could not be read or written.
    """
    weights = [1.0] * len(losses) if loss_weights is None else [float(weight) for weight in loss_weights]
    split_or_batches, held_out, config = _divide(split_or_batches, config, phase, keep_best)
    batches = batches_by_epoch(split_or_batches, config.batch_size, augment, config.seed)
    own_data = hasattr(split_or_batches, "batches")
    settings = _settings(config, phase, weights, frozen_batch_norm, masks or {}, augment if own_data else None)
    settings["held_out"] = 0 if held_out is None else held_out.size
    history = History()
    if config.epochs == 0:
        return history
    with (
        _frozen_batch_norm(model) if frozen_batch_norm else contextlib.nullcontext(),
        _scalars(log_dir) as log,
    ):
        replicas = Replicas(model, current_strategy())
        step = _build_step(replicas, losses, weights, config, masks or {}, teacher)
        best = None
        if held_out is not None:
            best = BestEpoch(model, losses[-1], lambda: held_out.batches(config.batch_size), teacher)
        seed_random_layers(model, config.seed)
        state = [*step.state, *(best.state if best else [])]
        if checkpoint is not None:
            history = checkpoint.restore(settings, model.variables, state)
        replicas.scatter()
        if step.average is not None:
            step.average.begin()
        if best:
            best.begin()
        for epoch in range(len(history), config.epochs):
            started = time.perf_counter()
            record = _run_epoch(step, batches(epoch), config, epoch, phase, lr_setting)
            replicas.gather()
            record |= _measure(step, model, epoch + 1, validation, best)
            record["seconds"] = time.perf_counter() - started
            history.append(record)
            if checkpoint is not None:
                finished = len(history) == config.epochs
                checkpoint.save(settings, model.variables, state, history, finished=finished)
            log(phase, record)
            progress.say(_line(record, phase, config.epochs))
        if best:
            best.put_into_model()
            history.held_out = {"images": held_out.size, **best.summary()}
            progress.say(_kept_line(history.held_out, phase, config.epochs))
        elif step.average is not None:
            step.average.put_into(model)
    history.resolved = {"epochs": config.epochs, "batch_size": config.batch_size, "clip_norm": step.clip_norm}
    return history


def _divide(source: Any, config: TrainConfig, phase: str, keep_best: bool) -> tuple[Any, DataSplit | None, TrainConfig]:
    """What is trained on, what is held out of it, and the configuration for so many inputs."""
    if not hasattr(source, "batches"):
        if keep_best:
            raise UsageError("the best epoch is found by inputs that are held out of a data split; give one")
        return source, None, config
    held_out = None
    if keep_best and config.epochs and config.held_out != 0:
        source, held_out = hold_out(source, config.held_out, config.seed)
    resolved = config.for_inputs(source.size)
    if resolved.epochs > config.epochs or 2 * resolved.batch_size <= min(config.batch_size, source.size):
        progress.say(f"{phase}: {resolved.epochs} epochs in batches of {resolved.batch_size}, since the data is small")
    return source, held_out, resolved


def _settings(
    config: TrainConfig,
    phase: str,
    loss_weights: list[float],
    frozen_batch_norm: bool,
    masks: Mapping[str | int, np.ndarray],
    augment: bool | None,
) -> dict[str, Any]:
    """What a checkpoint must have been made with for training to go on from it; without `augment` where it is None."""
    return {
        "phase": phase,
        "loss_weights": loss_weights,
        "frozen_batch_norm": frozen_batch_norm,
        "masks": _digest(masks),
        **({} if augment is None else {"augment": augment}),
        **dataclasses.asdict(config),
    }


def _build_step(
    replicas: Replicas,
    losses: Sequence[Loss],
    weights: Sequence[float],
    config: TrainConfig,
    masks: Mapping[str | int, np.ndarray],
    teacher: Callable[[tf.Tensor], tf.Tensor] | None,
) -> TrainStep:
    """The compiled step on the replicas' model; the masked weights are 0 afterwards, in the user's model too."""
    step = TrainStep(
        replicas.model,
        losses,
        weights,
        config,
        masks=replicas.own_keys(masks),
        teacher=teacher,
        strategy=replicas.strategy,
    )
    replicas.gather()
    return step


def _run_epoch(
    step: TrainStep, dataset: tf.data.Dataset, config: TrainConfig, epoch: int, phase: str, lr_setting: str
) -> dict[str, Any]:
    """Trains for one epoch and returns its record, without validation and time."""
    rate = config.rate()
    length = int(dataset.cardinality())
    if length == tf.data.INFINITE_CARDINALITY:
        raise UsageError("The training data never ends; leave out .repeat(), or add .take(steps_per_epoch)")
    if config.steps_per_epoch is not None:
        dataset = dataset.take(config.steps_per_epoch)
        length = int(dataset.cardinality())
    steps = length if length > 0 else None
    learning_rate = rate(epoch + 0.5)
    number = 0
    step.start_epoch(dataset.element_spec)
    with progress.bar(what=f"{phase} {epoch + 1}/{config.epochs}", total=steps, unit="step") as bar:
        for number, batch in enumerate(dataset.prefetch(tf.data.AUTOTUNE), start=1):
            learning_rate = rate(epoch + (number - 0.5) / steps) if steps else learning_rate
            with _label_errors():
                step(batch, learning_rate)
            bar.update()
            if number % _CHECK_EVERY == 0:
                _check_finite(step, epoch, phase, lr_setting, config.learning_rate)
    if number == 0:
        raise UsageError("The training data is empty")
    _check_finite(step, epoch, phase, lr_setting, config.learning_rate)
    if not step.weights_are_finite():
        raise RunError(
            f"a weight became NaN in {phase} (epoch {epoch + 1}); lower {lr_setting} (now {config.learning_rate:g})",
            setting=lr_setting,
        )
    loss, heads, accuracy = step.means()
    record = {"epoch": epoch + 1, "loss": loss, "losses": heads, "learning_rate": learning_rate}
    return record | ({step.accuracy_name: accuracy} if step.tells_accuracy else {})


def _measure(
    step: TrainStep,
    model: keras.Model,
    epoch: int,
    validation: Callable[[], Mapping[str, float]] | None,
    best: BestEpoch | None,
) -> dict[str, float]:
    """What `validation` and the held-out inputs say of the weights, the averaged ones where the step keeps some."""
    with step.average.within(model) if step.average else contextlib.nullcontext():
        validated = {} if validation is None else {name: float(value) for name, value in validation().items()}
        return validated | (best.compare(epoch) if best else {})


def _check_finite(step: TrainStep, epoch: int, phase: str, lr_setting: str, learning_rate: float) -> None:
    bad = step.first_bad_step()
    if bad is not None:
        place = f"{phase} (epoch {epoch + 1}, step {bad})"
        raise RunError(f"the loss became NaN in {place}; lower {lr_setting} (now {learning_rate:g})", lr_setting)


@contextlib.contextmanager
def _label_errors() -> Iterator[None]:
    """Turns the check of integer labels, which runs inside the compiled step, into a line for the user."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        line = re.search(r"Expected labels in [^\]\n]*", str(error))
        if line is None:
            raise
        raise UsageError(f"{line.group()}. The data holds labels outside of that range") from error


def batches_by_epoch(source: Any, batch_size: int, augment: bool, seed: int) -> Callable[[int], tf.data.Dataset]:
    """From the epoch to its batches; their order depends only on the seed and the epoch."""
    if hasattr(source, "batches"):
        return lambda epoch: source.batches(batch_size, shuffle=True, augment=augment, seed=seed, epoch=epoch)
    if callable(source):
        return source
    raise UsageError(
        f"Expected a data split, or a function from the epoch to batches. Received: {type(source).__name__}"
    )


def _frozen_batch_norm(model: keras.Model) -> contextlib.AbstractContextManager:
    """Makes BatchNormalization untrainable, which in Keras means inference mode too; undone at the end."""
    return override_attribute(batch_norms(model), "trainable", False)


def _digest(masks: Mapping[str | int, np.ndarray]) -> int:
    """A number that tells masks apart, so that a run does not go on under other masks than it began with."""
    return zlib.crc32(b"".join(np.asarray(mask, bool).tobytes() for mask in masks.values()))


@contextlib.contextmanager
def _scalars(log_dir: str | None) -> Iterator[Callable[[str, Mapping], None]]:
    """A function that writes a record's numbers for TensorBoard as `phase/name`; does nothing without a folder."""
    if log_dir is None:
        yield lambda phase, record: None
        return
    writer = tf.summary.create_file_writer(str(log_dir))
    # What `tf.summary.scalar` writes; that function itself works only where TensorBoard is installed.
    scalar = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
    scalar.plugin_data.plugin_name = "scalars"

    def log(phase: str, record: Mapping) -> None:
        heads = {f"losses/{index}": value for index, value in enumerate(record["losses"])}
        with writer.as_default(step=record["epoch"]):
            for name, value in {**record, **heads}.items():
                if name not in ("epoch", "losses"):
                    tf.summary.write(f"{phase}/{name}", tf.constant(value, tf.float32), metadata=scalar)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()


def _line(record: Mapping[str, Any], phase: str, epochs: int) -> str:
    """For example "fine-tuning 3/10  loss 0.123  top1 0.950  lr 0.01  12 s"."""
    parts = [f"{phase} {record['epoch']}/{epochs}", f"loss {record['loss']:.4g}"]
    shown = ("epoch", "loss", "losses", "learning_rate", "top1", "seconds", "held_out_loss")
    parts += [f"top1 {record['top1']:.4f}"] if "top1" in record else []
    parts += [f"{name} {value:.4g}" for name, value in record.items() if name not in shown]
    return "  ".join([*parts, f"lr {record['learning_rate']:.3g}", f"{record['seconds']:.0f} s"])


def _kept_line(held_out: Mapping[str, Any], phase: str, epochs: int) -> str:
    """For example "kept epoch 7 of 10 (held-out top1 0.9580; before fine-tuning 0.9480)"."""
    what, before = f"held-out {held_out['metric']}", held_out["before"]
    if not held_out["kept_epoch"]:
        return (
            f"kept the model as it was before {phase}: none of {epochs} epochs did clearly better ({what} {before:.4f})"
        )
    kept = f"kept epoch {held_out['kept_epoch']} of {epochs}"
    return f"{kept} ({what} {held_out['kept']:.4f}; before {phase} {before:.4f})"
