"""Rebuilds a functional model with fewer channels, and builds the masked model that it must equal."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import tree

from dcp_tf.errors import UsageError
from dcp_tf.graph.attention import config_of, projections
from dcp_tf.graph.blocks import stream_tensors, without_calls
from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import KeptChannels, Labels, OperationRecord, across, kept_shape
from dcp_tf.models.custom_objects import is_custom
from dcp_tf.models.functional import functional_graph, input_like, ordered_nodes
from dcp_tf.models.layer_copies import new_layer
from dcp_tf.models.layer_state import transfer_state


def rebuild(
    graph: ChannelGraph,
    kept: KeptChannels,
    substitutes: Mapping[int, Callable] | None = None,
    between: Mapping[int, Mapping[int, keras.Layer]] | None = None,
) -> keras.Model:
    """Builds the model again without the removed channels.

    The result shares nothing with the original. Layer names, nested models, shared layers, frozen layers, initializers
    and regularizers are preserved.

    Args:
        graph: the groups of the model.
        kept: what stays, from `ChannelGraph.kept`.
        substitutes: by the id of a layer what is called in its place, with weights of its own: a layer, or a function
            of the tensor. A Sequential model with such a function becomes a functional one.
        between: by the id of a node and the id of a tensor that it reads the layer that stands between them, with
            weights of its own. Sequential models become functional ones.

    Returns:
        A new model. It has only Keras layers if the original has only Keras layers.

    Raises:
        UsageError: a layer cannot be created from its config.
    """
    rebuilding = _Rebuild(graph, kept, substitutes or {}, between or {})
    model = rebuilding.model(graph.trace.model)
    rebuilding.copy_weights()
    return model


def copy_model(graph: ChannelGraph) -> keras.Model:
    """A copy of the graph's model that shares nothing with it."""
    return rebuild(graph, graph.kept({}))


def check_layers(graph: ChannelGraph) -> None:
    """Makes sure, before any long work, that custom layers can be recreated from their config.

    Raises:
        UsageError: one cannot; the error names it.
    """
    for record in graph.records.values():
        if isinstance(record.operation, keras.Layer) and is_custom(record.operation):
            new_layer(record.operation)


def masks(graph: ChannelGraph, kept: KeptChannels) -> dict[int, dict[int, np.ndarray]]:
    """The masks: operation id -> index of the weight -> array of ones and zeros of the weight's shape.

    They are on the kernels that read a channel, and on what makes it where a sum of squares reads it too.
    """
    result: dict[int, dict[int, np.ndarray]] = {}
    for key, record in graph.records.items():
        for index, axis in (*record.consumes, *record.silences, *record.zeroed):
            stays = kept.mask(record.weights[index][axis])
            if not stays.all():
                shape = record.operation.weights[index].shape
                ones = result.setdefault(key, {}).setdefault(index, np.ones(shape, np.float32))
                ones *= across(axis, stays.astype(np.float32), len(shape))
    return result


def apply_masks(graph: ChannelGraph, kept: KeptChannels) -> None:
    """Sets the slices of removed channels to zero in the kernels that read them, in the graph's own model."""
    for key, by_weight in masks(graph, kept).items():
        for index, mask in by_weight.items():
            variable = graph.records[key].operation.weights[index]
            variable.assign(variable * mask)


def masked(graph: ChannelGraph, kept: KeptChannels) -> keras.Model:
    """A copy of full size in which removed channels have no effect: `rebuild` computes the same function.

    (Not with `ignore_statistics`, where the mean and variance here are still of all channels.)
    """
    model = copy_model(graph)
    apply_masks(ChannelGraph(model, ignore_statistics=graph.ignore_statistics), kept)
    return model


class _Rebuild:
    """One rebuild: every operation and nested model is created once, however often it is called."""

    def __init__(
        self,
        graph: ChannelGraph,
        kept: KeptChannels,
        substitutes: Mapping[int, Callable],
        between: Mapping[int, Mapping[int, keras.Layer]],
    ):
        self._graph = graph
        self._kept = kept
        self._substitutes, self._between = substitutes, between
        self._passed: dict[tuple[int, int], keras.KerasTensor] = {}
        self._new: dict[int, Any] = dict(substitutes)
        calls = graph.trace.calls
        nodes = [calls[index].node for index in without_calls(kept.removed)]
        self._without = {id(getattr(node, "outer", node)) for node in nodes}
        self._streams = dict(stream_tensors(graph.trace, block) for block in kept.removed)

    def model(self, model: keras.Model) -> keras.Model:
        if id(model) not in self._new:
            is_chain = (
                isinstance(model, keras.Sequential)
                and not self._between
                and all(isinstance(self._substitutes.get(id(layer), layer), keras.Layer) for layer in model.layers)
            )
            build = self._sequential if is_chain else self._functional
            self._new[id(model)] = build(model)
            # The public setter would also reach every layer; those brought their own setting in their configs.
            self._new[id(model)]._trainable = model._trainable
        return self._new[id(model)]

    def _operation(self, operation: keras.Operation) -> Any:
        if functional_graph(operation) is not None:
            return self.model(operation)
        if id(operation) not in self._new:
            self._new[id(operation)] = self._new_operation(operation)
        return self._new[id(operation)]

    def _new_operation(self, operation: keras.Operation) -> keras.Operation:
        record = self._graph.records.get(id(operation))
        if not isinstance(operation, keras.Layer):
            return self._new_plain_operation(operation, record.config if record else {})
        if id(operation) in self._graph.trace.opened:
            return new_layer(operation, lambda config: config | opened_config(self._graph, operation, self._kept))
        return new_layer(operation, self._changes(record) if record else None)

    def _changes(self, record: OperationRecord) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
        initializers = fitting_initializers(record, self._kept)
        if not record.config and not initializers:
            return None
        return lambda config: {
            **{key: change(self._kept, config[key]) for key, change in record.config.items()},
            **initializers,
        }

    def _new_plain_operation(self, operation: keras.Operation, changes: dict) -> keras.Operation:
        values = {key: change(self._kept, getattr(operation, key)) for key, change in changes.items()}
        if any(tree.flatten(value) != tree.flatten(getattr(operation, key)) for key, value in values.items()):
            return type(operation).from_config({**operation.get_config(), **values, "name": operation.name})
        # Operations have no weights, but they list their calls: the copy gets lists of its own. (The copy module would
        # write it to a file and read it again.)
        new = object.__new__(type(operation))
        vars(new).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
        return new

    def _functional(self, model: keras.Model) -> keras.Model:
        name, model = model.name, functional_graph(model)
        values = {id(x): y for x, y in zip(model.inputs, self._inputs(model), strict=True)}
        for node in ordered_nodes(model):
            if id(node) in self._without:
                values.update({id(x): values[self._streams[id(x)]] for x in node.outputs if id(x) in self._streams})
                continue
            args, kwargs = self._arguments(node, values)
            outputs = self._operation(node.operation)(*args, **kwargs)
            values.update({id(x): y for x, y in zip(node.outputs, tree.flatten(outputs), strict=True)})
        inputs = tree.map_structure(lambda x: values[id(x)], model._inputs_struct)
        outputs = tree.map_structure(lambda x: values[id(x)], model._outputs_struct)
        return keras.Model(inputs, outputs, name=name)

    def _sequential(self, model: keras.Sequential) -> keras.Sequential:
        new = keras.Sequential(name=model.name)
        new.add(self._inputs(model)[0]._keras_history.operation)
        for layer in model.layers:
            new.add(self._operation(layer))
        return new

    def _inputs(self, model: keras.Model) -> list[keras.KerasTensor]:
        arrays = self._graph.nested_inputs.get(id(model))
        if arrays is None:  # the outermost model, whose inputs are pinned
            return [input_like(x, x.shape) for x in model.inputs]
        return [input_like(x, self._shape(x, labels)) for x, labels in zip(model.inputs, arrays, strict=True)]

    def _shape(self, tensor: keras.KerasTensor, labels: Labels) -> list[int | None]:
        """The shape of a nested model's input without the removed channels."""
        shape, counts = list(tensor.shape), self._kept.counts(labels)
        for axis in varying_axes(labels):
            shape[axis] = None if shape[axis] is None else counts[axis]
        return shape

    def _arguments(self, node: Any, values: dict[int, Any]) -> tuple[tuple, dict]:
        args, kwargs = list(node.arguments.args), dict(node.arguments.kwargs)
        for key, (change, _) in self._graph.arguments.get(id(node), {}).items():
            arguments = args if isinstance(key, int) else kwargs
            arguments[key] = change(self._kept, arguments[key])
        return tree.map_structure(lambda x: self._read(node, x, values), (tuple(args), kwargs))

    def _read(self, node: Any, argument: Any, values: dict[int, Any]) -> Any:
        value, layer = values.get(id(argument), argument), self._between.get(id(node), {}).get(id(argument))
        if layer is None:
            return value
        if (id(layer), id(value)) not in self._passed:
            self._passed[id(layer), id(value)] = layer(value)
        return self._passed[id(layer), id(value)]

    def copy_weights(self) -> None:
        """Copies the values that stay into the new layers."""
        for key, record in self._graph.records.items():
            made = key in self._new and key not in self._substitutes
            if isinstance(record.operation, keras.Layer) and made:
                factors = {id(record.operation.weights[i]): f(self._kept) for i, f in record.factors.items()}
                _copy_state(record, self._new[key], self._kept, factors)
        for key, (layer, path) in self._graph.trace.opened.items():
            if key not in self._new or key in self._substitutes:
                continue
            record, scales = opened_record(self._graph, layer, path, self._kept)
            _copy_state(record, self._new[key], self._kept, scales)


def opened_config(graph: ChannelGraph, layer: keras.Layer, kept: KeptChannels) -> dict[str, Any]:
    """The config entries of an opened attention layer in the rebuilt model."""
    records = {name: graph.records[id(dense)] for name, dense in projections(layer).items()}
    shapes = {name: kept_shape(record, record.kernel, kept) for name, record in records.items()}
    return config_of(layer, shapes, shapes["query"][0])


def opened_record(
    graph: ChannelGraph, layer: keras.Layer, path: str, kept: KeptChannels
) -> tuple[OperationRecord, dict[int, float]]:
    """The axes of the weights of an opened attention layer, and by `id()` of a weight what it is multiplied by.

    The scale of the logits is one over the root of the size of the heads that stay: what it was goes into the query.
    """
    record, scales = OperationRecord(layer, path), {}
    numbers = {id(weight): number for number, weight in enumerate(layer.weights)}
    for name, dense in projections(layer).items():
        of_dense = graph.records[id(dense)]
        for index, by_axis in of_dense.weights.items():
            record.weights[numbers[id(dense.weights[index])]] = by_axis
        if name == "query":
            size = kept_shape(of_dense, of_dense.kernel, kept)[-1]
            factor = math.sqrt(size / dense.kernel.shape[-1])
            scales = {id(weight): factor for weight in dense.weights if factor != 1}
    return record, scales


def fitting_initializers(record: OperationRecord, kept: KeptChannels) -> dict[str, Any]:
    """Config entries (key -> serialized initializer) for initializers that hold arrays of the old size.

    Such an initializer (`Constant(array)`, a filter bank) makes weights of one shape only. The rebuilt layer would fail
    to build, here or when its file is loaded, although the values that it makes are not used.
    """
    changed = {}
    for index, by_axis in record.weights.items():
        variable = record.operation.weights[index]
        key = _config_key(record.operation, variable.name)
        if key is None or all(kept.mask(labels).all() for labels in by_axis.values()):
            continue
        initializer = getattr(record.operation, key)
        if _holds_arrays(initializer):
            values = kept.take(keras.ops.convert_to_numpy(initializer(variable.shape, dtype=variable.dtype)), by_axis)
            changed[key] = keras.initializers.serialize(keras.initializers.Constant(values))
    return changed


def _config_key(layer: keras.Layer, name: str) -> str | None:
    """`kernel` -> `kernel_initializer`, `depthwise_kernel` -> `depthwise_initializer`; None if there is none."""
    candidates = (f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer")
    return next((key for key in candidates if getattr(layer, key, None) is not None), None)


def _holds_arrays(initializer: Any) -> bool:
    return any(np.ndim(value) > 0 for value in vars(initializer).values() if not isinstance(value, str))


def _copy_state(
    record: OperationRecord, new: keras.Layer, kept: KeptChannels, scales: Mapping[int, float] | None = None
) -> None:
    axes = {id(record.operation.weights[index]): by_axis for index, by_axis in record.weights.items()}

    def take(variable: keras.Variable, value: np.ndarray) -> np.ndarray:
        scale = (scales or {}).get(id(variable))
        value = kept.take(value, axes.get(id(variable), {}))
        return value if scale in (None, 1) else (value * scale).astype(value.dtype)

    try:
        transfer_state(record.operation, new, take)
    except UsageError as error:
        if not axes:
            raise
        kind = type(new).__name__
        raise RuntimeError(f"{record.path} ({kind}): {error}: the rule misses an axis or a config entry") from error
