"""Runs a file on an emulated Arm core, with XNNPACK's kernels for Arm."""

import os
from collections.abc import Sequence

import numpy as np

from dcp_tf.tflite.arm.emulator import Emulator
from dcp_tf.tflite.types import TFLiteFile
from dcp_tf.tflite.verify.runner import Runner

_NAME = "the file"


class ArmRunner:
    """A file on an emulated Arm core, with float inputs and outputs whatever type it computes in.

    Args:
        source: a converted model, or the path of a .tflite file.
        emulator: where it runs.

    Attributes:
        host: the file on this machine.

    Raises:
        UsageError: the file cannot be run.
    """

    def __init__(self, source: TFLiteFile | str | os.PathLike, emulator: Emulator):
        self.host = Runner(source)  # knows the types of inputs and outputs
        self._emulator = emulator
        emulator.load(_NAME, source)

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs the file on every sample; see `Runner.predict`.

        Raises:
            UsageError: the images do not fit the inputs.
            RunError: a kernel failed, or the emulator died.
        """
        return self.host.decoded(self._emulator.run(_NAME, self.host.encoded(images)))

    def difference(self, images: np.ndarray | Sequence[np.ndarray]) -> float:
        """The largest absolute difference to the outputs that this machine's kernels compute."""
        return self.host.difference(self.predict(images), images)
