"""Subclassed models and layers as functional models: `call` runs once on symbolic tensors and is recorded."""

import ast
import inspect
import math
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.ops.numpy import Reshape
from keras.src.utils.naming import to_snake_case

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.models.compiled_like import compile_arguments
from dcp_tf.models.custom_objects import is_custom
from dcp_tf.models.functional import functional_graph, input_like, ordered_nodes
from dcp_tf.models.layer_copies import repair_config
from dcp_tf.models.retrace_errors import explain, line_with
from dcp_tf.models.retrace_inputs import accepts, arguments, example, example_outputs, inputs_of
from dcp_tf.models.signature import pack

_TOLERANCE = 1e-5  # relative to the largest value: both sides run the same operations
_SHOWN = 4  # notes on layers that stay whole
_WRAP = "put this line into a keras.layers.Layer that holds the weight"
_TRAINING = ("train_step", "test_step", "compute_loss", "compute_metrics")


class _Refused(Exception):
    """A layer or model cannot be retraced; the text says where and why."""


def to_functional(model: keras.Model, input_spec: Any = None) -> keras.Model:
    """Retraces a subclassed model as a functional one, which can be pruned.

    `call` runs once on symbolic tensors. It may use layers, models, `keras.ops`, and Python that does not depend on
    values. A custom layer or model inside becomes a nested functional model of the same name, so that the channels
    inside of it can be pruned too; it stays one layer where its own `call` cannot be retraced or where it has weights
    of its own (this is logged). A functional model, such as one of KerasHub, is returned with its custom layers opened
    in the same way.

    Args:
        model: any Keras model; it stays as it is and shares all layers and weights with the result. A layer whose name
            another layer of the same `call` has gets a number behind it.
        input_spec: what `call` takes: the shape of one input without the batch axis, as for `keras.Input`, or a
            `keras.Input`, `keras.InputSpec`, `tf.TensorSpec` or array; lists, tuples and dicts of these for several
            inputs. None: what the model was built with.

    Returns:
        A plain functional model with the same outputs in inference, compiled as `model` is. Other attributes of the
        class, such as the preprocessor of a KerasHub task, stay with `model`. What `call` does only where `training` is
        true is left out (it is logged), layers such as Dropout excepted.

    Raises:
        UsageError: `call` cannot be retraced. The error names the line, the reason and what to write instead.

    Example:
        >>> functional = dcp_tf.to_functional(MyModel(), (224, 224, 3))
        >>> functional = dcp_tf.to_functional(keras_hub.models.MobileNetBackbone(...))
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"to_functional takes a Keras model, received {type(model).__name__}")
    opening = _Opening()
    is_graph = functional_graph(model) is not None
    if not is_graph:
        try:
            traced = _traced_model(model, input_spec)
        except _Refused as refused:
            raise UsageError(f"{type(model).__qualname__} cannot be retraced: {refused}") from refused
    inputs = inputs_of(model, input_spec) if is_graph and input_spec is not None else None
    functional = opening.model(model if is_graph else traced, inputs)
    if not is_graph:
        for line in [*_training_lines(model), *_own_training(model)]:
            progress.say(f"note: {line}")
    opening.say()
    if functional is not model:
        functional._trainable = model._trainable
        if config := compile_arguments(model):
            functional.compile(**config)
    return functional


def _traced_model(model: keras.Model, input_spec: Any) -> keras.Model:
    inputs = inputs_of(model, input_spec)
    args = tuple(inputs) if isinstance(inputs, (list, tuple)) and len(arguments(model)) > 1 else (inputs,)
    if not model.built:
        built = example_outputs(model, tree.map_structure(lambda x: example(x), args), {})
        if isinstance(built, Exception):
            raise _Refused(explain(built))
    cast = tree.map_structure(lambda x: _as_the_layer_takes_it(model, x), args)
    traced = _record(model, inputs, cast, {})
    _check_equal(model, args, {}, traced, inputs)
    return traced


def _as_the_layer_takes_it(layer: keras.Layer, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A tensor in the dtype of a layer's policy, to which the layer itself would convert it."""
    dtype = _dtype(layer, tensor)
    return tensor if dtype == tensor.dtype else keras.ops.cast(tensor, dtype)


def _record(layer: keras.Layer, inputs: Any, args: tuple, kwargs: dict) -> keras.Model:
    """What `layer.call` does with symbolic tensors, as a functional model of the layer's name.

    Raises:
        _Refused: it does not run on them, or what it does would not be the whole of it.
    """
    if own := _own_weights(layer):
        attribute = next((name for name, value in vars(layer).items() if any(value is v for v in own)), own[0].name)
        line = line_with(layer, rf"self\.{attribute}\b")
        advice = f": {_WRAP}" if isinstance(layer, keras.Model) else ""
        raise _Refused(f"{line}: {attribute} is a weight of {layer.name!r} itself{advice}")
    if accepts(layer, "training"):
        kwargs = {**kwargs, "training": kwargs.get("training")}
    losses, kept = len(layer._losses), {id(x) for x in (*layer._flatten_layers(), *_makers(inputs))}
    with tf.GradientTape(persistent=True) as tape:
        try:
            outputs = layer.call(*args, **kwargs)
        except Exception as error:  # of the user's own code
            raise _Refused(explain(error)) from error
    if len(layer._losses) > losses:
        del layer._losses[losses:]
        raise _Refused(f"{line_with(layer, 'add_loss')}: a functional model has no loss of its own")
    flat = tree.flatten(outputs)
    if not flat or not all(isinstance(x, keras.KerasTensor) for x in flat):
        raise _Refused(f"{line_with(layer)}: an output does not depend on the inputs")
    nodes = list(_nodes(flat))
    _check_constants(layer, nodes, tape)
    _make_unique([node.operation for node in reversed(nodes)], kept)
    traced = keras.Model(inputs, outputs, name=layer.name)
    is_open = any(isinstance(node.operation, Reshape) and None in node.operation.newshape for node in nodes)
    return _replayed(traced, {}) if is_open else traced


def _own_weights(layer: keras.Layer) -> list:
    """The weights of a layer that are not of a layer inside of it, states of random numbers among them."""
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return own + [generator.state for generator in layer._seed_generators]


def _check_constants(layer: keras.Layer, nodes: Sequence[Any], tape: tf.GradientTape) -> None:
    """Raises _Refused where a weight was read while the graph was recorded: it would be a constant from then on."""
    variables = layer.trainable_variables
    for node in nodes:
        for value in tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(value, (keras.Variable, tf.Variable)):
                line = line_with(layer, rf"\.{value.name}\b")
                raise _Refused(f"{line}: it reads a weight of another layer: {_WRAP}")
            if not isinstance(value, tf.Tensor) or not value.dtype.is_floating or not variables:
                continue
            slopes = tape.gradient(value, [variable.value for variable in variables])
            read = [variable for variable, slope in zip(variables, slopes, strict=True) if slope is not None]
            if read:
                owner = next((name for name, part in vars(layer).items() if _holds(part, read[0])), read[0].name)
                line = line_with(layer, rf"self\.{owner}\.", rf"self\.{owner}\b")
                raise _Refused(f"{line}: it reads {read[0].path} apart from the inputs: {_WRAP}")


def _makers(tensors: Any) -> list[Any]:
    return [tensor._keras_history.operation for tensor in tree.flatten(tensors)]


def _holds(part: Any, variable: keras.Variable) -> bool:
    return isinstance(part, keras.Layer) and any(variable is weight for weight in part.weights)


def _nodes(tensors: Sequence[keras.KerasTensor]) -> Iterator[Any]:
    """The nodes that symbolic tensors were made by, those of their inputs included."""
    seen, pending = set(), list(tensors)
    while pending:
        operation, index, _ = pending.pop()._keras_history
        node = operation._inbound_nodes[index]
        if id(node) not in seen:
            seen.add(id(node))
            pending.extend(node.arguments.keras_tensors)
            yield node


def _make_unique(operations: Sequence[Any], kept: Collection[int] | None = None) -> None:
    """Numbers behind the names that several operations share; a functional model addresses them by name.

    Args:
        operations: of one functional model, producers first.
        kept: ids of those whose names are the user's. Others, made by `call`, are called as in a new session: a plan
            knows layers and operations by their names. None: all are kept.
    """
    unique = {id(operation): operation for operation in operations}
    made = [] if kept is None else [operation for key, operation in unique.items() if key not in kept]
    for operation in made:
        kind = to_snake_case(type(operation).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", operation.name):
            operation.name = kind
    by_rank = [*(operation for operation in unique.values() if operation not in made), *made]
    used = {operation.name for operation in by_rank}
    named: set[str] = set()
    for operation in by_rank:
        name, count = operation.name, 1
        while name in named or (count > 1 and name in used):
            name, count = f"{operation.name}_{count}", count + 1
        named.add(name)
        operation.name = name


def _check_equal(layer: keras.Layer, args: tuple, kwargs: dict, traced: keras.Model, inputs: Any) -> None:
    """Raises _Refused unless the recorded model computes what the layer computes."""
    examples = {id(x): example(x, seed) for seed, x in enumerate(tree.flatten(inputs))}

    def filled(structure: Any) -> Any:
        return tree.map_structure(lambda x: examples.get(id(x), x), structure)

    expected = example_outputs(layer, filled(args), filled(kwargs))
    if isinstance(expected, Exception):
        raise _Refused(explain(expected))
    actual = example_outputs(traced, (filled(inputs),), {})
    same = not isinstance(actual, Exception) and all(_alike(*pair) for pair in zip(actual, expected, strict=True))
    if not same:
        why = explain(actual) if isinstance(actual, Exception) else "random numbers, or sizes that are read as numbers"
        line = line_with(layer, "random")
        raise _Refused(f"{line}: on symbolic tensors it computes something else ({why})")


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    scale = max(float(np.abs(other).max(initial=0)), 1e-12)
    return one.shape == other.shape and float(np.abs(one - other).max(initial=0)) <= _TOLERANCE * scale


class _Opening:
    """Replaces the custom layers in functional graphs by nested functional models, wherever they can be retraced."""

    def __init__(self):
        self._models: dict[int, tuple[keras.Model, keras.Model]] = {}  # by id: before, and with opened layers
        self._whole: dict[str, str] = {}

    def model(self, model: keras.Model, inputs: Any = None) -> keras.Model:
        """A functional model with opened layers; the model itself where there are none."""
        if id(model) not in self._models or inputs is not None:
            self._models[id(model)] = model, self._opened(model, functional_graph(model), inputs)
        return self._models[id(model)][1]

    def say(self) -> None:
        """Logs which layers stayed whole, and why."""
        for name, why in list(self._whole.items())[:_SHOWN]:
            progress.say(f"note: {name} stays one layer: {why}")
        if len(self._whole) > _SHOWN:
            progress.say(f"note: {len(self._whole) - _SHOWN} more layers stay one layer each")

    def _opened(self, model: keras.Model, graph: Any, inputs: Any) -> keras.Model:
        nodes = ordered_nodes(graph)
        replacements = {id(node): node.operation for node in nodes}
        for calls in _alike_calls(nodes):
            new = self._operation(calls)
            replacements.update({id(node): new for node in calls})
        if inputs is None and all(replacements[id(node)] is node.operation for node in nodes):
            return model
        _make_unique([*replacements.values()])
        return _replayed(model, replacements, inputs)

    def _operation(self, nodes: Sequence[Any]) -> Any:
        """What stands for the operation of some calls, which differ in their tensors alone."""
        operation = nodes[0].operation
        if functional_graph(operation) is not None:
            return self.model(operation)
        if not isinstance(operation, keras.Layer) or not _is_candidate(operation):
            return operation
        try:
            return self.model(_opened_layer(operation, nodes))
        except _Refused as refused:
            repair_config(operation)
            if operation._layers:  # others are layers like Keras' own
                self._whole.setdefault(f"{operation.name} ({type(operation).__name__})", str(refused))
            return operation


def closed_layers(model: keras.Model) -> list[str]:
    """The classes of custom layers in a functional model that are made of layers, which `to_functional` may open."""
    inside = [layer for layer in model._flatten_layers(include_self=False) if layer._layers]
    return sorted({type(x).__name__ for x in inside if functional_graph(x) is None and _is_candidate(x)})


def _is_candidate(layer: keras.Layer) -> bool:
    """Whether the `call` of a layer is a user's own, or one of a library such as KerasHub."""
    own_call = not (inspect.unwrap(type(layer).call).__module__ or "").startswith("keras.")
    return is_custom(layer) and own_call and not layer.quantization_mode


def _opened_layer(layer: keras.Layer, nodes: Sequence[Any]) -> keras.Model:
    tensors = [node.arguments.keras_tensors for node in nodes]
    if layer.activity_regularizer is not None:
        raise _Refused("it has an activity regularizer")
    if accepts(layer, "mask") and any(keras.src.backend.get_keras_mask(x) is not None for xs in tensors for x in xs):
        raise _Refused("it takes a mask")
    inputs = [
        keras.Input(
            batch_shape=_common_shape(alike), dtype=_dtype(layer, alike[0]), name=f"{layer.name}_input_{number}"
        )
        for number, alike in enumerate(zip(*tensors, strict=True))
    ]
    by_id = {id(x): y for x, y in zip(tensors[0], inputs, strict=True)}
    args, kwargs = nodes[0].arguments.fill_in(by_id)
    traced = _record(layer, pack(inputs), args, kwargs)
    _check_equal(layer, args, kwargs, traced, pack(inputs))
    traced._trainable = layer._trainable
    return traced


def _common_shape(tensors: Sequence[keras.KerasTensor]) -> tuple:
    """The shape of all calls, with None where they differ."""
    if len({len(x.shape) for x in tensors}) > 1:
        raise _Refused("it is called on tensors with other numbers of axes")
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*(x.shape for x in tensors), strict=True))


def _dtype(layer: keras.Layer, tensor: keras.KerasTensor) -> str:
    """The dtype that a layer converts a tensor to."""
    return layer.compute_dtype if layer.autocast and keras.backend.is_float_dtype(tensor.dtype) else tensor.dtype


def _alike_calls(nodes: Sequence[Any]) -> list[list[Any]]:
    """The calls of each operation; for custom layers those with other constants apart."""
    calls: dict[tuple, list] = {}
    for node in nodes:
        key: tuple = (id(node.operation),)
        if isinstance(node.operation, keras.Layer) and functional_graph(node.operation) is None:
            structure = (node.arguments.args, node.arguments.kwargs)
            key += (repr(tree.map_structure(lambda x: "" if isinstance(x, keras.KerasTensor) else x, structure)),)
        calls.setdefault(key, []).append(node)
    return list(calls.values())


def _state_batch_axis(operation: Reshape, shape: tuple) -> None:
    """Gives `keras.ops.reshape(x, (keras.ops.shape(x)[0], ...))` a -1 for the batch size, which is open."""
    batch, *others = operation.newshape
    if batch is None and None not in (*others, *shape[1:]):
        known = math.prod(size for size in others if size != -1)
        operation.newshape = (-1, *(math.prod(shape[1:]) // known if size == -1 else size for size in others))


def _replayed(model: keras.Model, replacements: Mapping[int, Any], inputs: Any = None) -> keras.Model:
    """A functional model once more, with other operations for some nodes (by id) and perhaps on other inputs."""
    graph = functional_graph(model)
    flat = tree.flatten(inputs) if inputs is not None else [input_like(x, x.shape) for x in graph.inputs]
    values = {id(x): y for x, y in zip(graph.inputs, flat, strict=True)}
    for node in ordered_nodes(graph):
        if isinstance(node.operation, Reshape):
            _state_batch_axis(node.operation, values[id(node.arguments.keras_tensors[0])].shape)
        outputs = _call_again(node, replacements.get(id(node), node.operation), values)
        values.update({id(x): y for x, y in zip(node.outputs, tree.flatten(outputs), strict=True)})
    structures = (graph._inputs_struct, graph._outputs_struct)
    new = keras.Model(*(tree.map_structure(lambda x: values[id(x)], s) for s in structures), name=model.name)
    new._trainable = model._trainable
    return new


def _call_again(node: Any, operation: Any, values: Mapping[int, Any]) -> Any:
    """The call of a node, of its own operation or of what stands for it."""
    args, kwargs = node.arguments.fill_in(values)
    if functional_graph(operation) is None or functional_graph(node.operation) is not None:
        return operation(*args, **kwargs)
    training = {} if kwargs.get("training") is None else {"training": kwargs["training"]}
    return operation(pack([values[id(x)] for x in node.arguments.keras_tensors]), **training)


def _training_lines(model: keras.Model) -> Iterator[str]:
    """A line for each condition on `training` in the `call` of a model."""
    try:
        lines, first = inspect.getsourcelines(type(model).call)
        code = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    for part in ast.walk(code):
        test = getattr(part, "test", None)
        names = {name.id for name in ast.walk(test) if isinstance(name, ast.Name)} if test is not None else set()
        if "training" in names and not isinstance(test, ast.Compare):
            file = inspect.getsourcefile(type(model).call)
            yield f"{file}:{first + part.lineno - 1}: what call does in training alone is left out"


def _own_training(model: keras.Model) -> Iterator[str]:
    own = [name for name in _TRAINING if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        yield f"the functional model trains as Keras does, without the {own[0]} of {type(model).__qualname__}"
