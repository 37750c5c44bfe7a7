"""Residual blocks: all calls between a split of a stream and the sum that adds what they make to that stream.

Such a block can go as a whole: what reads its sum then reads the stream before it. That is the model whose branch puts
out zeros, computed without the branch.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.src.activations import activations
from keras.src.ops import nn
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.identity import is_zero_at_zero
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.trace import Call, Trace

_SUMS = (keras.layers.Add, numpy_ops.Add)
_RECTIFIERS = (keras.layers.ReLU, keras.layers.Activation, nn.Relu, nn.Relu6, activations.ReLU)
_RELU_SETTINGS = (("max_value", None), ("negative_slope", 0), ("threshold", 0))
_MULTIPLYING = (
    *layers_of("dense", "convolution", "transposed", "depthwise", "separable"),
    keras.layers.EinsumDense,
)
# What makes zeros of zeros, whatever its weights are.
_PASSING = tuple(
    getattr(keras.layers, name) for name in ("Dropout", "SpatialDropout2D", "Identity", "LeakyReLU", "PReLU")
)


@dataclasses.dataclass(frozen=True)
class ResidualBlock:
    """A block that may go as a whole.

    Attributes:
        name: path of the sum that ends it.
        branch: number of the tensor that its branch adds to the stream.
        calls: indices of the calls that go with it, in running order: the branch, the sum, and an activation behind
            the sum that the stream has passed already.
        stream: number of the tensor before it.
        output: number of the tensor that the stream replaces.
    """

    name: str
    branch: int
    calls: tuple[int, ...]
    stream: int
    output: int


def residual_blocks(trace: Trace) -> tuple[ResidualBlock, ...]:
    """The blocks of a model, shallow to deep; of blocks inside of others the inner ones.

    The branch reads the stream alone, and nothing else reads from inside of it. Layers that are called several times
    stay, and so does a branch with a nested model inside.
    """
    readers: dict[int, list[int]] = {}
    times: dict[int, int] = {}
    for index, call in enumerate(trace.calls):
        times[id(call.operation)] = times.get(id(call.operation), 0) + 1
        for tensor in call.inputs:
            readers.setdefault(tensor, []).append(index)
    blocks: list[ResidualBlock] = []
    for index, call in enumerate(trace.calls):
        block = _block_at(trace, readers, index) if isinstance(call.operation, _SUMS) else None
        if block is None or any(times[id(trace.calls[i].operation)] > 1 for i in block.calls):
            continue
        if not any(set(inner.calls) & set(block.calls) for inner in blocks):
            blocks.append(block)
    return tuple(blocks)


def replaced_tensors(blocks: Sequence[ResidualBlock]) -> dict[int, int]:
    """Per output of a removed block the tensor that stands in its place, through several blocks in a row."""
    before = {block.output: block.stream for block in blocks}

    def origin(tensor: int) -> int:
        while tensor in before:
            tensor = before[tensor]
        return tensor

    return {tensor: origin(tensor) for tensor in before}


def without_calls(blocks: Sequence[ResidualBlock]) -> frozenset[int]:
    """Indices of the calls that go with some blocks."""
    return frozenset(index for block in blocks for index in block.calls)


def matching_tensors(before: Trace, after: Trace, removed: Sequence[ResidualBlock]) -> dict[int, int]:
    """Per tensor of a model that with which the model without some blocks computes the same, or in its place."""
    if not removed:
        return {tensor: tensor for tensor in range(len(before.shapes))}
    gone, times = without_calls(removed), collections.Counter()
    # In which order calls run that do not depend on each other may differ: they are known by name.
    calls: dict[tuple[str, int], Call] = {}
    for call in after.calls:
        times[call.path] += 1
        calls[call.path, times[call.path]] = call
    tensors, times = dict(zip(before.inputs, after.inputs, strict=True)), collections.Counter()
    for index, call in enumerate(before.calls):
        if index not in gone:
            times[call.path] += 1
            tensors.update(zip(call.outputs, calls[call.path, times[call.path]].outputs, strict=True))
    for block in sorted(removed, key=lambda block: block.calls):
        joined = next(before.calls[i].outputs[0] for i in block.calls if before.calls[i].path == block.name)
        if joined != block.output:  # a ReLU went too: what it read stands for what the ReLU of the stream read
            tensors[joined] = tensors[before.calls[before.producer[block.stream]].inputs[0]]
        tensors[block.output] = tensors[block.stream]
    return tensors


def stream_tensors(trace: Trace, block: ResidualBlock) -> tuple[int, int]:
    """The `id()` of the Keras tensor that a block makes, and of the one that stands in its place."""
    (joining,) = (trace.calls[i] for i in block.calls if trace.calls[i].path == block.name)
    stream = next(x for x in joining.node.arguments.keras_tensors if joining.bindings[id(x)] == block.stream)
    return id(trace.calls[block.calls[-1]].node.outputs[0]), id(stream)


def branch_weights(trace: Trace, block: ResidualBlock) -> list[keras.Variable]:
    """The weights at the end of a branch that, all zero, make it put out zeros; empty where there are none.

    The last layers are followed from the sum backward, through what leaves zeros zero.
    """
    tensor, found = block.branch, []
    while tensor != block.stream:
        call = trace.calls[trace.producer[tensor]]
        layer = call.operation
        if isinstance(layer, keras.layers.BatchNormalization):
            if layer.scale:  # then what it reads does not matter
                return [*found, layer.gamma, *([layer.beta] if layer.center else [])]
            found += [layer.moving_mean, *([layer.beta] if layer.center else [])]
        elif isinstance(layer, _MULTIPLYING):
            kernel = getattr(layer, "pointwise_kernel", None)
            kernel = layer.kernel if kernel is None else kernel
            own = [kernel, *([] if layer.bias is None else [layer.bias])]
            return [*found, *own] if is_zero_at_zero(layer.activation) else []
        elif isinstance(layer, _RECTIFIERS):
            if not is_zero_at_zero(getattr(layer, "activation", None)):
                return []
        elif not isinstance(layer, _PASSING):
            return []
        tensor = call.inputs[0]
    return []


def _block_at(trace: Trace, readers: Mapping[int, list[int]], index: int) -> ResidualBlock | None:
    """The block that ends with a sum, if one of its two inputs is the stream that the other one is made of."""
    call = trace.calls[index]
    if len(call.inputs) != 2 or len(set(call.inputs)) != 2:
        return None
    for stream, branch in (call.inputs, call.inputs[::-1]):
        inside = _branch(trace, stream, branch)
        if not inside or trace.shapes[stream] != trace.shapes[call.outputs[0]]:
            continue
        made = {t for i in inside for t in trace.calls[i].outputs}
        leaves = {i for t in made for i in readers.get(t, ())} - {*inside, index}
        if leaves or made & set(trace.outputs) or not _is_one_scope([trace.calls[i] for i in (*inside, index)]):
            continue
        after = [index, *_repeated(trace, readers, index, stream)]
        return ResidualBlock(call.path, branch, (*inside, *after), stream, trace.calls[after[-1]].outputs[0])
    return None


def _branch(trace: Trace, stream: int, branch: int) -> list[int]:
    """The calls that make the branch of the stream alone; none if it needs anything else."""
    try:
        inside = trace.needed([branch], [stream])
    except ValueError:  # another tensor leads into it
        return []
    return inside if any(getattr(trace.calls[i].operation, "weights", ()) for i in inside) else []


def _repeated(trace: Trace, readers: Mapping[int, list[int]], index: int, stream: int) -> Iterator[int]:
    """The ReLU behind the sum, if the stream has passed the same before: applied twice it changes nothing."""
    output = trace.calls[index].outputs[0]
    following = readers.get(output, [])
    if len(following) != 1 or output in trace.outputs or stream not in trace.producer:
        return
    before, after = trace.calls[trace.producer[stream]], trace.calls[following[0]]
    if not _is_one_scope([before, after, trace.calls[index]]):
        return
    if (kind := _rectifier(after.operation)) is not None and kind == _rectifier(before.operation):
        yield following[0]


def _rectifier(operation: Any) -> tuple | None:
    """What two ReLUs of one kind share; None for all else."""
    if not isinstance(operation, _RECTIFIERS):
        return None
    name = getattr(getattr(operation, "activation", None), "__name__", type(operation).__name__.lower())
    limits = [getattr(operation, key, default) for key, default in _RELU_SETTINGS]
    is_plain = name in ("relu", "relu6") and not limits[1] and not limits[2]
    return (name, limits[0]) if is_plain else None


def _is_one_scope(calls: Sequence[Call]) -> bool:
    """Whether calls lie in one model; those inside of an opened layer lie where the layer is."""
    return len({tuple(call.path.split("/")[: -1 - call.is_inside]) for call in calls}) == 1
