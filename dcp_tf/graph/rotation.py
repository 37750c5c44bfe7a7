"""Residual streams in another basis: their principal axes, so that what lies along few of them can lose the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.data import DataSplit, as_split, images_per_measurement, split_batch
from dcp_tf.data.structure import flat_parts
from dcp_tf.errors import RunError, UsageError
from dcp_tf.graph.attention import projections
from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.linear import made_axes
from dcp_tf.graph.rule import OperationRecord
from dcp_tf.graph.scales import fold_scales
from dcp_tf.graph.streams import Norm, Reader, Stream, find_streams
from dcp_tf.graph.surgery import rebuild
from dcp_tf.graph.trace import Trace
from dcp_tf.models.functional import check_functional
from dcp_tf.models.layer_copies import new_layer
from dcp_tf.text_table import some

_IMAGES = 256  # whose principal axes are taken
_SUFFIX = "_rotated"  # of the names of normalizations of rotated streams
_TOLERANCE = 1e-2  # of the outputs, relative to their largest: a wrong basis changes all of them


def rotate_streams(model: keras.Model, inputs: Any) -> keras.Model:
    """The model with each residual stream along its principal axes: the same function, and the axes can be pruned.

    A LayerNormalization becomes an `RMSNormalization`, which no rotation changes: what writes the stream takes the mean
    off, what reads it takes scale and offset. Then one orthogonal matrix for each stream goes into the kernels that
    write it, and its inverse into those that read it. Channels of the new streams are directions in the old ones, most
    of which carry little: `prune` removes them exactly with `prune_residual=True`.

        rotated = dcp_tf.rotate_streams(model, images[:256])
        result = dcp_tf.prune(rotated, (images, labels), dcp_tf.DCP(target=..., prune_residual=True))

    Args:
        model: functional or Sequential; it stays as it is.
        inputs: samples as `prune` takes them, labels are not needed; 256 are used.

    Returns:
        A model of Keras layers with weights of its own, not compiled. A model whose streams are rotated is copied.

    Raises:
        UsageError: no stream can be rotated, which says the reasons, or the inputs do not fit.
        RunError: the model does not compute the same.
    """
    data = as_split(inputs).bound_to(check_functional(model), "inputs")
    return rotated(model, data)[0]


def is_rotated(model: keras.Model) -> bool:
    """Whether streams of the model have been rotated."""
    norms = getattr(layers, "RMSNormalization", ())
    return any(isinstance(x, norms) and x.name.endswith(_SUFFIX) for x in model._flatten_layers())


def rotated(model: keras.Model, data: DataSplit) -> tuple[keras.Model, list[str]]:
    """As `rotate_streams`, and a line for each thing to know.

    Args:
        model: functional or Sequential.
        data: bound to it.
    """
    graph = ChannelGraph(model, [(None, *shape) for shape in data.shapes], ignore_statistics=True)
    if is_rotated(model):
        return rebuild(graph, graph.kept({})), ["the streams are rotated already"]
    if not hasattr(layers, "RMSNormalization"):
        raise UsageError("rotated streams need keras.layers.RMSNormalization: pip install -U keras", "rotate_streams")
    original, (model, folded) = graph.trace, fold_scales(graph)
    if folded:
        graph = ChannelGraph(model, [(None, *shape) for shape in data.shapes], ignore_statistics=True)
    streams, refused = find_streams(graph)
    if not streams:
        reasons = "; ".join(refused) or "no LayerNormalization or RMSNormalization reads one along the last axis"
        raise UsageError(f"no residual stream can be rotated: {reasons}", "rotate_streams")
    batches = _batches(graph, data)
    bases = [_Basis(stream, matrix) for stream, matrix in zip(streams, _axes(graph, streams, batches), strict=True)]
    new = _Rotation(graph, bases).model()
    error = _difference(original, Trace(new), batches[0])
    if not error <= _TOLERANCE:
        raise RunError(f"rotated, the model's outputs differ by {error:.1e} of the largest: leave out rotate_streams")
    lines = [f"folded into the layers before them: {some(folded)}"] * bool(folded) + [_line(x) for x in streams]
    return new, lines + [f"not rotated: {reason}" for reason in refused]


def _line(stream: Stream) -> str:
    added = len(stream.entrances) + len(stream.exits) + sum(norm.in_the_way is not None for norm in stream.norms)
    more = f", with {added} layer{'s' * (added != 1)} more" * bool(added)
    return f"rotated the stream of {stream.width} channels that {stream.name} reads first{more}"


def _batches(graph: ChannelGraph, data: DataSplit) -> list[dict[int, Any]]:
    size = min(images_per_measurement(data.shape), 64)
    batches = data.batches(size, shuffle=True).take(-(-_IMAGES // size))
    parts = [flat_parts(split_batch(batch)[0]) for batch in batches]
    return [graph.trace.bind_inputs(x if len(x) > 1 else x[0]) for x in parts]


def _axes(graph: ChannelGraph, streams: Sequence[Stream], batches: Sequence[Mapping[int, Any]]) -> list[np.ndarray]:
    """For each stream the principal axes of what its normalizations make of it, the largest first, as columns."""
    moments = [np.zeros((stream.width, stream.width)) for stream in streams]
    tensors = [{norm.call.inputs[0] for norm in stream.norms} for stream in streams]
    for batch in batches:
        values = graph.trace.run(batch, set().union(*tensors))
        for stream, read, moment in zip(streams, tensors, moments, strict=True):
            for tensor in read:
                x = keras.ops.convert_to_numpy(values[tensor]).astype(np.float64).reshape(-1, stream.width)
                x = x - x.mean(axis=1, keepdims=True) if stream.is_centered else x
                x /= np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-12)
                moment += x.T @ x
    found = [np.linalg.eigh(moment)[1][:, ::-1] for moment in moments]
    return [axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(axes))]) for axes in found]


class _Basis:
    """The matrices by which a stream gets another basis and is read in it."""

    def __init__(self, stream: Stream, axes: np.ndarray):
        self.stream, self.back = stream, axes.T
        self.into = axes - axes.mean(axis=0) * stream.is_centered

    def of_norm(self, norm: Norm) -> tuple[np.ndarray, np.ndarray | None]:
        """What a normalization does behind its division, from the other basis: a matrix and an offset."""
        layer = norm.call.operation
        scale, offset = getattr(layer, "gamma", getattr(layer, "scale", None)), getattr(layer, "beta", None)
        matrix = self.back if scale is None else self.back * _numpy(scale)
        return matrix, None if offset is None or not np.any(_numpy(offset)) else _numpy(offset)


class _Rotation:
    """The model with other bases: layers in place of others and between them, then their weights."""

    def __init__(self, graph: ChannelGraph, bases: Sequence[_Basis]):
        self._graph, self._bases = graph, bases
        self._substitutes: dict[int, Callable] = {}
        self._between: dict[int, dict[int, keras.Layer]] = {}
        self._values: list[tuple[keras.Layer, list[np.ndarray]]] = []
        self._with_bias: list[tuple[keras.Layer, keras.Layer]] = []
        self._outer = {
            id(dense): layer for layer, _ in graph.trace.opened.values() for dense in projections(layer).values()
        }

    def model(self) -> keras.Model:
        for basis in self._bases:
            for norm in basis.stream.norms:
                self._replace_norm(basis, norm)
            for calls_of, matrix, suffix in (
                (basis.stream.entrances, basis.into, _SUFFIX),
                (basis.stream.exits, basis.back, "_rotated_back"),
            ):
                for tensor, calls in calls_of.items():
                    self._insert(tensor, calls, matrix, suffix)
        model = rebuild(self._graph, self._graph.kept({}), self._substitutes, self._between)
        for layer, values in self._values:
            for weight, value in zip(layer.weights, values, strict=True):
                weight.assign(value)
        for old, new in self._with_bias:
            parts = projections(old) or {"": old}
            for name, dense in (projections(new) or {"": new}).items():
                dense.kernel.assign(parts[name].kernel)
        self._new = {call.path: call.operation for call in Trace(model, opens_attention=True).calls}
        for basis in self._bases:
            for norm in basis.stream.norms:
                for reader in norm.readers:
                    self._read(reader, *basis.of_norm(norm))
            for reader in basis.stream.readers:
                self._read(reader, basis.back, None)
        for basis in self._bases:  # after the readers, whose offsets go through the kernels as they were
            for record in basis.stream.writers:
                for index, axis in made_axes(record):
                    weight = self._new[record.path].weights[index]
                    weight.assign(_along(_numpy(weight), axis, basis.into.T))
        return model

    def _replace_norm(self, basis: _Basis, norm: Norm) -> None:
        layer = norm.call.operation
        settings = {"dtype": layer.dtype_policy, "trainable": layer.trainable}
        new = layers.RMSNormalization(epsilon=layer.epsilon, name=f"{layer.name}{_SUFFIX}", **settings)
        self._substitutes[id(layer)] = new
        if norm.in_the_way is not None:
            matrix, offset = basis.of_norm(norm)
            back = layers.Dense(len(matrix), use_bias=offset is not None, name=f"{layer.name}_back", **settings)
            self._values.append((back, [matrix] if offset is None else [matrix, offset]))
            self._substitutes[id(layer)] = lambda x: back(new(x))
        elif basis.of_norm(norm)[1] is not None:
            for reader in norm.readers:
                self._give_bias(reader.record)

    def _give_bias(self, record: OperationRecord) -> None:
        """Makes a layer without a bias again with one."""
        layer = self._outer.get(id(record.operation), record.operation)
        if record.operation.bias is not None or id(layer) in self._substitutes:
            return
        changes: dict[str, Any] = {"use_bias": True}
        if isinstance(layer, layers.EinsumDense):
            term, kernel, _ = layer.equation.replace("->", ",").split(",")
            changes = {"bias_axes": "".join(letter for letter in kernel.strip() if letter not in term)}
        new = new_layer(layer, lambda config: config | changes)
        self._substitutes[id(layer)] = new
        self._with_bias.append((layer, new))

    def _insert(self, tensor: int, calls: Sequence[Any], matrix: np.ndarray, suffix: str) -> None:
        trace = self._graph.trace
        maker = trace.calls[trace.producer[tensor]].operation.name if tensor in trace.producer else "input"
        used = sum(layer.name.startswith(f"{maker}{suffix}") for layer, _ in self._values)  # of a shared layer
        layer = layers.Dense(len(matrix), use_bias=False, name=f"{maker}{suffix}" + f"_{used}" * bool(used))
        self._values.append((layer, [matrix]))
        for call in calls:
            keys = [key for key, number in call.bindings.items() if number == tensor]
            self._between.setdefault(id(call.node), {}).update(dict.fromkeys(keys, layer))

    def _read(self, reader: Reader, matrix: np.ndarray, offset: np.ndarray | None) -> None:
        """Gives a kernel that reads `x` what it must be to read `x @ matrix + offset`."""
        layer = self._new[reader.record.path]
        weight = layer.weights[reader.weight]
        values = _numpy(weight)
        if offset is not None:
            repeated = np.tile(offset, values.shape[reader.axis] // len(offset))
            shift = np.tensordot(repeated, values, (0, reader.axis))
            if not isinstance(layer, layers.EinsumDense):
                shift = shift.reshape(-1, shift.shape[-1]).sum(axis=0)
            layer.bias.assign(_numpy(layer.bias) + shift.reshape(layer.bias.shape))
        weight.assign(_along(values, reader.axis, matrix))


def _numpy(weight: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight).astype(np.float64)


def _along(values: np.ndarray, axis: int, matrix: np.ndarray) -> np.ndarray:
    """`matrix` times an array along one of its axes, or times each part of that size of the axis."""
    parts = values.reshape(*values.shape[:axis], -1, len(matrix), *values.shape[axis + 1 :])
    return np.moveaxis(np.tensordot(matrix, parts, (1, axis + 1)), 0, axis + 1).reshape(values.shape)


def _difference(first: Trace, second: Trace, values: Mapping[int, Any]) -> float:
    """The largest difference of the outputs, relative to the largest value of each."""
    expected = first.run(values, first.outputs)
    own = second.run(dict(zip(second.inputs, (values[t] for t in first.inputs), strict=True)), second.outputs)
    errors = []
    for one, other in zip(first.outputs, second.outputs, strict=True):
        y, z = _numpy(expected[one]), _numpy(own[other])
        errors.append(np.abs(y - z).max(initial=0) / (np.abs(y).max(initial=0) + 1e-12))
    return float(max(errors))
