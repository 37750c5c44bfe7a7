"""Keras 2 models (tf_keras, tf.keras up to TensorFlow 2.15), converted to Keras 3."""

import collections
import inspect
import itertools
import re
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.models.keras2.comparison import check_outputs
from dcp_tf.models.keras2.functions import ComplexTensor
from dcp_tf.models.keras2.layers import can_convert, convert_layer, inner_layers
from dcp_tf.models.keras2.operations import HINTS, OPERATIONS
from dcp_tf.models.keras2.sizes import compute_sizes
from dcp_tf.models.keras2.weights import copy_weights
from dcp_tf.models.names import valid_name


def from_tf_keras(model) -> keras.Model:
    """Converts a Keras 2 model to Keras 3 and checks that the outputs on random input are equal.

    Names, weights, nested models, shared layers, regularizers, initializers and frozen layers are kept; compile
    settings are not.

    Args:
        model: a functional or Sequential tf_keras model with known input shapes.

    Returns:
        A Keras 3 model of the same kind.

    Raises:
        UsageError: it is not such a model, it holds something that cannot be converted (the error names all of it),
            or the outputs differ.
    """
    import tf_keras  # takes seconds, and few need it

    if not isinstance(model, tf_keras.Model):
        raise UsageError(f"expected a tf_keras model, received {type(model).__module__}.{type(model).__qualname__}")
    unknown = _find_unknown(model)
    if unknown:
        line = f"the Keras 2 model {model.name!r} cannot be converted to Keras 3: {no_counterpart(unknown)}"
        raise UsageError(line, named_settings(unknown))
    converted = _Converter().model(model)
    check_outputs(model, converted)
    return converted


def no_counterpart(missing: Iterable[tuple[str, str | None]]) -> str:
    """One clause that names what cannot be converted, each kind once.

    Args:
        missing: pairs of a kind ("tf.foo", "Lambda") and the name of such a layer, None without a name.
    """
    names = collections.defaultdict(list)
    for kind, name in missing:
        names[kind].append(name)
    entries = [_entry(kind, layers) for kind, layers in names.items()]
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    return f"no counterpart for {', '.join(entries[:8])}{more}; write them with Keras layers in Keras 2 first"


def named_settings(missing: Iterable[tuple[str, str | None]]) -> list[str]:
    """The settings that `no_counterpart` names."""
    return ["allow_lambda"] if "Lambda" in dict(missing) else []


def _entry(kind: str, names: list[str | None]) -> str:
    times = f", {len(names)} times" if len(names) > 1 else ""
    hint = f": {HINTS[kind]}" if kind in HINTS else ""
    return f"{kind}{times}{hint}" if names[0] is None else f"{names[0]!r} ({kind}{times}{hint})"


# What cannot be converted


def _find_unknown(model) -> list[tuple[str, str | None]]:
    import tf_keras

    if not isinstance(model, tf_keras.Sequential) and not hasattr(model, "_nodes_by_depth"):
        return [(f"subclassed model {type(model).__qualname__}", model.name)]
    return [missing for layer in model.layers for missing in _find_unknown_layers(layer)]


def _find_unknown_layers(layer) -> list[tuple[str, str | None]]:
    import tf_keras

    kind = type(layer).__name__
    if isinstance(layer, tf_keras.Model):
        return _find_unknown(layer)
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        is_known = layer.symbol in OPERATIONS
        return [] if is_known else [(f"tf.{layer.symbol or layer.function.__name__}", layer.name)]
    if not can_convert(layer):
        return [(kind, layer.name)]
    return [missing for inner in inner_layers(layer) for missing in _find_unknown_layers(inner)]


# Conversion


class _Converter:
    """Converts one model with all of its nested models. Shared layers stay shared."""

    def __init__(self):
        self._converted: dict[int, keras.layers.Layer] = {}

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
        names = {valid_name(layer.name) for layer in model.layers}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input:
                    self._call(node, tensors, names)
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

    def _call(self, node, tensors: dict[int, Any], names: set[str]) -> None:
        """Makes one call again; `names` are those of operations that are taken."""
        args, kwargs = tf.nest.map_structure(
            lambda value: tensors.get(id(value), _constant(value)), (node.call_args, node.call_kwargs)
        )
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        layer = node.layer
        if hasattr(layer, "symbol"):
            outputs = _call_operation(layer, args, kwargs, names)
        else:
            new = self._layer(layer)
            try:
                args, kwargs = _with_initial_states(new, args, kwargs)
                outputs = new(*args, **kwargs)
            except (ValueError, TypeError) as error:
                raise _cannot(layer, error) from error
            self._copy_weights(layer, new)
        for old, new_tensor in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            tensors[id(old)] = new_tensor

    def _layer(self, layer) -> keras.layers.Layer:
        import tf_keras

        if id(layer) not in self._converted:
            try:
                is_model = isinstance(layer, tf_keras.Model)
                self._converted[id(layer)] = self.model(layer) if is_model else convert_layer(layer, self._layer)
            except (ValueError, TypeError) as error:
                raise error if isinstance(error, UsageError) else _cannot(layer, error) from error
        return self._converted[id(layer)]

    def _copy_weights(self, old, new: keras.layers.Layer) -> None:
        if isinstance(new, keras.Model):
            return  # its layers have theirs
        try:
            copy_weights(old, new)
        except ValueError as error:
            raise _cannot(old, error) from error


def _with_initial_states(
    layer: keras.layers.Layer, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """Keras 2 passes a recurrent layer its initial states after the sequence, in one list."""
    recurrent = isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)
    if not recurrent or not args or not isinstance(args[0], list | tuple):
        return args, kwargs
    sequence, *states = args[0]
    if isinstance(getattr(layer, "cell", None), keras.layers.StackedRNNCells):
        states = keras.tree.pack_sequence_as(layer.cell.state_size, keras.tree.flatten(states))
    return (sequence, *args[1:]), {**kwargs, "initial_state": states}


def _cannot(layer, error: Exception) -> UsageError:
    # Keras puts the whole config before the reason.
    reason = " ".join(str(error).rpartition("Exception encountered: ")[2].split())[:300]
    return UsageError(f"the Keras 2 layer {layer.name!r} ({type(layer).__name__}) cannot be converted: {reason}")


def _input_name(tensor) -> str:
    return valid_name(re.sub(r":\d+$", "", tensor.name))


def _constant(value: Any) -> Any:
    """Converts tensors among the arguments to numbers or arrays, which a Keras 3 file can hold."""
    if isinstance(value, tf.Tensor | tf.Variable):
        value = value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.ndim == 0 else value
    return value


_TENSORS = (keras.KerasTensor, ComplexTensor)


def _call_operation(layer, args: tuple, kwargs: dict[str, Any], names: set[str]):
    try:
        if not any(isinstance(value, _TENSORS) for value in tf.nest.flatten((args, kwargs))):
            return compute_sizes(layer, args, kwargs)
        args, kwargs = _fitting_arguments(layer, args, kwargs)
        outputs = OPERATIONS[layer.symbol](*args, **kwargs)
    except (ValueError, TypeError, IndexError) as error:
        raise _cannot(layer, error) from error
    _name_operations(outputs, (args, kwargs), valid_name(layer.name), names)
    return outputs


def _fitting_arguments(layer, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments that the function in the table takes.

    Raises:
        ValueError: other arguments matter.
    """
    parameters = inspect.signature(OPERATIONS[layer.symbol]).parameters
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return args, {}
    # Functions of TensorFlow 1 have other parameters in between, so positions are unreliable.
    signature = inspect.signature(layer.function)
    bound = signature.bind(*args, **kwargs).arguments
    extra = {key for key in bound if key not in ("name", *parameters)}
    if any(_matters(bound[key], signature.parameters[key].default) for key in extra):
        raise ValueError(f"it uses more of tf.{layer.symbol} than {', '.join(parameters)}")
    return (), {key: value for key, value in bound.items() if key in parameters}


def _matters(value: Any, default: Any) -> bool:
    """Whether an argument has an effect: it is neither omitted nor disabled."""
    return not (value is None or value is False or value is default or (np.ndim(value) == 0 and value == default))


def _name_operations(outputs: Any, inputs: Any, name: str, names: set[str]) -> None:
    """Names the operations from `inputs` to `outputs` after their layer: Keras' default names may clash with layers."""
    seen = {id(tensor) for tensor in _keras_tensors(inputs)}
    pending = _keras_tensors(outputs)
    numbered = (f"{name}_{count}" for count in itertools.count(1))
    free = itertools.chain([name], (candidate for candidate in numbered if candidate not in names))
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen:
            continue
        operation, node_index, _ = tensor._keras_history
        operation.name = next(free)
        names.add(operation.name)
        node = operation._inbound_nodes[node_index]
        seen.update(id(output) for output in node.output_tensors)
        pending.extend(node.input_tensors)


def _keras_tensors(structure: Any) -> list[keras.KerasTensor]:
    parts = [x.parts if isinstance(x, ComplexTensor) else (x,) for x in tf.nest.flatten(structure)]
    return [x for part in parts for x in part if isinstance(x, keras.KerasTensor)]
