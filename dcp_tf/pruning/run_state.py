"""What a pruning run keeps on disk while it works, so that it resumes after a kill at any moment."""

import dataclasses
import json
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from dcp_tf.changed_settings import describe_changes
from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import is_unfinished, read_json, write_atomically, write_json
from dcp_tf.models.weights_digest import weights_digest
from dcp_tf.pruning.plan import GroupPlan, KernelPlan
from dcp_tf.training import TrainState


class RunState:
    """The folder `state/` of a run; without a folder nothing is kept.

    Args:
        folder: where to keep it, or None.
        settings: all that the result depends on; a run is only resumed with the same.
        resume: whether the run resumes from what is there. Else it is deleted.
        shared: folder of trainings that several runs begin with, or None.

    Raises:
        UsageError: `resume` with other settings than the stopped run had.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        settings: Mapping[str, Any],
        resume: bool,
        shared: str | os.PathLike | None = None,
    ):
        self.folder = None if folder is None else pathlib.Path(folder)
        self._shared = None if shared is None else pathlib.Path(shared)
        if self.folder is None:
            return
        settings = json.loads(json.dumps(settings, default=str))
        about = self.folder / "settings.json"
        if resume and about.exists():
            before = read_json(about)
            changes, names = describe_changes(before, settings)
            if changes:
                raise UsageError(
                    f"cannot resume {self.folder} with other settings ({changes}); leave out resume=True",
                    setting=(*names, "resume"),
                )
            return
        if self.folder.exists():
            if not about.exists() and not all(map(_is_own, self.folder.iterdir())):
                raise UsageError(f"{self.folder} holds other files: give a folder for the run alone", "state_dir")
            shutil.rmtree(self.folder)
        write_json(about, settings)

    def training(self, phase: str) -> TrainState | None:
        """Where a training phase keeps its epochs."""
        return None if self.folder is None else TrainState(self.folder / f"{phase}.npz")

    def shared_training(self, phase: str, model: keras.Model, *about: Any) -> TrainState | None:
        """Where a phase keeps its epochs with which other runs begin too; without a shared folder it is the run's own.

        Args:
            phase: its name.
            model: as it is before the phase. The file belongs to these weights and to
            *about: all else that the result depends on, by `repr`.
        """
        if self._shared is None:
            return self.training(phase)
        digest = weights_digest(model, zlib.crc32(repr(about).encode()))
        return TrainState(self._shared / f"{phase}_{digest:08x}.npz")

    def save_weights(self, phase: str, variables: Sequence[keras.Variable], about: Any) -> None:
        """Keeps the weights as they are in a phase, with what JSON holds about it, in one file."""
        if self.folder is None:
            return
        arrays = {f"{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        write_atomically(self.folder / f"{phase}.npz", lambda temporary: np.savez(temporary, **arrays))

    def load_weights(self, phase: str, variables: Sequence[keras.Variable]) -> Any | None:
        """Sets the weights to what was kept and returns what was kept about them; None, and no change, at the start.

        Raises:
            RunError: the file is damaged.
        """
        path = None if self.folder is None else self.folder / f"{phase}.npz"
        if path is None or not path.exists():
            return None
        try:
            with np.load(path) as archive:
                about = json.loads(archive["about"].tobytes())
                values = [archive[f"{i:05d}"] for i in range(len(variables))]
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise RunError(f"{path} is damaged ({error}); run again without resume=True", "resume") from error
        return about

    def save_selection(self, done: Sequence[GroupPlan | KernelPlan], variables: Sequence[keras.Variable]) -> None:
        """Keeps what is selected so far and the weights as they are now, in one file."""
        self.save_weights("selection", variables, [dataclasses.asdict(plan) for plan in done])

    def load_selection(self, variables: Sequence[keras.Variable]) -> list[GroupPlan | KernelPlan]:
        """Sets the weights to what was kept and returns what is selected; nothing, and no change, at the start.

        Raises:
            RunError: the file is damaged.
        """
        done = self.load_weights("selection", variables) or []
        return [KernelPlan.from_json(plan) if "layer" in plan else GroupPlan.from_json(plan) for plan in done]


def _is_own(path: pathlib.Path) -> bool:
    """Whether a run may have left this in a folder without settings; steps have folders of their own."""
    return is_unfinished(path) or (path.is_dir() and path.name.startswith("step_"))
