"""Keras' callbacks around the epochs of a training, and what a resumed run needs of them."""

import contextlib
import hashlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.training import TrainConfig

_REFUSED = {
    "BackupAndRestore": "a folder for the run's state and resume=True do what it does",
    "SwapEMAWeights": "TrainConfig(ema=0.99) does what it does",
}
_OF_KERAS = ("model", "_model", "params", "validation_data", "min_delta")  # Keras changes its sign at first use
_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class Callbacks:
    """The callbacks of one training; nothing happens without any.

    They get the model that is trained, with `optimizer` and `stop_training`, and logs with Keras' names: `loss`, the
    accuracy (as `accuracy` too), and `val_` before what is measured on held-out inputs, or else by the validation.

    Args:
        callbacks: of `keras.callbacks`, or a user's own.
        config: how to train.
        phase: its name in errors.

    Raises:
        UsageError: one is no callback, or cannot work here.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], config: TrainConfig, phase: str):
        check_callbacks(callbacks)
        self._callbacks, self._config, self._phase = list(callbacks), config, phase
        self._model: Any = None
        base = keras.callbacks.Callback
        self._reads_batches = any(getattr(type(c), h) is not getattr(base, h) for c in callbacks for h in _BATCH_HOOKS)
        # Whether the learning rate is theirs and no more that of the schedule.
        self.set_rate = any(isinstance(callback, keras.callbacks.LearningRateScheduler) for callback in callbacks)
        self._initial = [_encoded_attributes(callback, {}) for callback in callbacks]

    def __len__(self) -> int:
        return len(self._callbacks)

    @property
    def names(self) -> list[str]:
        """The classes, which a run must keep to be resumed."""
        return [type(callback).__name__ for callback in self._callbacks]

    @property
    def stopped(self) -> bool:
        """Whether one of them ended the training."""
        return bool(self._callbacks) and bool(self._model.stop_training)

    @contextlib.contextmanager
    def around(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        accuracy: str,
        metrics: Sequence[keras.metrics.Metric] = (),
    ) -> Iterator[None]:
        """Gives them the model, which has what they expect inside of a `with`.

        Args:
            model: that is trained.
            optimizer: of the training.
            accuracy: what the records call it.
            metrics: what else is measured.
        """
        if not self._callbacks:
            yield
            return
        self._model, self._accuracy = model, accuracy
        self._list = keras.callbacks.CallbackList(
            self._callbacks, model=model, epochs=self._config.epochs, steps=None, verbose=0
        )
        # Keras itself knows the direction of a compiled model's metrics alone.
        modes = {metric.name: {"up": "max", "down": "min"}.get(getattr(metric, "_direction", "")) for metric in metrics}
        modes |= {accuracy: "max", "accuracy": "max"}
        for callback in self._callbacks:
            mode = modes.get(str(getattr(callback, "monitor", "")).removeprefix("val_"))
            if mode and getattr(callback, "mode", "") == "auto":
                callback.mode = mode
        lent = {"optimizer": optimizer, "stop_training": False}
        before = {name: vars(model)[name] for name in lent if name in vars(model)}
        vars(model).update(lent)
        try:
            yield
        finally:
            for name in lent:
                del vars(model)[name]
            vars(model).update(before)

    def begin(self, saved: tuple[list, Mapping] | None = None) -> None:
        """Before the first epoch, or where a run resumes.

        Args:
            saved: `state` of the stopped run.
        """
        states, arrays = saved or ([], {})
        for callback in self._callbacks if saved is not None else ():
            if isinstance(callback, keras.callbacks.CSVLogger):
                callback.append = True
        self.call("on_train_begin")
        for callback, attributes in zip(self._callbacks, states, strict=False):
            for name, value in attributes.items():
                current = getattr(callback, name, None)
                if hasattr(current, "assign"):
                    current.assign(_decoded(value, arrays))
                else:
                    setattr(callback, name, _decoded(value, arrays))
        self.set_rate |= states[-1]["set_rate"] if states else False

    def batch(self, hook: str, number: int, logs: Mapping[str, float] | None = None) -> None:
        """Calls `on_train_batch_begin` or `on_train_batch_end`; batches count from 0."""
        if self._reads_batches:
            self.call(f"on_train_batch_{hook}", number, dict(logs or {}))

    @property
    def reads_batches(self) -> bool:
        """Whether one of them looks at single steps."""
        return self._reads_batches

    def epoch_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Calls `on_epoch_end` with what was measured; epochs count from 0."""
        if self._callbacks:
            self.call("on_epoch_end", epoch, self._logs(record))

    def call(self, hook: str, *args: Any) -> None:
        """Calls a hook of all of them.

        Raises:
            RunError: one failed.
        """
        if not self._callbacks:
            return
        try:
            getattr(self._list, hook)(*args)
        except (UsageError, RunError):
            raise
        except Exception as error:  # of any kind, as the code is the user's
            frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
            culprit = next((c for c in self._callbacks if any(frame is c for frame in frames)), self._list)
            line = (str(error).strip().splitlines() or [""])[0]
            raise RunError(
                f"the callback {type(culprit).__name__} failed in {hook} of {self._phase} ({type(error).__name__}: "
                f"{line}); finished epochs are kept where the run has a folder for its state, and resume=True "
                "continues after them"
            ) from error

    def state(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """The attributes that changed since the callbacks were given, as JSON holds them, and the arrays in them."""
        states, arrays = [], {}
        for callback, initial in zip(self._callbacks, self._initial, strict=True):
            now = _encoded_attributes(callback, arrays)
            states.append({name: value for name, value in now.items() if value != initial.get(name, _UNKNOWN)})
        return [*states, {"set_rate": self.set_rate}] if states else [], arrays

    def name_unsaved(self) -> None:
        """Logs which attributes of users' callbacks a resumed run cannot have as they were."""
        for callback in self._callbacks:
            if type(callback).__module__.partition(".")[0] == "keras":
                continue
            lost = [name for name, value in _own(callback) if _encoded(value, {}) is _UNKNOWN and not callable(value)]
            if lost:
                progress.say(
                    f"{self._phase}: a resumed run cannot have {', '.join(lost)} of the callback "
                    f"{type(callback).__name__} as a killed one left it; numbers, texts, arrays, and lists and dicts "
                    "of these are kept"
                )

    def _logs(self, record: Mapping[str, Any]) -> dict[str, float]:
        """A record with Keras' names."""
        logs = {"loss": record["loss"], "learning_rate": record["learning_rate"]}
        trained = (self._accuracy, "loss", "learning_rate", "losses", "epoch", "seconds")
        if len(record["losses"]) > 1:
            logs |= {f"loss_{number}": value for number, value in enumerate(record["losses"])}
        for name, value in record.items():
            if name.startswith("held_out_"):
                logs[f"val_{name.removeprefix('held_out_')}"] = value
            elif name == self._accuracy or name not in trained:
                logs[name] = value
        for prefix in ("", "val_"):
            if f"{prefix}{self._accuracy}" in logs:
                logs.setdefault(f"{prefix}accuracy", logs[f"{prefix}{self._accuracy}"])
        return logs


def callbacks_by_phase(callbacks: Any) -> dict[str, list]:
    """The callbacks of the trainings called "auxiliary" and "finetuning"; a list alone is that of the fine-tuning.

    Raises:
        UsageError: another name, or one is no callback or cannot work here.
    """
    by_phase = dict(callbacks) if isinstance(callbacks, Mapping) else {"finetuning": callbacks or ()}
    by_phase = {
        phase: [given] if isinstance(given, keras.callbacks.Callback) else given for phase, given in by_phase.items()
    }
    if unknown := by_phase.keys() - {"auxiliary", "finetuning"}:
        raise UsageError(f"callbacks are for 'auxiliary' or 'finetuning', received {sorted(map(str, unknown))[0]!r}")
    for of_phase in by_phase.values():
        check_callbacks(of_phase)
    return {phase: list(of_phase) for phase, of_phase in by_phase.items()}


def check_callbacks(callbacks: Any) -> None:
    """Raises UsageError unless these are callbacks that can work here."""
    if isinstance(callbacks, str | Mapping) or not hasattr(callbacks, "__iter__"):
        raise UsageError(f"callbacks must be a list of keras.callbacks.Callback, received {callbacks!r:.80}")
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise UsageError(f"callbacks must be a list of keras.callbacks.Callback, received {callback!r:.80} in it")
        for kind in type(callback).__mro__:
            if kind.__name__ in _REFUSED and kind.__module__.startswith("keras."):
                raise UsageError(f"leave out the callback {kind.__name__}: {_REFUSED[kind.__name__]}")


def _own(callback: keras.callbacks.Callback) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(callback).items() if name not in _OF_KERAS]


def _encoded_attributes(callback: keras.callbacks.Callback, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    encoded = {name: _encoded(value, arrays) for name, value in _own(callback)}
    return {name: value for name, value in encoded.items() if value is not _UNKNOWN}


_UNKNOWN = object()


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value of plain Python or NumPy, or of a variable, as JSON holds it; `_UNKNOWN` for all others.

    Args:
        value: of an attribute.
        arrays: gets the arrays in it, by their digests, which stand in their places.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict | list | tuple | set):
        parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        parts = [_encoded(part, arrays) for part in parts]
        return _UNKNOWN if any(part is _UNKNOWN for part in parts) else {type(value).__name__: parts}
    if not isinstance(value, np.ndarray) and not hasattr(value, "numpy"):
        return _UNKNOWN
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if array.dtype.hasobject:
        return _UNKNOWN
    key = hashlib.sha1(array.tobytes() + repr((array.dtype, array.shape)).encode()).hexdigest()
    arrays[key] = array
    return {"array": key}


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """What `_encoded` made JSON of."""
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "array":
        return arrays[parts].copy()
    parts = [_decoded(part, arrays) for part in parts]
    kinds = {"list": list, "tuple": tuple, "set": set}
    return kinds[kind](parts) if kind in kinds else dict(zip(parts[::2], parts[1::2], strict=True))
