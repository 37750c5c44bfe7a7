"""What happens to zeros, and to any linear map of the channels, on the way through a network."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import layers
from keras.src.ops import core, image, nn
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.channelwise import follows
from dcp_tf.graph.identity import does_nothing, is_zero_at_zero
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.rule import Axis, OperationRecord, keeps_zeros
from dcp_tf.graph.trace import Call, Trace


def _layers(names: str) -> tuple[type, ...]:
    names = [name.format(rank) for name in names.split() for rank in ((1, 2, 3) if "{}" in name else (0,))]
    return tuple(getattr(layers, name) for name in names if hasattr(layers, name))


def _operations(module: object, names: str) -> tuple[type, ...]:
    return tuple(getattr(module, name) for name in names.split() if hasattr(module, name))


# Of each channel alone: weighted means over positions, the weights of which sum up to 1.
_AVERAGING = (
    *_layers(
        "Concatenate Reshape Permute Flatten Identity Dropout SpatialDropout{}D ActivityRegularization RepeatVector"
    ),
    *_layers("Average AveragePooling{}D GlobalAveragePooling{}D Cropping{}D UpSampling{}D Resizing CenterCrop"),
    *_operations(numpy_ops, "Concatenate Reshape Transpose Swapaxes Moveaxis Squeeze ExpandDims GetItem Split Take"),
    *_operations(numpy_ops, "Mean Average Stack Tile Repeat Flip Roll Copy BroadcastTo"),
    *_operations(core, "StopGradient Unstack"),
    *_operations(nn, "AveragePool"),
    *_operations(image, "Resize"),
)
_SUMS = (*_layers("Add Subtract"), *_operations(numpy_ops, "Add Subtract"))
_LINEAR = (*_AVERAGING, *_layers("ZeroPadding{}D"), *_operations(numpy_ops, "Sum Negative"))
_ZERO_AT_ZERO = (
    *_layers("ReLU LeakyReLU ELU PReLU Maximum Minimum MaxPooling{}D GlobalMaxPooling{}D UnitNormalization"),
    *_operations(nn, "Relu Relu6 LeakyRelu Elu Gelu Silu Tanh HardSilu MaxPool"),
    *_operations(numpy_ops, "Tanh Abs Absolute Square Sqrt Max Amax Maximum Minimum"),
)
_PRODUCTS = (layers.Multiply, numpy_ops.Multiply)
_SCALED = {
    layers.BatchNormalization: ("gamma", "beta"),
    layers.GroupNormalization: ("gamma", "beta"),
    layers.LayerNormalization: ("gamma", "beta"),
    **dict.fromkeys(_layers("RMSNormalization"), ("scale",)),
}
_HUB = {"keras_hub.src.models.vit.vit_layers.ViTPatchingAndEmbedding"}


def is_linear(call: Call, trace: Trace) -> bool:
    """Whether an operation adds and moves what its tensors hold, each channel alone, and adds nothing of its own."""
    kind = type(call.operation)
    if kind in _SUMS:
        return len(call.inputs) == sum(np.ndim(x) > 0 or isinstance(x, keras.KerasTensor) for x in call.arguments) > 1
    return kind in _LINEAR or keeps_zeros(call) or is_averaging(call, trace)


def is_averaging(call: Call, trace: Trace) -> bool:
    """Whether an operation is linear, and a vector that all positions share is left as it is."""
    if type(call.operation) in _AVERAGING:
        return True
    shapes = [[trace.shapes[tensor] for tensor in tensors] for tensors in (call.inputs, call.outputs)]
    return does_nothing(call.operation, *shapes)


def makes_channels(operation: keras.Operation) -> bool:
    """Whether the outputs of a layer are linear in those of its weights that name output channels."""
    known = isinstance(operation, (*layers_of(), layers.Dense, layers.EinsumDense, layers.Embedding))
    return known or f"{type(operation).__module__}.{type(operation).__qualname__}" in _HUB


def made_axes(record: OperationRecord) -> list[tuple[int, Axis]]:
    """The axes of the weights of a layer (see `makes_channels`) that name its output channels."""
    return [(i, axis) for i, by_axis in record.weights.items() for axis in by_axis if (i, axis) not in record.consumes]


def zero_slices(trace: Trace, records: Mapping[int, OperationRecord], tensor: int) -> list | str:
    """Where zeros in weights make channels of a tensor zero.

    Args:
        trace: of the model.
        records: by the id of an operation what its rule stated, of all that run before the tensor is made.
        tensor: its number.

    Returns:
        Tuples (record, index of the weight, axis); or the name of what makes the channels and has no such weights.
    """
    slices, pending, seen = [], [tensor], set()
    while pending:
        tensor = pending.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor not in trace.producer:
            return "an input of the model"
        call = trace.calls[trace.producer[tensor]]
        operation, record = call.operation, records[id(call.operation)]
        names = _SCALED.get(type(operation))
        if record.passes:
            return call.path
        if makes_channels(operation) and is_zero_at_zero(getattr(operation, "activation", None)):
            slices += [(record, *where) for where in made_axes(record)]
        elif names is not None and getattr(operation, names[0], None) is not None:
            of_names = {id(getattr(operation, name)) for name in names}
            own = [i for i in record.weights if id(operation.weights[i]) in of_names]
            if not own:
                return call.path
            slices += [(record, i, axis) for i in own for axis in record.weights[i]]
        elif _keeps_zero_channels(call, trace):
            pending += call.inputs
        elif isinstance(operation, _PRODUCTS):
            factors = [zero_slices(trace, records, factor) for factor in call.inputs]
            known = [factor for factor in factors if not isinstance(factor, str)]
            if not known:
                return factors[0]
            slices += known[0]
        else:
            return call.path
    return slices


def _keeps_zero_channels(call: Call, trace: Trace) -> bool:
    if isinstance(call.operation, layers.Activation):
        return is_zero_at_zero(call.operation.activation)
    return type(call.operation) in _ZERO_AT_ZERO or is_linear(call, trace) or _own_keeps_zeros(call, trace)


def _own_keeps_zeros(call: Call, trace: Trace) -> bool:
    """Whether a custom layer treats each channel of the last axis alone and leaves one of zeros as it is."""
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        return False
    before, after = trace.shapes[call.inputs[0]], trace.shapes[call.outputs[0]]
    found = follows(call.operation, before, after, len(before) - 1)
    return found is not None and found.keeps_zeros and not found.takes_statistics
