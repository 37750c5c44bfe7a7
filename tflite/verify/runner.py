"""Runs TFLite files on arrays."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema.zero_scale_outputs import explain
from dcp_tf.tflite.types import TFLiteFile, read_content, source_name


@dataclasses.dataclass(frozen=True)
class ComputedTensor:
    """A tensor that an operation of a file writes.

    Attributes:
        index: number of the tensor in the file.
        name: its name in the file, or "input N" for the quantized input N and "output N" for an output.
        operation: the operation that writes it, such as CONV_2D.
        shape: its shape at batch size 1.
    """

    index: int
    name: str
    operation: str
    shape: tuple[int, ...]


class Runner:
    """An interpreter for a file, with float inputs and outputs whatever type the file computes in.

    Samples run one by one, as on the device. Resizing the file to larger batches gains little and fails in
    XNNPACK on files with a RESHAPE (docs/decisions/055).

    Args:
        source: a converted model, or the path of a .tflite file.
        threads: threads of the kernels.
        keep_tensors: whether intermediate tensors can be read, which takes memory and time.

    Raises:
        UsageError: there is no such file, or it is not a TFLite model.
        RunError: this machine has no kernel for an operation of the file.
    """

    def __init__(self, source: TFLiteFile | str | os.PathLike, threads: int = 1, keep_tensors: bool = False):
        if threads < 1:
            raise UsageError(f"threads must be at least 1. Received: {threads}")
        content = read_content(source)
        try:
            with OutputCapture():  # the interpreter announces its delegate
                self._interpreter = Interpreter(
                    model_content=content, num_threads=threads, experimental_preserve_all_tensors=keep_tensors
                )
                self._interpreter.allocate_tensors()
        except ValueError as error:
            raise UsageError(f"{source_name(source)} cannot be read: {error}; write it again") from error
        except RuntimeError as error:
            raise RunError(f"{source_name(source)} cannot be run here: {explain(content, str(error))}") from error
        (self._input_names, self._inputs), (self._output_names, self._outputs) = _signature_details(self._interpreter)
        for detail in self._inputs:
            if len(detail["shape"]) == 0 or detail["shape"][0] != 1:
                raise UsageError(
                    f"only files with batch size 1 can be run. Received: {source_name(source)} with inputs of shape "
                    f"{tuple(int(size) for size in detail['shape'])}"
                )

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each input, with the batch axis of size 1."""
        return [tuple(int(size) for size in detail["shape"]) for detail in self._inputs]

    def places(self) -> tuple[list[int], list[int]]:
        """The indices of the input and of the output tensors, in the file's own order."""
        sides = (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        inputs, outputs = ([int(detail["index"]) for detail in details] for details in sides)
        return inputs, outputs

    def difference(self, outputs: Any, images: np.ndarray | Sequence[np.ndarray]) -> float:
        """The largest absolute difference to what `predict` of another runner of this file gave for the images."""
        here, there = (side if isinstance(side, list) else [side] for side in (self.predict(images), outputs))
        return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(here, there, strict=True))

    def encoded(self, images: np.ndarray | Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """The inputs by the index of their tensor, (N, ...), in the types of the file.

        Raises:
            UsageError: the images do not fit the inputs.
        """
        details = zip(self._inputs, self._check(images), strict=True)
        return {int(detail["index"]): _encode(array, detail) for detail, array in details}

    def decoded(self, outputs: Mapping[int, np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """What `predict` returns, from the outputs by the index of their tensor, (N, ...), in the types of the file."""
        results = [_decode(outputs[int(detail["index"])], detail) for detail in self._outputs]
        return results[0] if len(results) == 1 else results

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """The shape of each output, with the batch axis of size 1."""
        return [tuple(int(size) for size in detail["shape"]) for detail in self._outputs]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """What the file calls its inputs and its outputs: by its signature, else by their tensors."""
        return [*self._input_names], [*self._output_names]

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Runs the file on every sample.

        Args:
            images: floats (N, ...), or one such array for each input of the file.

        Returns:
            Floats (N, ...), or a list with one such array for each output if there are several.

        Raises:
            UsageError: the images do not fit the inputs.
            RunError: a kernel failed.
        """
        arrays = self._check(images)
        count = len(arrays[0])
        results = [np.empty((count, *detail["shape"][1:]), np.float32) for detail in self._outputs]
        for row in range(count):
            self._invoke(arrays, row)
            for detail, result in zip(self._outputs, results, strict=True):
                result[row] = _decode(self._interpreter.get_tensor(detail["index"]), detail)[0]
        return results[0] if len(results) == 1 else results

    def tensors(self) -> list[ComputedTensor]:
        """The tensors that depend on the inputs, in execution order; for a runner that keeps tensors."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        outputs = {detail["index"]: number for number, detail in enumerate(self._outputs)}
        inputs = {detail["index"]: number for number, detail in enumerate(self._inputs)}
        computed: dict[int, ComputedTensor] = {}
        for operation in self._interpreter._get_ops_details():
            if not any(int(index) in computed or int(index) in inputs for index in operation["inputs"]):
                continue  # it unpacks a weight
            for index in map(int, operation["outputs"]):
                if operation["op_name"] == "DELEGATE" or index in computed:
                    continue  # a delegate computes the operations listed before it
                detail = details[index]
                name = detail["name"]
                if operation["op_name"] == "QUANTIZE" and int(operation["inputs"][0]) in inputs:
                    name = f"input {inputs[int(operation['inputs'][0])]}"
                elif index in outputs:
                    name = f"output {outputs[index]}"
                shape = tuple(int(size) for size in detail["shape"])
                computed[index] = ComputedTensor(index, name, operation["op_name"], shape)
        return list(computed.values())

    def tensor_values(self, indices: Sequence[int], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the file on every sample and returns intermediate tensors as floats, each (N, ...)."""
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        arrays = self._check(images[0] if len(self._inputs) == 1 else images)
        rows = []
        for row in range(len(arrays[0])):
            self._invoke(arrays, row)
            rows.append([_decode(self._interpreter.get_tensor(index), details[index]) for index in indices])
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def _invoke(self, arrays: Sequence[np.ndarray], row: int) -> None:
        for detail, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], _encode(array[row : row + 1], detail))
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise RunError(f"the TFLite file failed while running: {error}") from error

    def _check(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [np.asarray(images)] if len(self._inputs) == 1 else [np.asarray(part) for part in images]
        if len(arrays) != len(self._inputs):
            raise UsageError(f"the file has {len(self._inputs)} inputs. Received: {len(arrays)} arrays")
        for detail, array in zip(self._inputs, arrays, strict=True):
            expected = tuple(int(size) for size in detail["shape"][1:])
            if array.shape[1:] != expected or len(array) != len(arrays[0]):
                raise UsageError(
                    f"the file takes samples of shape {expected}, as many for each input. "
                    f"Received an array of shape {array.shape}"
                )
        return arrays


def _signature_details(interpreter: Interpreter) -> list[tuple[list[str], list[dict]]]:
    """Names and details of inputs and of outputs, in the order of the names in the file's signature.

    `convert` numbers these. A file without a signature has its own order.

    The converter shuffles several inputs, so their order in the file says nothing about the model.
    """
    if len(interpreter.get_signature_list()) != 1:
        unsigned = (interpreter.get_input_details(), interpreter.get_output_details())
        return [([detail["name"] for detail in details], list(details)) for details in unsigned]
    signature = interpreter.get_signature_runner()
    sides = (signature.get_input_details(), signature.get_output_details())
    return [(sorted(details), [details[name] for name in sorted(details)]) for details in sides]


def _encode(values: np.ndarray, detail: dict) -> np.ndarray:
    """Floats in the type of the input: q = round(x / scale) + zero point, clipped to the type."""
    scale, zero_point = detail["quantization"]
    if scale == 0:
        return values.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _decode(values: np.ndarray, detail: dict) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    return values.astype(np.float32) if scale == 0 else (values.astype(np.float32) - zero_point) * np.float32(scale)
