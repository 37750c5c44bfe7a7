"""The epochs of one training: steps, learning rate, measurements, callbacks, checkpoints."""

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.models.weights_digest import weights_digest
from dcp_tf.settings.training import TrainConfig
from dcp_tf.training.best_weights import BestEpoch
from dcp_tf.training.callbacks import Callbacks
from dcp_tf.training.checkpoint import History, TrainState
from dcp_tf.training.distribution import Replicas
from dcp_tf.training.epoch_records import epoch_line, kept_line
from dcp_tf.training.held_out_metrics import HeldOutMetrics
from dcp_tf.training.layers import seed_random_layers
from dcp_tf.training.step import TrainStep

_CHECK_EVERY = 50  # steps between two checks that the loss is finite; each waits for the device


@dataclasses.dataclass
class TrainingRun:
    """What the epochs of one call of `fit` share; see there."""

    model: keras.Model
    replicas: Replicas
    step: TrainStep
    config: TrainConfig
    phase: str
    lr_setting: str
    validation: Callable[[], Mapping[str, float]] | None
    callbacks: Callbacks
    checkpoint: TrainState | None
    settings: Mapping[str, Any]
    best: BestEpoch | None = None
    metrics: HeldOutMetrics | None = None

    def __post_init__(self):
        self._rate = self.config.rate()
        self._scheduled_rate = self.config.learning_rate
        self._rates_before: list[float] | None = None  # as nobody but the schedule set them

    def epochs(self, batches: Callable[[int], tf.data.Dataset], log: Callable[[str, Mapping], None]) -> History:
        """Trains all epochs that are missing, and sets the model to the weights that are kept."""
        history = self._begin()
        for epoch in () if history.finished else range(len(history), self.config.epochs):
            started = time.perf_counter()
            self.callbacks.call("on_epoch_begin", epoch)
            record = self.train(epoch, batches(epoch))
            self.replicas.gather()
            record |= self.measure(epoch)
            record["seconds"] = time.perf_counter() - started
            history.append(record)
            self.callbacks.epoch_end(epoch, record)
            history.finished = self.callbacks.stopped or len(history) == self.config.epochs
            self._save(history)
            log(self.phase, record)
            progress.say(epoch_line(record, self.phase, self.config.epochs))
            if self.callbacks.stopped:
                progress.say(f"{self.phase}: a callback ended it after epoch {epoch + 1} of {self.config.epochs}")
                break
        self._finish(history)
        return history

    @property
    def state(self) -> list[keras.Variable]:
        """What a resumed run needs besides the model's variables."""
        return [*self.step.state, *(self.best.state if self.best else [])]

    def _begin(self) -> History:
        """Restores what a stopped run did, and prepares the first epoch."""
        seed_random_layers(self.model, self.config.seed)
        history = self._restore()
        if not history:
            self.step.optimizer.set_rate(self._scheduled_rate)
        self._rates_before = self.step.optimizer.rates()
        self.callbacks.begin(history.callbacks)
        if self.callbacks and history:  # what they changed at the beginning of the training is undone
            self._restore()
        self.replicas.scatter()
        for part in (self.step.average, self.best):
            if part is not None:
                part.begin()
        return history

    def _restore(self) -> History:
        if self.checkpoint is None:
            return History()
        return self.checkpoint.restore(self.settings, self.model.variables, self.state)

    def _save(self, history: History) -> None:
        self.replicas.gather()  # what callbacks may have changed
        self._notice_rate()
        if self.checkpoint is None:
            return
        if len(history) == 1:
            self.callbacks.name_unsaved()
        variables, callbacks = self.model.variables, self.callbacks.state()
        self.checkpoint.save(
            self.settings, variables, self.state, history, finished=history.finished, callbacks=callbacks
        )

    def train(self, epoch: int, dataset: tf.data.Dataset) -> dict[str, Any]:
        """Trains for one epoch and returns its record, without measurements and time."""
        step, number = self.step, 0
        dataset, steps = self._finite(dataset)
        step.start_epoch(dataset.element_spec)
        with progress.bar(what=f"{self.phase} {epoch + 1}/{self.config.epochs}", total=steps, unit="step") as bar:
            for number, batch in enumerate(dataset.prefetch(tf.data.AUTOTUNE), start=1):
                self._set_rate(epoch + ((number - 0.5) / steps if steps else 0.5))
                self.callbacks.batch("begin", number - 1)
                with _label_errors():
                    step(batch)
                bar.update()
                if number % _CHECK_EVERY == 0:
                    self._check_loss(epoch)
                if self.callbacks.reads_batches:
                    self.callbacks.batch("end", number - 1, {"loss": step.means()[0]})
                if self.callbacks.stopped:
                    break
        if number == 0:
            raise UsageError("The training data is empty")
        self._check_loss(epoch)
        if not step.weights_are_finite():
            raise self._diverged("a weight", f"epoch {epoch + 1}")
        loss, heads, accuracy = step.means()
        rate = self._scheduled_rate if self._is_scheduled else step.optimizer.rates()[0]
        record = {"epoch": epoch + 1, "loss": loss, "losses": heads, "learning_rate": rate}
        return record | ({step.accuracy_name: accuracy} if step.has_accuracy else step.figures())

    def _finite(self, dataset: tf.data.Dataset) -> tuple[tf.data.Dataset, int | None]:
        """The batches of an epoch, and their number where it is known."""
        if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
            raise UsageError("The training data never ends; leave out .repeat(), or add .take(steps_per_epoch)")
        if self.config.steps_per_epoch is not None:
            dataset = dataset.take(self.config.steps_per_epoch)
        steps = int(dataset.cardinality())
        return dataset, steps if steps > 0 else None

    @property
    def _is_scheduled(self) -> bool:
        return not (self.callbacks.set_rate or self.config.has_schedule)

    def _set_rate(self, epoch: float) -> None:
        """Sets the learning rate to that of the schedule, until a callback sets it."""
        self._notice_rate()
        if self._is_scheduled:
            self._scheduled_rate = self._rate(epoch)
            self.step.optimizer.set_rate(self._scheduled_rate)
        self._rates_before = self.step.optimizer.rates() if self.callbacks else None

    def _notice_rate(self) -> None:
        """Finds whether a callback has set the learning rate, which it keeps then."""
        if self.callbacks and self.step.optimizer.rates() != self._rates_before:
            self.callbacks.set_rate = True

    def measure(self, epoch: int) -> dict[str, float]:
        """Results of `validation` and on the held-out inputs, with the averaged weights if there are any."""
        average = self.step.average
        with average.within(self.model) if average else contextlib.nullcontext():
            results = self.validation() if self.validation is not None else {}
            results = {name: float(value) for name, value in results.items()}
            results |= self.best.compare(epoch + 1) if self.best else {}
            return results | (self.metrics.measure() if self.metrics else {})

    def _finish(self, history: History) -> None:
        """Sets the model to the best weights, or else the averaged ones, unless a callback sets others at the end."""
        if self.best:
            self.best.put_into_model()
        elif self.step.average is not None:
            self.step.average.put_into(self.model)
        replaced = self.callbacks and self._ended_with_others()
        if replaced:
            progress.say(f"{self.phase}: a callback set the weights at the end, in place of the best epoch's")
        elif self.best:
            history.held_out = {"images": self.settings["held_out"], **self.best.summary()}
            progress.say(kept_line(history.held_out, self.phase, len(history)))

    def _ended_with_others(self) -> bool:
        """Ends the callbacks' training, and tells whether that changed the weights of the best epoch."""
        self.replicas.scatter()
        before = weights_digest(self.model)
        self.callbacks.call("on_train_end")
        self.replicas.gather()
        return self.best is not None and weights_digest(self.model) != before

    def _check_loss(self, epoch: int) -> None:
        bad_step = self.step.first_bad_step()
        if bad_step is not None:
            raise self._diverged("the loss", f"epoch {epoch + 1}, step {bad_step}")

    def _diverged(self, what: str, when: str) -> RunError:
        hint = f"lower {self.lr_setting} (now {self.config.learning_rate:g})"
        hint = "lower the rates of the optimizer's schedule" if self.config.has_schedule else hint
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
