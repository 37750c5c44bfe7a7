"""Which pixel range a model expects, inferred from the operations before its first layer with a kernel."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from dcp_tf.models.functional import functional_graph, nested_arguments, ordered_nodes

_LARGEST_UNIT = 0.1  # a model that multiplies by less than this was made for 0..255, not for 0..1
_LARGEST_UNIT_MEAN = 1.5  # pixels of 0..1 or -1..1 have no mean beyond this
_PIXELS = (-1.0, 260.0)  # range of the mean of pixels of 0..255; other inputs are not pixels
_LEVELS = (0.0, 127.5, 255.0)
_OPEN_SIZE = 256  # of an image whose size the model leaves open
_NOT_AFFINE = 0.01  # of the span


@dataclasses.dataclass(frozen=True)
class _Reading:
    """How a layer receives a pixel: `multiplier * (pixel - mean)`."""

    layer: str
    multiplier: float
    mean: float

    @property
    def is_raw(self) -> bool:
        """Whether this makes sense only for pixels of 0..255."""
        is_for_pixels = _PIXELS[0] <= self.mean <= _PIXELS[1]
        return is_for_pixels and (self.multiplier < _LARGEST_UNIT or self.mean > _LARGEST_UNIT_MEAN)

    def __str__(self) -> str:
        divisor = 1 / self.multiplier
        shift = f"{abs(self.mean):.4g}"
        pixel = "pixel" if abs(self.mean) < 0.05 else f"pixel {'-' if self.mean > 0 else '+'} {shift}"
        if abs(divisor - 1) < 1e-3:
            return f"{self.layer} reads {pixel}"
        return f"{self.layer} reads {f'({pixel})' if ' ' in pixel else pixel} / {divisor:.4g}"


def takes_raw_pixels(model: keras.Model, number: int = 0) -> str | None:
    """The reason why a model needs pixels of 0..255; None if there is none.

    A reason is an integer input, or what the model does to its images before the first layer with a kernel. Black, gray
    and white images are sent through these operations in inference mode, whatever they are: layers, `keras.ops`, nested
    models, augmentation (which does nothing then). If the first kernel reads an affine map of the pixels, the map's
    multiplier and zero give the range. So do the statistics of a BatchNormalization before it.

    Args:
        model: functional or Sequential.
        number: of the input that is asked about.
    """
    tensor = model.inputs[number]
    if np.issubdtype(np.dtype(keras.backend.standardize_dtype(tensor.dtype)), np.integer):
        return f"the model takes {tensor.dtype}"
    readings, first = _readings(model, number)
    raw = [reading for reading in readings if reading.is_raw]
    return f"the model begins with {first}: {raw[0]}" if raw else None


def _readings(model: keras.Model, number: int) -> tuple[list[_Reading], str | None]:
    """The affine map of the pixels that each layer after the preprocessing receives, where it is one.

    Also returns the class of the first operation that changes values.
    """
    batch, *sizes = model.inputs[number].shape
    shape = (batch or 1, *(size or _OPEN_SIZE for size in sizes))
    parts = []
    for level in _LEVELS:
        preprocessing = _Preprocessing()
        image = keras.ops.full(shape, level, dtype=model.inputs[number].dtype)
        try:
            preprocessing.run(model, [image if n == number else None for n in range(len(model.inputs))])
        except (ValueError, TypeError, tf.errors.OpError):  # it takes other sizes than this
            return [], None
        parts.append(preprocessing.seen)
    readings = (
        _reading(black[0], *(part[1] for part in (black, gray, white)))
        for black, gray, white in zip(*parts, strict=True)
    )
    return [reading for reading in readings if reading is not None], preprocessing.first


def _reading(layer: str, black: np.ndarray, gray: np.ndarray, white: np.ndarray) -> _Reading | None:
    """The affine map behind three levels; None if the values do not depend on the pixels, or not in an affine way."""
    span = white - black
    changes = np.abs(span) > 1e-6 * max(1.0, float(np.abs(black).max(initial=0)))
    if not changes.any():
        return None
    bend = np.abs(gray - (black + white) / 2)[changes] / np.abs(span[changes])
    if np.median(bend) > _NOT_AFFINE:
        return None
    multipliers = span[changes] / (_LEVELS[-1] - _LEVELS[0])
    return _Reading(layer, float(np.median(np.abs(multipliers))), float(np.median(-black[changes] / multipliers)))


class _Preprocessing:
    """Sends an image through the operations before the first kernels.

    Attributes:
        seen: for each tensor that a layer with a kernel reads, that layer's name and the values.
        first: the class of the first operation that changes values, where there is one.
    """

    def __init__(self):
        self.seen: list[tuple[str, np.ndarray]] = []
        self.first: str | None = None

    def run(self, model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of a functional model; None for those behind a kernel."""
        graph = getattr(model, "_functional", None) or model
        known = {id(tensor): value for tensor, value in zip(graph.inputs, inputs, strict=True) if value is not None}
        for node in ordered_nodes(graph):
            arguments = node.arguments.keras_tensors
            values = [known[id(tensor)] for tensor in arguments if id(tensor) in known]
            if not values:
                continue
            is_nested = functional_graph(node.operation) is not None
            if not is_nested and not (len(values) == len(arguments) and _is_preprocessing(node.operation)):
                self.seen += [(node.operation.name, _array(value)) for value in values]
                continue
            outputs = self._call(node, known)
            if self.first is None and not is_nested and _differ(values[0], outputs[0]):
                self.first = type(node.operation).__name__
            known |= {id(x): y for x, y in zip(node.outputs, outputs, strict=True) if y is not None}
        return [known.get(id(tensor)) for tensor in graph.outputs]

    def _call(self, node: Any, known: dict[int, Any]) -> list[Any]:
        operation = node.operation
        if (inner := functional_graph(operation)) is not None:
            return self.run(operation, [known.get(id(tensor)) for tensor in nested_arguments(node, inner)])
        args, kwargs = node.arguments.fill_in(known)
        if isinstance(operation, keras.layers.BatchNormalization):
            return [_standardized(operation, args[0] if args else kwargs["inputs"])]
        if "training" in inspect.signature(operation.call).parameters:
            kwargs = {**kwargs, "training": False}
        return tree.flatten(operation(*args, **kwargs))


def _is_preprocessing(operation: Any) -> bool:
    """Whether an operation has no weights except statistics of its inputs."""
    if not isinstance(operation, keras.layers.Layer) or isinstance(operation, keras.layers.BatchNormalization):
        return True
    statistics = {
        id(weight)
        for layer in operation._flatten_layers()
        if isinstance(layer, keras.layers.Normalization)
        for weight in layer.weights
    }
    return all(id(weight) in statistics for weight in operation.weights)


def _standardized(layer: keras.layers.BatchNormalization, inputs: Any) -> Any:
    """The inputs of a BatchNormalization after its statistics, before its gamma and beta."""
    shape = [1] * len(inputs.shape)
    shape[layer.axis] = -1
    mean, variance = (keras.ops.reshape(x, shape) for x in (layer.moving_mean, layer.moving_variance))
    return (inputs - mean) / keras.ops.sqrt(variance + layer.epsilon)


def _differ(before: Any, after: Any) -> bool:
    """Whether values changed, not only their positions."""
    return abs(float(keras.ops.max(before)) - float(keras.ops.max(after))) > 1e-3


def _array(value: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(value).astype(np.float64)
