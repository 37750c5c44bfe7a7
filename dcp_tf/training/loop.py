"""The training loop: epochs, learning rate, validation, progress and resuming."""

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

_CHECK_EVERY = 50  # steps between two checks that the loss is finite; each waits for the device


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
        lr_setting: what errors call the learning rate.

    Returns:
        One record per epoch.

    Raises:
        UsageError: data, losses, masks or checkpoint do not fit the model.
        RunError: the loss or a weight became NaN or infinite, or a checkpoint could not be read or written.
    """
    loss_weights = [1.0] * len(losses) if loss_weights is None else [float(weight) for weight in loss_weights]
    masks = masks or {}
    source, held_out, config = _divide(split_or_batches, config, phase, keep_best)
    batches = batches_by_epoch(source, config.batch_size, augment, config.seed)
    settings = {
        "phase": phase,
        "loss_weights": loss_weights,
        "frozen_batch_norm": frozen_batch_norm,
        "masks": _digest(masks),
        **({"augment": augment} if hasattr(source, "batches") else {}),
        **dataclasses.asdict(config),
        "held_out": 0 if held_out is None else held_out.size,
    }
    history = History()
    if config.epochs == 0:
        return history
    with (
        override_attribute(batch_norms(model) if frozen_batch_norm else (), "trainable", False),
        _scalars(log_dir) as log,
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
        best = None
        if held_out is not None:
            best = BestEpoch(model, losses[-1], lambda: held_out.batches(config.batch_size), teacher)
        run = _Run(model, step, best, validation, config, phase, lr_setting)
        seed_random_layers(model, config.seed)
        if checkpoint is not None:
            history = checkpoint.restore(settings, model.variables, run.state)
        replicas.scatter()
        run.begin()
        for epoch in range(len(history), config.epochs):
            started = time.perf_counter()
            record = run.train(epoch, batches(epoch))
            replicas.gather()
            record |= run.measure(epoch)
            record["seconds"] = time.perf_counter() - started
            history.append(record)
            if checkpoint is not None:
                finished = len(history) == config.epochs
                checkpoint.save(settings, model.variables, run.state, history, finished=finished)
            log(phase, record)
            progress.say(_line(record, phase, config.epochs))
        run.finish()
    if best:
        history.held_out = {"images": held_out.size, **best.summary()}
        progress.say(_kept_line(history.held_out, phase, config.epochs))
    history.resolved = {"epochs": config.epochs, "batch_size": config.batch_size, "clip_norm": step.clip_norm}
    return history


def _divide(source: Any, config: TrainConfig, phase: str, keep_best: bool) -> tuple[Any, DataSplit | None, TrainConfig]:
    """The training data, the held-out data, and the configuration for so many inputs."""
    if not hasattr(source, "batches"):
        if keep_best:
            raise UsageError("keep_best needs inputs that are held out of a data split; give a data split")
        return source, None, config
    held_out = None
    if keep_best and config.epochs and config.held_out != 0:
        source, held_out = hold_out(source, config.held_out, config.seed)
    resolved = config.for_inputs(source.size)
    if resolved.epochs > config.epochs or 2 * resolved.batch_size <= min(config.batch_size, source.size):
        progress.say(f"{phase}: {resolved.epochs} epochs in batches of {resolved.batch_size}, since the data is small")
    return source, held_out, resolved


@dataclasses.dataclass
class _Run:
    """What the epochs of one call of `fit` share; see there."""

    model: keras.Model
    step: TrainStep
    best: BestEpoch | None
    validation: Callable[[], Mapping[str, float]] | None
    config: TrainConfig
    phase: str
    lr_setting: str

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs besides the model's variables."""
        return [*self.step.state, *(self.best.state if self.best else [])]

    def begin(self) -> None:
        """Before the first epoch, once the weights are restored."""
        for part in (self.step.average, self.best):
            if part is not None:
                part.begin()

    def train(self, epoch: int, dataset: tf.data.Dataset) -> dict[str, Any]:
        """Trains for one epoch and returns its record, without measurements and time."""
        step, rate, number = self.step, self.config.rate(), 0
        steps = int(dataset.cardinality())
        if steps == tf.data.INFINITE_CARDINALITY:
            raise UsageError("The training data never ends; leave out .repeat(), or add .take(steps_per_epoch)")
        if self.config.steps_per_epoch is not None:
            dataset = dataset.take(self.config.steps_per_epoch)
            steps = int(dataset.cardinality())
        steps = steps if steps > 0 else None
        learning_rate = rate(epoch + 0.5)
        step.start_epoch(dataset.element_spec)
        with progress.bar(what=f"{self.phase} {epoch + 1}/{self.config.epochs}", total=steps, unit="step") as bar:
            for number, batch in enumerate(dataset.prefetch(tf.data.AUTOTUNE), start=1):
                learning_rate = rate(epoch + (number - 0.5) / steps) if steps else learning_rate
                with _label_errors():
                    step(batch, learning_rate)
                bar.update()
                if number % _CHECK_EVERY == 0:
                    self._check_loss(epoch)
        if number == 0:
            raise UsageError("The training data is empty")
        self._check_loss(epoch)
        if not step.weights_are_finite():
            raise self._diverged("a weight", f"epoch {epoch + 1}")
        loss, heads, accuracy = step.means()
        record = {"epoch": epoch + 1, "loss": loss, "losses": heads, "learning_rate": learning_rate}
        return record | ({step.accuracy_name: accuracy} if step.has_accuracy else step.figures())

    def measure(self, epoch: int) -> dict[str, float]:
        """Results of `validation` and on the held-out inputs, with the averaged weights if there are any."""
        average = self.step.average
        with average.within(self.model) if average else contextlib.nullcontext():
            results = self.validation() if self.validation is not None else {}
            results = {name: float(value) for name, value in results.items()}
            return results | (self.best.compare(epoch + 1) if self.best else {})

    def finish(self) -> None:
        """Sets the model to the best weights, or else the averaged ones."""
        if self.best:
            self.best.put_into_model()
        elif self.step.average is not None:
            self.step.average.put_into(self.model)

    def _check_loss(self, epoch: int) -> None:
        bad_step = self.step.first_bad_step()
        if bad_step is not None:
            raise self._diverged("the loss", f"epoch {epoch + 1}, step {bad_step}")

    def _diverged(self, what: str, when: str) -> RunError:
        hint = f"lower {self.lr_setting} (now {self.config.learning_rate:g})"
        return RunError(f"{what} became NaN in {self.phase} ({when}); {hint}", self.lr_setting)


@contextlib.contextmanager
def _label_errors() -> Iterator[None]:
    """Turns the check of integer labels, which runs inside of the compiled step, into a UsageError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        line = re.search(r"Expected labels in [^\]\n]*", str(error))
        if line is None:
            raise
        raise UsageError(f"{line.group()}. The data has labels outside of that range") from error


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


@contextlib.contextmanager
def _scalars(log_dir: str | None) -> Iterator[Callable[[str, Mapping], None]]:
    """A function that writes a record's numbers for TensorBoard as `phase/name`, if there is a folder."""
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
