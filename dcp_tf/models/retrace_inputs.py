"""Symbolic inputs for a model that is retraced, and numbers to compare two models on."""

import inspect
import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from dcp_tf.errors import UsageError, first_line
from dcp_tf.models.functional import check_input

_OPEN_SIZE = 64  # of an axis that is left open, in the comparison


def inputs_of(model: keras.Model, input_spec: Any) -> Any:
    """New symbolic inputs, nested as `input_spec` is; its forms are those of `to_functional`.

    Raises:
        UsageError: nothing says what the model takes, or it takes text or ragged tensors.
    """
    names = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    if input_spec is None:
        input_spec = _built_with(model)
    parameters, count = arguments(model), 0

    def one(path: tuple, spec: Any) -> keras.KerasTensor:
        nonlocal count
        known = names or (parameters if len(parameters) > 1 else [])
        name = known[count] if count < len(known) else "_".join(map(str, path)) or (parameters or ["inputs"])[0]
        count += 1
        shape, dtype = _shape_and_dtype(spec)
        try:
            return keras.Input(shape, dtype=dtype, name=name)
        except (ValueError, TypeError) as error:
            raise UsageError(f"input_spec has {spec!r:.80}: {first_line(error)}") from error

    return _nested(input_spec, one)


def _nested(spec: Any, one: Any, path: tuple = ()) -> Any:
    if isinstance(spec, dict):
        return {key: _nested(part, one, (*path, key)) for key, part in spec.items()}
    if isinstance(spec, (list, tuple)) and not _is_shape(spec):
        return type(spec)(_nested(part, one, (*path, f"input_{number}")) for number, part in enumerate(spec))
    return one(path, spec)


def _is_shape(spec: Any) -> bool:
    return isinstance(spec, (list, tuple)) and all(size is None or isinstance(size, numbers.Integral) for size in spec)


def _shape_and_dtype(spec: Any) -> tuple[tuple, str]:
    check_input(spec)
    if _is_shape(spec):
        return tuple(spec), "float32"
    if getattr(spec, "shape", None) is None:
        raise UsageError(
            f"input_spec must be a shape such as (224, 224, 3), a keras.Input or a list or dict of these, "
            f"received {spec!r:.80}"
        )
    return tuple(spec.shape)[1:], keras.backend.standardize_dtype(spec.dtype or "float32")


class UnknownInputs(UsageError):
    """A model does not tell the shapes that its `call` takes."""


def arguments(model: keras.Model) -> list[str]:
    """The names of the arguments without a default that `call` takes."""
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    return [name for name in names if name not in ("training", "mask")]


def _built_with(model: keras.Model) -> Any:
    """The shapes that the model was built with, without their batch axis."""
    shapes = list((getattr(model, "_build_shapes_dict", None) or {}).values())

    def without_batch(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {key: without_batch(part) for key, part in shape.items()}
        return tuple(shape[1:]) if _is_shape(shape) else [without_batch(part) for part in shape]

    if len(arguments(model)) > max(len(shapes), 1):
        raise UsageError(
            f"call of {type(model).__qualname__} takes {', '.join(arguments(model))}: to_functional(model, input_spec) "
            "takes a list of their shapes"
        )
    if not shapes or any(shape is None for shape in shapes):
        raise UnknownInputs(
            f"{type(model).__qualname__} was never called, so its inputs are unknown: to_functional(model, input_spec) "
            "takes their shape, such as (224, 224, 3), or a dict or list of shapes"
        )
    return without_batch(shapes[0]) if len(shapes) == 1 else [without_batch(shape) for shape in shapes]


def accepts(layer: keras.Layer, argument: str) -> bool:
    """Whether the `call` of a layer has an argument of this name."""
    return argument in inspect.signature(layer.call).parameters


def example(tensor: keras.KerasTensor, seed: int = 0) -> Any:
    """Two images, or whatever a symbolic input stands for."""
    rng = np.random.default_rng(seed)
    shape = (2, *(size or _OPEN_SIZE for size in tensor.shape[1:]))
    if keras.backend.is_float_dtype(tensor.dtype):
        return keras.ops.convert_to_tensor(rng.uniform(size=shape), dtype=tensor.dtype)
    return keras.ops.convert_to_tensor(rng.integers(0, 2, shape), dtype=tensor.dtype)


def example_outputs(layer: keras.Layer, args: tuple, kwargs: dict) -> list[np.ndarray] | Exception:
    """The outputs of a layer in inference as float64, or the error that it raises."""
    try:
        outputs = tree.flatten(_Inference(lambda: layer(*args, **kwargs))(training=False))
        return [keras.ops.convert_to_numpy(output).astype(np.float64) for output in outputs]
    except Exception as error:  # of the user's own code
        return error


class _Inference(keras.layers.Layer):
    """Runs a function as part of a model in inference: a Resizing layer alone turns training on for those after it."""

    def __init__(self, function: Callable[[], Any]):
        super().__init__()
        self._function = function

    def call(self, training: bool | None = None) -> Any:
        return self._function()
