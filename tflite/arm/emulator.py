"""An emulated Arm processor that loads TFLite files, runs them and counts the instructions of an inference."""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

import dcp_tf.tflite.latency as latency_folder
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.tflite.arm.cores import find_core
from dcp_tf.tflite.arm.environment import ArmEnvironment
from dcp_tf.tflite.latency.line_process import LineProcess
from dcp_tf.tflite.types import TFLiteFile, read_content


class Emulator(LineProcess):
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
        guest = pathlib.Path(__file__).with_name("guest.py")
        worker = pathlib.Path(latency_folder.__file__).parent  # its loaded_file.py needs no more than the guest has
        command = environment.command(self.core, [str(guest)], [str(worker)], str(self._marks))
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))}
        super().__init__("the emulator running", command, variables)

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
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
