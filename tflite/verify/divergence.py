"""Finds where a file diverges from its Keras model by comparing intermediate tensors."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.tflite.conversion.keras_inference import check_model, infer
from dcp_tf.tflite.types import LIMITS, Quantization, TFLiteFile
from dcp_tf.tflite.verify.output_difference import mean_error
from dcp_tf.tflite.verify.runner import Runner
from dcp_tf.tflite.verify.samples import samples_of

SAMPLES = 8  # any image shows the fault of a layer


@dataclasses.dataclass(frozen=True)
class LayerError:
    """The difference between a tensor of a file and the same tensor of the Keras model.

    Attributes:
        tensor: its name in the file, up to the first merged operation.
        operation: the operation that computes it, such as CONV_2D.
        layer: path of the Keras layer, such as "block1_conv" or "backbone/stem"; "input" for the quantized images.
        error: mean absolute difference relative to the spread of the Keras tensor.
    """

    tensor: str
    operation: str
    layer: str
    error: float

    def __str__(self) -> str:
        return f"layer {self.layer!r} ({self.operation}), mean error {self.error:.2g} of its spread"


def first_divergence(
    file: TFLiteFile | str | os.PathLike, model: Any, images: Any, limit: float | None = None
) -> LayerError | None:
    """The first tensor, in execution order, that differs from Keras by more than its mode allows.

    Args:
        file: the converted model, or the path of its file.
        model: the Keras model that it was converted from.
        images: inputs (N, ...) as the model takes them, or one such array for each input; the first few are used.
        limit: largest mean error relative to a tensor's spread; by default that of the file's mode
            (`types.LIMITS`), and that of float32 for a path.

    Returns:
        The first tensor beyond the limit, or None if all compared tensors are within it.

    Raises:
        UsageError: the images do not fit.
        RunError: a kernel failed.
    """
    if limit is None:
        mode = file.quantization if isinstance(file, TFLiteFile) else Quantization.FLOAT32
        limit = LIMITS[mode.value].near
    errors = compare_layers(file, model, images)
    # A NaN is beyond any limit.
    return next((layer for layer in errors if not layer.error <= limit), None)


def compare_layers(file: TFLiteFile | str | os.PathLike, model: Any, images: Any) -> list[LayerError]:
    """Compares all tensors of a file that its Keras model has too, in execution order.

    The converter names a tensor after the operations of the model that it merged, so the last of them gives the values
    to compare with. Tensors that the converter added, or whose axes it moved, are left out.

    Args:
        file: as for `first_divergence`.
        model: as for `first_divergence`.
        images: as for `first_divergence`.

    Raises:
        UsageError: the images do not fit.
        RunError: a kernel failed.
    """
    check_model(model)
    arrays = samples_of(images, len(model.inputs)).first(SAMPLES)
    runner = Runner(file, keep_tensors=True)
    reference = _Reference(model, arrays)
    names = ((tensor, reference.find(tensor.name, tensor.shape)) for tensor in runner.tensors())
    pairs = [(tensor, keras_tensor) for tensor, keras_tensor in names if keras_tensor]
    expected = reference.values([keras_tensor for _, keras_tensor in pairs])
    actual = runner.tensor_values([tensor.index for tensor, _ in pairs], arrays)
    return [
        LayerError(
            tensor.name.split(";")[0],
            tensor.operation,
            reference.layer(keras_tensor),
            mean_error(value.reshape(expected_value.shape), expected_value),
        )
        for (tensor, keras_tensor), value, expected_value in zip(pairs, actual, expected, strict=True)
    ]


class _Reference:
    """The Keras model as a graph whose tensors can be fetched by name."""

    def __init__(self, model: Any, arrays: Sequence[np.ndarray]):
        import tensorflow as tf

        self._model = model
        signature = [tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype) for tensor in model.inputs]
        # The only public way to a graph from which any tensor can be fetched. Its names are those that the converter
        # sees: they depend on the layers alone.
        self._wrapped = tf.compat.v1.wrap_function(lambda *inputs: infer(model, list(inputs)), signature)
        self._inputs = self._wrapped.inputs[: len(arrays)]
        self._outputs = [tensor.name for tensor in self._wrapped.outputs]
        self._order = {op.name: number for number, op in enumerate(self._wrapped.graph.get_operations())}
        self._arrays = [array.astype(tensor.dtype) for tensor, array in zip(model.inputs, arrays, strict=True)]

    def find(self, name: str, shape: tuple[int, ...]) -> str | None:
        """The name of the graph's tensor that corresponds to a tensor of the file."""
        if match := re.match(r"input (\d+)$", name):
            return self._inputs[int(match[1])].name
        if match := re.match(r"output (\d+)$", name):
            return self._outputs[int(match[1])]
        candidates = []
        for part in name.split(";"):
            # Equal names are distinguished by digits at their end, with which an operation's own name may end too.
            stripped = re.sub(r"(_float|_int16|\d+)$", "", part)
            operation = next((option for option in (part, stripped) if option in self._order), None)
            if operation is not None:
                tensor = self._wrapped.graph.get_operation_by_name(operation).outputs[0]
                if _significant(tensor.shape) == _significant(shape):
                    candidates.append(operation)
        return f"{max(candidates, key=self._order.get)}:0" if candidates else None

    def values(self, names: list[str]) -> list[np.ndarray]:
        """The values of tensors, each (N, ...)."""
        import tensorflow as tf

        graph = self._wrapped.graph
        unique = list(dict.fromkeys(names))
        fetch = self._wrapped.prune(self._inputs, [graph.get_tensor_by_name(name) for name in unique])
        rows = []
        for row in range(len(self._arrays[0])):
            results = fetch(*(tf.constant(array[row : row + 1]) for array in self._arrays))
            rows.append([np.asarray(result) for result in results])
        by_name = {name: np.concatenate(parts) for name, parts in zip(unique, zip(*rows, strict=True), strict=True)}
        return [by_name[name] for name in names]

    def layer(self, name: str) -> str:
        """The path of the layer that computes a tensor of the graph."""
        if any(tensor.name == name for tensor in self._inputs):
            return "input"
        layer, path = self._model, []
        for scope in name.split("/")[1:-1]:
            inner = {sublayer.name: sublayer for sublayer in getattr(layer, "layers", ())}
            # Keras enters the scope of a layer twice for each call, so the one of the operations is always numbered.
            own = re.sub(r"_\d+$", "", scope)
            layer = inner.get(own if own in inner else scope)
            if layer is None:
                break
            path.append(layer.name)
        return "/".join(path) or name.rpartition("/")[0] or name


def _significant(shape: Any) -> list[int]:
    return [int(size) for size in shape if size != 1]
