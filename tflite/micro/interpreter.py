"""Runs a file with TFLite Micro's interpreter and reference kernels, on this machine."""

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema.memory_plan import memory_plan
from dcp_tf.tflite.types import TFLiteFile, read_content, source_name
from dcp_tf.tflite.verify.runner import Runner

_SPARE = 2**20  # bytes of the arena beside the planned activations and the size of the file, which are no limit here


def require_micro() -> Any:
    """The runtime of the package tflite-micro.

    Raises:
        UsageError: it is not installed.
    """
    try:
        from tflite_micro.python.tflite_micro import runtime
    except ImportError as error:
        raise UsageError(
            "running files for microcontrollers needs tflite-micro, which is not installed: pip install 'dcp_tf[micro]'"
        ) from error
    return runtime


class MicroRunner:
    """A file in TFLite Micro's interpreter, with float inputs and outputs whatever type it computes in.

    Args:
        source: a converted model, or the path of a .tflite file.

    Attributes:
        host: the file in the interpreter that phones have.
        activations: bytes of the arena for activations and kernels' scratch memory.
        persistent: bytes of the arena for the interpreter's own structures.

    Raises:
        UsageError: tflite-micro is not installed, or the file cannot be read.
        RunError: TFLite Micro lacks an operation of the file.
    """

    def __init__(self, source: TFLiteFile | str | os.PathLike):
        runtime = require_micro()
        self.host = Runner(source)  # knows the types of inputs and outputs
        content = read_content(source)
        arena = 2 * memory_plan(source).arena + 2 * len(content) + _SPARE
        capture = OutputCapture()
        try:
            with capture:
                self._interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena)
                self._interpreter.print_allocations()
        except RuntimeError as error:
            missing = re.search(r"builtin opcode '(\w+)'", capture.tail(50))
            reason = f"it has no operation {missing[1]}" if missing else f"{error}; {capture.tail(3)}"
            raise RunError(f"TFLite Micro cannot run {source_name(source)}: {reason}") from error
        printed = capture.tail(100)
        sizes = {name: re.search(rf"Arena allocation {name} (\d+) bytes", printed) for name in ("head", "tail")}
        if None in sizes.values():
            raise RunError(f"TFLite Micro does not say what memory {source_name(source)} takes: {capture.tail(3)}")
        self.activations, self.persistent = (int(size[1]) for size in sizes.values())

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs the file on every sample; see `Runner.predict`.

        Raises:
            UsageError: the images do not fit the inputs.
            RunError: a kernel failed.
        """
        encoded = self.host.encoded(images)
        places, outputs = self.host.places()
        results: dict[int, list] = {index: [] for index in outputs}
        for row in range(len(next(iter(encoded.values())))):
            for place, index in enumerate(places):
                self._interpreter.set_input(encoded[index][row : row + 1], place)
            try:
                with OutputCapture():
                    self._interpreter.invoke()
            except RuntimeError as error:
                raise RunError(f"TFLite Micro failed while running: {error}") from error
            for place, index in enumerate(outputs):
                results[index].append(self._interpreter.get_output(place))
        return self.host.decoded({index: np.concatenate(rows) for index, rows in results.items()})
