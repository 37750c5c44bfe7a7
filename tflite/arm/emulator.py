"""An emulated Arm processor that loads TFLite files, runs them and counts the instructions of an inference."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

import dcp_tf.tflite.latency as latency_folder
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.tflite.arm.cores import find_core
from dcp_tf.tflite.arm.environment import ArmEnvironment
from dcp_tf.tflite.types import TFLiteFile, read_content


class Emulator(contextlib.AbstractContextManager):
    """A process of Arm's Python under emulation; guest.py describes the protocol.

    Args:
        core: name of the emulated core, one of `cores.CORES`.
        seed: of the noise that inputs are filled with for counting.
        environment: what `set_up` returned; by default what is in the user's cache.

    Raises:
        UsageError: there is no such core, or Arm emulation is not set up.
        RunError: (any method) the process died.
    """

    def __init__(self, core: str = ARM_CORE, seed: int = 0, environment: ArmEnvironment | None = None):
        self.core = find_core(core)
        environment = environment or ArmEnvironment.find()
        self.machine = f"emulated Arm {self.core.name} (QEMU {environment.about['emulator']})"
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory(prefix="dcp_tf-arm-")
        self._marks = pathlib.Path(self._folder.name, "marks")
        self._marks.touch()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in __exit__)
        guest = pathlib.Path(__file__).with_name("guest.py")
        worker = pathlib.Path(latency_folder.__file__).parent  # its module worker.py needs no more than the guest has
        self._process = subprocess.Popen(
            environment.command(self.core, [str(guest)], [str(worker)], str(self._marks)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))},
        )

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._folder.cleanup()

    def load(self, name: str, source: TFLiteFile | str | os.PathLike | bytes) -> bool:
        """Loads a file; returns whether XNNPACK runs some of it.

        Raises:
            UsageError: the file cannot be run.
        """
        path = pathlib.Path(self._folder.name, "file.tflite")
        path.write_bytes(source if isinstance(source, bytes) else read_content(source))
        answer = self._ask(name, {"load": name, "path": str(path), "seed": self._seed})
        if "error" in answer:
            raise UsageError(f"{name!r} cannot be run as a TFLite model on Arm: {answer['error']}")
        return answer["delegated"]

    def unload(self, name: str) -> None:
        """Unloads a file."""
        self._ask(name, {"unload": name})

    def count(self, name: str) -> int:
        """Executed instructions of one inference, without those that mark its begin and end."""
        begin = self._marks.stat().st_size
        self._check(name, self._ask(name, {"count": name}))
        with self._marks.open("rb") as file:
            file.seek(begin)
            executed = [int(line) for line in file]
        empty, _, inference = np.diff(executed)
        return int(inference - empty)

    def run(self, name: str, inputs: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Runs a file on samples.

        Args:
            name: of a loaded file.
            inputs: by the index of the input tensor (N, ...), in the types of the file.

        Returns:
            The same for the outputs.
        """
        paths = [pathlib.Path(self._folder.name, f"{side}.npz") for side in ("inputs", "outputs")]
        np.savez(paths[0], **{f"i{index}": array for index, array in inputs.items()})
        self._check(name, self._ask(name, {"run": name, "inputs": str(paths[0]), "outputs": str(paths[1])}))
        with np.load(paths[1]) as file:
            return {int(key[1:]): file[key] for key in file.files}

    def _check(self, name: str, answer: Mapping[str, Any]) -> None:
        if "error" in answer:
            raise RunError(f"{name!r} failed on {self.machine}: {answer['error']}")

    def _ask(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # a dead process sends no answer, which is handled below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last_line = self._errors.read().decode("utf-8", errors="replace").strip().splitlines()[-1:]
            raise RunError(
                f"the emulator running {name!r} died (exit code {self._process.wait()})"
                + (f": {last_line[0]}" if last_line else "")
            )
        return json.loads(line)
