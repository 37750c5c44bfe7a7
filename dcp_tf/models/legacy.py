"""Keras 2 models (tf_keras, tf.keras up to TensorFlow 2.15) and their files, converted to Keras 3."""

import inspect
import json
import pathlib
import re
import zipfile
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.models.legacy_layers import can_convert, convert_layer, copy_weights, valid_name
from dcp_tf.models.legacy_operations import OPERATIONS

# Largest difference of the outputs, relative to the largest output.
_TOLERANCE = 1e-5
# What a size that the model leaves open becomes in the comparison: the first one that the model takes.
_TRIAL_SIZES = (32, 64, 128, 224)


def from_tf_keras(model) -> keras.Model:
    """Converts a Keras 2 model to Keras 3 and makes sure that the outputs on random input are equal.

    Names, weights, nested models, shared layers, regularisers, initialisers and frozen layers are kept; how the model
    was compiled is not.

    Args:
        model: a functional or Sequential tf_keras model with known input shapes.

    Returns:
        A Keras 3 model of the same kind.

    Raises:
        UsageError: it is no such model, it holds something that cannot be converted (all of it is named), or the
            outputs differ.
    """
    import tf_keras  # takes seconds, and few need it

    if not isinstance(model, tf_keras.Model):
        raise UsageError(f"expected a tf_keras model, received {type(model).__module__}.{type(model).__qualname__}")
    unknown = _find_unknown(model)
    if unknown:
        raise UsageError(f"the Keras 2 model {model.name!r} cannot be converted to Keras 3: {_list(unknown)}")
    converted = _Converter().model(model)
    _check_outputs(model, converted)
    return converted


def load_legacy(path: pathlib.Path) -> keras.Model:
    """Loads a `.h5` or `.keras` file that Keras 2 saved, as a Keras 3 model.

    Code in the file (Lambda layers) is not run.

    Raises:
        UsageError: something in it cannot be converted; all of it is named.
        Exception: of any kind that tf_keras raises, where it cannot load the file.
    """
    import tf_keras

    unknown = _find_unknown_in_config(_read_config(path))
    if unknown:
        raise UsageError(f"{path} was saved by Keras 2 and cannot be converted to Keras 3: {_list(unknown)}")
    return from_tf_keras(tf_keras.models.load_model(path, compile=False))


def _list(unknown: list[str]) -> str:
    more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
    return f"no counterpart for {', '.join(unknown[:8])}{more}; write them with Keras layers in Keras 2 first"


# What cannot be converted


def _read_config(path: pathlib.Path) -> Any:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"]) if "model_config" in file.attrs else {}


def _find_unknown_in_config(config: Any) -> list[str]:
    """Looks for what must not even be loaded: code, and calls of TensorFlow functions outside the table."""
    if isinstance(config, list):
        return [name for each in config for name in _find_unknown_in_config(each)]
    if not isinstance(config, dict):
        return []
    kind, inner = config.get("class_name"), config.get("config")
    own = inner if isinstance(inner, dict) else {}
    if kind == "Lambda":
        return [f"{own.get('name')!r} (Lambda)"]
    # tf_keras would import the module that the file names.
    if str(config.get("module") or "keras").partition(".")[0] not in ("keras", "tf_keras", "builtins"):
        return [f"{own.get('name')!r} ({kind})"]
    if kind == "__lambda__":
        return ["a lambda function"]
    if kind == "function" and inner not in dir(keras.activations):
        return [f"the function {inner!r}"]
    if kind in ("TFOpLambda", "SlicingOpLambda") and own.get("function") not in OPERATIONS:
        return [f"{own.get('name')!r} (tf.{own.get('function')})"]
    return [name for each in config.values() for name in _find_unknown_in_config(each)]


def _find_unknown(model) -> list[str]:
    import tf_keras

    if not isinstance(model, tf_keras.Sequential) and not hasattr(model, "_nodes_by_depth"):
        return [f"{model.name!r} (subclassed model {type(model).__qualname__})"]
    unknown = []
    for layer in model.layers:
        kind = type(layer).__name__
        if isinstance(layer, tf_keras.Model):
            unknown += _find_unknown(layer)
        elif kind in ("TFOpLambda", "SlicingOpLambda"):
            if layer.symbol not in OPERATIONS:
                unknown.append(f"{layer.name!r} (tf.{layer.symbol or layer.function.__name__})")
        elif not can_convert(layer):
            unknown.append(f"{layer.name!r} ({kind})")
    return unknown


# Conversion


class _Converter:
    """Converts one model with all of its nested models. A layer that is shared stays shared."""

    def __init__(self):
        self._done: dict[int, keras.layers.Layer] = {}

    def model(self, model) -> keras.Model:
        import tf_keras

        new = self._sequential(model) if isinstance(model, tf_keras.Sequential) else self._functional(model)
        if not model.trainable:
            new.trainable = False
        return new

    def _functional(self, model) -> keras.Model:
        tensors = {}
        for old in tf.nest.flatten(model._nested_inputs):
            tensors[id(old)] = keras.Input(batch_shape=old.shape, dtype=old.dtype.name, name=_input_name(old))
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._call(node, tensors)
        inputs, outputs = (
            tf.nest.map_structure(lambda old: tensors[id(old)], structure)
            for structure in (model._nested_inputs, model._nested_outputs)
        )
        return keras.Model(inputs, outputs, name=valid_name(model.name))

    def _sequential(self, model) -> keras.Sequential:
        if not model.inputs:
            raise UsageError(
                f"the Sequential model {model.name!r} has no input shape yet; call it once before it is converted"
            )
        given = model.inputs[0]
        batch_shape, dtype = tuple(given.shape), given.dtype.name
        if not model._has_explicit_input_shape:  # taken from the first array it was called with
            batch_shape = (None, *batch_shape[1:])
            dtype = keras.config.floatx() if given.dtype.is_floating else dtype
        start = keras.Input(batch_shape=batch_shape, dtype=dtype, name=_input_name(given))
        converted = [self._layer(layer) for layer in model.layers]
        new = keras.Sequential([start, *converted], name=valid_name(model.name))
        for old, layer in zip(model.layers, converted, strict=True):
            self._copy_weights(old, layer)
        return new

    def _call(self, node, tensors: dict[int, Any]) -> None:
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors.get(id(value), _constant(value)), (node.call_args, node.call_kwargs)
        )
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        layer = node.layer
        if hasattr(layer, "symbol"):
            outputs = _call_operation(layer, args, kwargs)
        else:
            new = self._layer(layer)
            try:
                outputs = new(*args, **kwargs)
            except (ValueError, TypeError) as error:
                raise _cannot(layer, error) from error
            self._copy_weights(layer, new)
        for old, new_tensor in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            tensors[id(old)] = new_tensor

    def _layer(self, layer) -> keras.layers.Layer:
        import tf_keras

        if id(layer) not in self._done:
            try:
                is_model = isinstance(layer, tf_keras.Model)
                self._done[id(layer)] = self.model(layer) if is_model else convert_layer(layer)
            except (ValueError, TypeError) as error:
                raise error if isinstance(error, UsageError) else _cannot(layer, error) from error
        return self._done[id(layer)]

    def _copy_weights(self, old, new: keras.layers.Layer) -> None:
        if isinstance(new, keras.Model):
            return  # its layers have theirs
        try:
            copy_weights(old, new)
        except ValueError as error:
            raise _cannot(old, error) from error


def _cannot(layer, error: Exception) -> UsageError:
    # Keras puts the whole config before the reason.
    reason = " ".join(str(error).rpartition("Exception encountered: ")[2].split())[:300]
    return UsageError(f"the Keras 2 layer {layer.name!r} ({type(layer).__name__}) cannot be converted: {reason}")


def _input_name(tensor) -> str:
    return valid_name(re.sub(r":\d+$", "", tensor.name))


def _constant(value: Any) -> Any:
    """Tensors among the arguments become plain numbers or arrays, which a Keras 3 file can hold."""
    if isinstance(value, tf.Tensor | tf.Variable):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.ndim == 0 else value
    return value


def _call_operation(layer, args: tuple, kwargs: dict[str, Any]):
    function = OPERATIONS[layer.symbol]
    known = list(inspect.signature(function).parameters)
    # `name` changes nothing, nor does what is not given or switched off.
    extra = [value for key, value in kwargs.items() if key not in ("name", *known)] + list(args[len(known) :])
    if any(value is not None and value is not False for value in extra):
        raise _cannot(layer, ValueError(f"it uses more of tf.{layer.symbol} than {', '.join(known)}"))
    given = {key: value for key, value in kwargs.items() if key in known}
    try:
        outputs = function(*args[: len(known)], **given)
    except (ValueError, TypeError) as error:
        raise _cannot(layer, error) from error
    _name_operations(outputs, (args, given), valid_name(layer.name))
    return outputs


def _name_operations(outputs: Any, inputs: Any, name: str) -> None:
    """Names the operations from `inputs` to `outputs` after their layer: Keras' own names may be those of layers."""
    seen = {id(tensor) for tensor in tf.nest.flatten(inputs)}
    pending = tf.nest.flatten(outputs)
    count = 0
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen:
            continue
        operation, node_index, _ = tensor._keras_history
        operation.name = f"{name}_{count}" if count else name
        count += 1
        node = operation._inbound_nodes[node_index]
        seen.update(id(output) for output in node.output_tensors)
        pending.extend(node.input_tensors)


# Comparison


def _check_outputs(old, new: keras.Model) -> None:
    inputs, expected = _run_on_random_input(old)
    outputs = new(inputs, training=False)
    pairs = zip(tf.nest.flatten(expected), tf.nest.flatten(outputs), strict=True)
    for number, (a, b) in enumerate(pairs):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
        difference = _largest_difference(a, b) if a.shape == b.shape else np.inf
        if not difference <= _TOLERANCE * max(largest, 1e-12):
            raise UsageError(
                f"the Keras 2 model {old.name!r} computes something else in Keras 3: its output {number} of up to "
                f"{largest:.2g} differs by up to {difference:.2g}; build it in Keras 3 and load its weights"
            )


def _largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    equal = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities too
    return np.abs(a[~equal] - b[~equal]).max(initial=0.0)


def _run_on_random_input(model):
    random = np.random.default_rng(0)
    error = None
    for size in _TRIAL_SIZES:
        inputs = tf.nest.map_structure(lambda t, size=size: _random_like(t, size, random), model._nested_inputs)
        try:
            return inputs, model(inputs, training=False)
        except (ValueError, tf.errors.OpError) as raised:
            error = raised
    reason = " ".join(str(error).split())[:300]
    raise UsageError(f"the Keras 2 model {model.name!r} cannot be compared with its conversion: {reason}") from error


def _random_like(tensor, size: int, random: np.random.Generator) -> tf.Tensor:
    batch, *lengths = tensor.shape
    shape = [batch or 2, *(length or size for length in lengths)]
    if not tensor.dtype.is_floating:
        return tf.cast(random.integers(0, 2, shape), tensor.dtype)
    values = random.uniform(-1.0, 1.0, shape)
    values[0] = np.abs(values[0])  # one example that roots and logarithms can take
    return tf.cast(values, tensor.dtype)
