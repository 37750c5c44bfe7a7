"""A Keras functional model as one flat list of calls, nested models opened up."""

import dataclasses
import fractions
import functools
import inspect
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import tree
from keras.src.ops import core
from keras.src.ops import numpy as numpy_ops

from dcp_tf.errors import UsageError
from dcp_tf.graph.attention import AttentionProducts, can_open, inner_nodes
from dcp_tf.models.functional import functional_graph, nested_arguments, ordered_nodes

_MOVING = (numpy_ops.Transpose, numpy_ops.Swapaxes, numpy_ops.Moveaxis)
# What may read a tensor whose batch axis is not the first: as the queries, keys and values that lie on an axis before.
BATCH_MAY_MOVE = (*_MOVING, numpy_ops.GetItem, numpy_ops.Split, numpy_ops.Take, numpy_ops.Squeeze, core.Unstack)
_BATCH = 7919  # a batch size that is no other size


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One use of one operation. A shared layer has several calls.

    Attributes:
        operation: the Keras layer or operation that is called.
        path: names of the enclosing models and of the operation, joined by "/".
        node: the Keras node that recorded the call; it holds the arguments.
        bindings: for every symbolic tensor among the arguments, by id, the number of the traced tensor.
        inputs: numbers of the tensors among the arguments, in the order of the flattened arguments.
        outputs: numbers of the tensors that the call makes.
        training: the `training=` argument that an enclosing model was called with, else None.
        is_inside: whether it lies inside of an opened layer and does not make its output.
    """

    operation: keras.Operation
    path: str
    node: Any
    bindings: Mapping[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    training: bool | None = None
    is_inside: bool = False

    @property
    def arguments(self) -> list:
        """The flattened arguments: symbolic tensors and constants."""
        return tree.flatten((self.node.arguments.args, self.node.arguments.kwargs))

    def run(self, values: Mapping[int, Any], training: bool | None = None) -> list:
        """Calls the operation on `values` (tensor number to tensor) and returns its outputs as a flat list.

        As in a Keras model, `training` overrides what the node recorded: layers that augment images record True, their
        default, when they are called without the argument. Batches hold class and word numbers as floats; as in a
        Keras model they become the integers that an input has.
        """
        dtypes = {id(tensor): tensor.dtype for tensor in self.node.arguments.keras_tensors}
        passed = {key: _as_integers(values[number], dtypes[key]) for key, number in self.bindings.items()}
        args, kwargs = self.node.arguments.fill_in(passed)
        if accepts_training(type(self.operation)):
            if training is not None:
                kwargs = {**kwargs, "training": training}
            elif self.training is not None and kwargs.get("training") is None:
                kwargs = {**kwargs, "training": self.training}
        if not self.is_inside:
            return tree.flatten(self.operation(*args, **kwargs))
        with warnings.catch_warnings():  # what an attention layer passes to its projections has no masks any more
            warnings.filterwarnings("ignore", message=".*does not support masking")
            return tree.flatten(self.operation(*args, **kwargs))


def _as_integers(value: Any, dtype: str) -> Any:
    """A value of floats as integers or truth values, where the model has these."""
    is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))
    return keras.ops.cast(value, dtype) if is_float and not keras.backend.is_float_dtype(dtype) else value


@functools.cache
def accepts_training(operation_class: type) -> bool:
    """Whether `call` of this class has a `training` argument."""
    return "training" in inspect.signature(operation_class.call).parameters


def unwrapped(layer: keras.Layer) -> keras.Layer:
    """The layer inside a wrapper that only calls it, or the layer itself."""
    while isinstance(layer, (keras.layers.SpectralNormalization, keras.layers.TimeDistributed)):
        layer = layer.layer
    return layer


def _is_open(shapes: Iterable[tuple]) -> bool:
    """Whether a size other than the batch's is unknown."""
    return any(None in shape[1:] for shape in shapes)


def _traced_shapes(node: Any, tensors: Mapping[int, keras.KerasTensor]) -> list[tuple]:
    """The output shapes of a call as TensorFlow infers them.

    Layers with a stated output shape, such as EinsumDense, may state that a size is open.
    """
    import tensorflow as tf

    def call(*values: Any) -> Any:
        args, kwargs = node.arguments.fill_in(dict(zip(tensors, values, strict=True)))
        return tree.flatten(node.operation(*args, **kwargs))

    specs = [tf.TensorSpec(x.shape, x.dtype) for x in tensors.values()]
    outputs = tf.function(call, autograph=False).get_concrete_function(*specs).structured_outputs
    return [tuple(x.shape) for x in outputs]


class Trace:
    """The calls of a model in running order, and the tensors between them.

    Attributes:
        model: the model that was traced.
        calls: every call, producers first.
        shapes: per tensor number its shape with the batch axis, None if unknown.
        rows: per tensor number how many rows of the batch axis belong to one image; None if unknown. More than 1
            where `keras.ops.reshape` turns parts of an image, such as the windows of an attention, into rows.
        batch_axes: per tensor number its batch axis: 0 but where `keras.ops.transpose` moved it.
        inputs: tensor numbers of the model's inputs, flattened.
        outputs: tensor numbers of the model's outputs, flattened.
        producer: per tensor number the index of the call that makes it; inputs are missing.
        nested: for every call of a nested model the model and the tensor numbers that it is called on.
        opened: by id each attention layer whose projections are calls of their own, with its path.
    """

    def __init__(self, model: keras.Model, input_shapes: Sequence[tuple] | None = None, opens_attention: bool = False):
        """Traces `model`.

        Args:
            model: a functional or Sequential model.
            input_shapes: shapes with the batch axis to use in place of the model's own, one per input.
            opens_attention: whether the projections of attention layers are calls of their own.

        Raises:
            UsageError: the model has no functional graph, or calls a nested model on a tensor of another rank.
        """
        graph = functional_graph(model)
        if graph is None:
            raise UsageError(
                f"{type(model).__name__} {getattr(model, 'name', model)!r} is not a functional or built Sequential "
                "Keras model: a subclassed model hides its graph; try dcp_tf.to_functional(model, input_spec)"
            )
        self.model = model
        self.calls: list[Call] = []
        self.nested: list[tuple[keras.Model, list[int]]] = []
        self.shapes: list[tuple] = []
        self.rows: list[fractions.Fraction | None] = []
        self.batch_axes: list[int] = []
        self._references: list[Any] = []
        self._input_shapes = input_shapes
        self.opened: dict[int, tuple[keras.Layer, str]] = {}
        self._opens_attention = opens_attention
        self._products = functools.cache(AttentionProducts)
        shapes = input_shapes or [x.shape for x in graph.inputs]
        one = fractions.Fraction(1)
        self.inputs = [self._new_tensor(x, shape, one) for x, shape in zip(graph.inputs, shapes, strict=True)]
        self.outputs = self._open(graph, self.inputs, "", None)
        self.producer = {t: index for index, call in enumerate(self.calls) for t in call.outputs}

    def _new_tensor(self, reference: Any, shape: Sequence, rows: fractions.Fraction | None, batch_axis: int = 0) -> int:
        self.shapes.append(tuple(shape))
        self.rows.append(rows)
        self.batch_axes.append(batch_axis)
        self._references.append(reference)
        return len(self.shapes) - 1

    def _open(self, graph: Any, inputs: list[int], scope: str, training: bool | None) -> list[int]:
        """Adds the calls of one functional graph; returns the numbers of its outputs."""
        local = {id(x): number for x, number in zip(graph.inputs, inputs, strict=True)}
        for node in ordered_nodes(graph):
            operation, path = node.operation, f"{scope}{node.operation.name}"
            inner = functional_graph(operation)
            if inner is None and self._opens(node):
                outputs = self._open_attention(node, path, local, training)
            elif inner is None:
                outputs = self._add_call(node, path, local, training)
            else:
                numbers = [local[id(x)] for x in nested_arguments(node, inner)]
                stated = node.arguments.kwargs.get("training")
                self.nested.append((operation, numbers))
                outputs = self._open(inner, numbers, path + "/", training if stated is None else stated)
            local.update({id(x): number for x, number in zip(node.outputs, outputs, strict=True)})
        return [local[id(x)] for x in graph.outputs]

    def _opens(self, node: Any) -> bool:
        """Whether a call is opened: a layer that is called in a way that cannot be is left closed at all its calls."""
        if not self._opens_attention or not can_open(node):
            return False
        return all(can_open(other) for other in node.operation._inbound_nodes)

    def _open_attention(self, node: Any, path: str, local: dict, training: bool | None) -> tuple:
        shapes = {id(x): self.shapes[local[id(x)]] for x in node.arguments.keras_tensors}
        stand_ins, nodes = inner_nodes(node, self._products, shapes)
        local = {stand_in: local[argument] for stand_in, argument in stand_ins.items()}
        for inner in nodes:
            is_last = inner is nodes[-1]
            own = path if is_last else f"{path}/{inner.operation.name}"
            outputs = self._add_call(inner, own, local, training, is_inside=not is_last)
            local.update({id(x): number for x, number in zip(inner.outputs, outputs, strict=True)})
        self.opened[id(node.operation)] = node.operation, path
        return outputs

    def _add_call(self, node: Any, path: str, local: dict, training: bool | None, is_inside: bool = False) -> tuple:
        inputs = tuple(local[id(x)] for x in node.arguments.keras_tensors)
        bindings = {id(x): local[id(x)] for x in node.arguments.keras_tensors}
        shapes = self._shapes(node, bindings)
        rows = self._rows(node.operation, inputs, shapes)
        axis = self._batch_axis(node, bindings)
        outputs = tuple(self._new_tensor(x, shape, rows, axis) for x, shape in zip(node.outputs, shapes, strict=True))
        self.calls.append(Call(node.operation, path, node, bindings, inputs, outputs, training, is_inside))
        return outputs

    def _shapes(self, node: Any, bindings: dict[int, int]) -> list[tuple]:
        """The output shapes of one call, from the traced shapes of its inputs."""
        shapes = [tuple(x.shape) for x in node.outputs]
        tensors = node.arguments.keras_tensors
        inputs = {id(x): keras.KerasTensor(self.shapes[bindings[id(x)]], x.dtype) for x in tensors}
        if any(inputs[id(x)].shape != tuple(x.shape) for x in tensors):
            args, kwargs = node.arguments.fill_in(inputs)
            shapes = [tuple(x.shape) for x in tree.flatten(node.operation.compute_output_spec(*args, **kwargs))]
        if tensors and _is_open(shapes) and not _is_open(x.shape for x in inputs.values()):
            return _traced_shapes(node, inputs)
        return shapes

    def _batch_axis(self, node: Any, bindings: dict[int, int]) -> int:
        """Where the outputs of one call have the batch axis."""
        axis = max((self.batch_axes[tensor] for tensor in bindings.values()), default=0)
        if not isinstance(node.operation, BATCH_MAY_MOVE if axis else _MOVING):
            return 0
        (tensor,) = node.arguments.keras_tensors
        shape = list(self.shapes[bindings[id(tensor)]])
        shape[axis] = _BATCH
        args, kwargs = node.arguments.fill_in({id(tensor): keras.KerasTensor(shape, tensor.dtype)})
        moved = tree.flatten(node.operation.compute_output_spec(*args, **kwargs))[0].shape
        return moved.index(_BATCH) if _BATCH in moved else 0

    def _rows(self, operation: Any, inputs: Sequence[int], shapes: list[tuple]) -> fractions.Fraction | None:
        """Rows per image of the outputs: a reshape keeps the number of values, all else the number of rows."""
        before = [self.rows[tensor] for tensor in inputs]
        if None in before:
            return None
        rows = max(before, default=fractions.Fraction(1))
        if not hasattr(operation, "newshape") or len(inputs) != 1:
            return rows
        old, new = self.shapes[inputs[0]][1:], shapes[0][1:]
        return None if None in old or None in new else rows * math.prod(old) / max(math.prod(new), 1)

    def sizes(self, tensor: int) -> list[int | None]:
        """The shape of a tensor without its batch axis."""
        return [size for axis, size in enumerate(self.shapes[tensor]) if axis != self.batch_axes[tensor]]

    def closed(self) -> tuple["Trace", dict[int, int]]:
        """The trace of the same model with attention layers as one call each, and the number there of each tensor."""
        if not self.opened:
            return self, {t: t for t in range(len(self.shapes))}
        closed = Trace(self.model, self._input_shapes)
        own, other = (
            [*trace.inputs, *(t for call in trace.calls if not call.is_inside for t in call.outputs)]
            for trace in (self, closed)
        )
        return closed, dict(zip(own, other, strict=True))

    def bind_inputs(self, inputs: Any) -> dict[int, Any]:
        """What the model is called on (a tensor, or a sequence of one per input), as values by number."""
        values = inputs if len(self.inputs) > 1 else [inputs]
        return dict(zip(self.inputs, values, strict=True))

    def pack_outputs(self, values: Mapping[int, Any]) -> Any:
        """The model's output among values by number; the tuple of all in the order of its outputs if it has several."""
        outputs = tuple(values[tensor] for tensor in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def dtype(self, tensor: int) -> str:
        """The dtype of a tensor."""
        return self._references[tensor].dtype

    def needed(self, targets: Iterable[int], available: Iterable[int]) -> list[int]:
        """Indices of the calls that make `targets` from the tensors in `available`, in running order.

        Raises:
            ValueError: an input of the model would be needed that is not available.
        """
        available, pending, calls = set(available), list(targets), set()
        while pending:
            tensor = pending.pop()
            if tensor in available:
                continue
            if tensor not in self.producer:
                raise ValueError(f"tensor {tensor} is an input of the model and was not given")
            index = self.producer[tensor]
            if index not in calls:
                calls.add(index)
                pending.extend(self.calls[index].inputs)
        return sorted(calls)

    def run(self, values: Mapping[int, Any], targets: Iterable[int], training: bool | None = None) -> dict[int, Any]:
        """Computes `targets` from `values` by running only the calls in between.

        Args:
            values: tensor number to (symbolic or real) tensor.
            targets: tensor numbers to compute.
            training: passed to every layer that takes it, whatever the model itself says; None: what the model says.

        Returns:
            A dictionary with an entry for each target.
        """
        targets, known = list(targets), dict(values)
        for index in self.needed(targets, values):
            call = self.calls[index]
            known.update(zip(call.outputs, call.run(known, training), strict=True))
        return {t: known[t] for t in targets}

    def dependents(self, calls: Iterable[int]) -> set[int]:
        """Indices of the calls that depend on an output of one of `calls`; those calls themselves are among them."""
        reached = set(calls)
        changed = {t for index in reached for t in self.calls[index].outputs}
        for index in range(min(reached, default=0), len(self.calls)):
            call = self.calls[index]
            if index in reached or not changed.isdisjoint(call.inputs):
                reached.add(index)
                changed.update(call.outputs)
        return reached
