"""Runs a file piece by piece on several samples, so that what follows a piece can still be changed."""

from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from dcp_tf.errors import RunError
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema.subgraph import Cutter
from dcp_tf.tflite.types import Quantization, TFLiteFile
from dcp_tf.tflite.verify.runner import Runner


class Stepper:
    """A file that is run from one operation to another; constants of `cutter.model` may change in between.

    Args:
        content: of the file.
        inputs: one array (N, ...) of floats for each input, in the order of the file's signature.

    Raises:
        UsageError: the file has control flow, or the inputs do not fit.
        RunError: this machine has no kernel for an operation.
    """

    def __init__(self, content: bytes, inputs: Sequence[np.ndarray]):
        self.cutter = Cutter(content)
        runner = Runner(TFLiteFile(content, Quantization.FLOAT32))
        encoded = runner.encoded(inputs[0] if len(inputs) == 1 else inputs)
        self._values = {index: [row[np.newaxis] for row in array] for index, array in encoded.items()}
        self._samples, self._position = len(inputs[0]), 0

    def run(self, stop: int) -> dict[int, list[np.ndarray]]:
        """Runs the operations from where it stands to before `stop`. It stays there, so that they can be run again.

        Returns:
            What later operations or the file's outputs read of them: by the number of the tensor, a value per sample.

        Raises:
            RunError: a kernel failed.
        """
        content, read, written = self.cutter.between(self._position, stop)
        values: dict[int, list[np.ndarray]] = {tensor: [] for tensor in written}
        try:
            with OutputCapture():
                interpreter = Interpreter(model_content=content, num_threads=1)
                interpreter.allocate_tensors()
            inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
            for sample in range(self._samples):
                for detail, tensor in zip(inputs, read, strict=True):
                    interpreter.set_tensor(detail["index"], self._values[tensor][sample])
                interpreter.invoke()
                for detail, tensor in zip(outputs, written, strict=True):
                    values[tensor].append(interpreter.get_tensor(detail["index"]))
        except (RuntimeError, ValueError) as error:
            raise RunError(f"operations {self._position} to {stop - 1} of the file cannot be run: {error}") from error
        return values

    def keep(self, stop: int, values: dict[int, list[np.ndarray]]) -> None:
        """Moves on to operation `stop`, with what `run` returned."""
        later = self.cutter.read_from(stop)
        self._values = {tensor: rows for tensor, rows in (self._values | values).items() if tensor in later}
        self._position = stop
