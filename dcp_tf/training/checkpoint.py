"""Weights and histories on disk: atomic files, checked before anything changes, and runs that resume."""

import json
import os
import pathlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from dcp_tf.changed_settings import describe_changes
from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import write_atomically


class History(list):
    """A list with one dict per finished epoch, and attributes of the whole training.

    Each holds `epoch` (from 1), `loss` (weighted sum of the heads plus the layers' own penalties, without weight
    decay), `losses` (one mean per head, unweighted), `learning_rate` (of the last step), `top1` (fraction of 1 while
    training, if the last loss has an accuracy), `seconds` (with validation), what the validation function returned, and
    with held-out inputs `held_out_loss` and, for instance, `held_out_top1`.

    Attributes:
        resolved: the settings that were used: `epochs`, `batch_size`, `clip_norm`.
        callbacks: what a stopped run kept of its callbacks: their attributes, and the arrays in these; else None.
        finished: whether the training ended, be it before its last epoch.
        held_out: with held-out inputs their number (`images`), the compared `metric`, its value `before` training and
            that of the `kept` epoch, and the latter's number `kept_epoch` (0: none); else None.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = ()):
        super().__init__(records)
        self.resolved: dict[str, Any] = {}
        self.held_out: dict[str, Any] | None = None
        self.held_out_inputs: Any = None
        self.callbacks: tuple[list, Mapping[str, np.ndarray]] | None = None
        self.finished = False

    def phase(self, name: str, seconds: float, **more: Any) -> dict[str, Any]:
        """The record of a training for `summary.json`."""
        held_out = {} if self.held_out is None else {"held_out": self.held_out}
        return {"name": name, "seconds": seconds, **more, **self.resolved, **held_out, "history": list(self)}


class TrainState:
    """One training phase on disk: weights, optimizer, random states and history after its last whole epoch.

    Args:
        path: an `.npz` file, such as `output_dir/state/fine-tuning.npz`; each phase has its own.
        conditions: what the phase depends on besides its settings, such as the data; JSON values.

    Raises:
        UsageError: the path does not end in `.npz`.
    """

    def __init__(self, path: str | os.PathLike, conditions: Mapping | None = None):
        self.path = _npz(path)
        self._conditions = dict(conditions or {})

    def save(
        self,
        settings: Mapping,
        variables: Iterable[keras.Variable],
        optimizer: Iterable[keras.Variable],
        history: History,
        *,
        finished: bool,
        callbacks: tuple[list, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Writes everything as one file that replaces that of the last epoch.

        Args:
            settings: what the result depends on.
            variables: of the model.
            optimizer: what else the training changes.
            history: of the finished epochs.
            finished: whether the training ended.
            callbacks: see `History`.

        Raises:
            RunError: the file cannot be written; that of the last epoch stays.
        """
        settings = {**settings, **self._conditions}
        states, more = callbacks or ([], {})
        about = {"settings": settings, "history": history, "finished": finished, "callbacks": states}
        about = json.dumps(about)
        arrays = _pack("model", variables) | _pack("optimizer", optimizer)
        arrays |= {f"callbacks:{key}": array for key, array in more.items()}
        arrays["about"] = np.frombuffer(about.encode(), np.uint8)
        write_atomically(self.path, lambda temporary: np.savez(temporary, **arrays))

    def restore(
        self, settings: Mapping, variables: Iterable[keras.Variable], optimizer: Iterable[keras.Variable]
    ) -> History:
        """Sets the variables to what was saved.

        Returns:
            The history of the finished epochs; empty, and no variable is set, if nothing was saved yet.

        Raises:
            UsageError: the file was saved by a run with other settings, or for another model.
            RunError: the file is damaged.
        """
        if not self.path.exists():
            return History()
        arrays = _read(self.path)
        about = _about(arrays, self.path)
        expected = json.loads(json.dumps({**settings, **self._conditions}))
        changes, names = describe_changes(about["settings"], expected)
        if changes:
            raise UsageError(
                f"{self.path} was saved by a run with other settings ({changes}); delete it to start over",
                setting=names,
            )
        sets = [("model", list(variables)), ("optimizer", list(optimizer))]
        for kind, targets in sets:
            _check(kind, arrays, targets, self.path)
        for kind, targets in sets:
            _assign(kind, arrays, targets)
        history = History(about["history"])
        history.finished = about["finished"]
        of_callbacks = {key.partition(":")[2]: array for key, array in arrays.items() if key.startswith("callbacks:")}
        history.callbacks = (about.get("callbacks", []), of_callbacks)
        return history

    def settings(self) -> Mapping[str, Any]:
        """What the saved training depends on; {} if nothing was saved yet.

        Raises:
            RunError: the file is damaged.
        """
        return _about(_read(self.path, only="about"), self.path)["settings"] if self.path.exists() else {}

    def finished(self) -> bool:
        """Whether the phase ran to its last epoch.

        Raises:
            RunError: the file is damaged.
        """
        return self.path.exists() and bool(_about(_read(self.path, only="about"), self.path)["finished"])


def save_model(model: keras.Model, path: str | os.PathLike) -> pathlib.Path:
    """Writes the model as one whole `.keras` file.

    Raises:
        UsageError: the path does not end in `.keras`.
        RunError: the file cannot be written; an existing one is untouched.
    """
    if pathlib.Path(path).suffix != ".keras":
        raise UsageError(f"Expected a path that ends in .keras. Received: {path}")
    return write_atomically(path, model.save)


def save_weights(model: keras.Model, path: str | os.PathLike) -> pathlib.Path:
    """Writes the model's weights as one whole `.npz` file, in the order of `model.weights`.

    Raises:
        UsageError: the path does not end in `.npz`.
        RunError: the file cannot be written; an existing one is untouched.
    """
    arrays = _pack("model", model.weights)
    return write_atomically(_npz(path), lambda temporary: np.savez(temporary, **arrays))


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Sets the model's weights to those of a file of `save_weights`: all, or none if one does not fit.

    Layers may have other names (Keras numbers them per process); order, kinds and shapes must be equal.

    Raises:
        UsageError: there is no such file, or it does not fit the model.
        RunError: the file is damaged.
    """
    path = _npz(path)
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    arrays = _read(path)
    _check("model", arrays, model.weights, path)
    _assign("model", arrays, model.weights)


def _npz(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"Expected a path that ends in .npz. Received: {path}")
    return path


def _pack(kind: str, variables: Iterable[keras.Variable]) -> dict[str, np.ndarray]:
    """Arrays keyed "kind:index:path"; Keras' paths alone may not be unique."""
    return {f"{kind}:{index:05d}:{v.path}": v.numpy() for index, v in enumerate(variables)}


def _of_kind(kind: str, arrays: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(key.split(":", 2)[2], arrays[key]) for key in sorted(arrays) if key.startswith(f"{kind}:")]


def _check(kind: str, arrays: Mapping[str, np.ndarray], variables: list[keras.Variable], path: pathlib.Path) -> None:
    """Raises UsageError unless the arrays can become the values of the variables."""
    saved = _of_kind(kind, arrays)
    if len(saved) != len(variables):
        raise UsageError(
            f"{path} fits another {kind}: it holds {len(saved)} weights, and {len(variables)} are expected"
        )
    for (name, array), variable in zip(saved, variables, strict=True):
        same_name = kind != "model" or _role(name) == _role(variable.path)
        if array.shape != tuple(variable.shape) or array.dtype.name != variable.dtype or not same_name:
            raise UsageError(
                f"{path} fits another {kind}: expected {variable.path} of shape {tuple(variable.shape)}, "
                f"{variable.dtype}. Received: {name} of shape {array.shape}, {array.dtype}"
            )


def _role(path: str) -> str:
    """A variable's name in its layer, such as "kernel", without the numbers that Keras adds."""
    return re.sub(r"_\d+$", "", path.rsplit("/", 1)[-1])


def _assign(kind: str, arrays: Mapping[str, np.ndarray], variables: list[keras.Variable]) -> None:
    for (_, array), variable in zip(_of_kind(kind, arrays), variables, strict=True):
        variable.assign(array)


def _read(path: pathlib.Path, only: str | None = None) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if only in (None, key)}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}); delete it to start over") from error


def _about(arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> dict:
    if "about" not in arrays:
        raise RunError(f"{path} is no saved training state; delete it to start over")
    return json.loads(arrays["about"].tobytes())
