"""Constant channels: those of filters whose kernels are all zero have one value, whatever the image."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from dcp_tf.graph.channel_graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.rule import OperationRecord

# Input scales on which channels are probed: gates that are constant for small inputs may change for large ones.
_PROBES = (0.0, 1.0, 10.0, 100.0, 1000.0)
_ROUNDING = 5e-7  # vectorized functions give the same argument values that differ in the last bits


def fold_constants(graph: ChannelGraph, groups: Sequence[ChannelGroup], seed: int = 0) -> dict[str, np.ndarray]:
    """Removes constant channels from the layers that read them, where that is exact, and adds their effect to biases.

    A channel is constant if all filters that produce it have zero kernels. It is removed if each layer that reads it
    adds the same value at every position: the channel is zero (after a ReLU, say), or the layer reads no padding and
    has a bias. The kernels that read the channel become zero.

    Args:
        graph: of the model, whose weights change.
        groups: those that may lose channels.
        seed: of the inputs on which the constants are measured.

    Returns:
        For each group name which channels no longer matter, boolean of shape (size,).
    """
    dead = {group.name: _filterless(graph, group) for group in groups}
    dead = {name: channels for name, channels in dead.items() if channels.any()}
    folded = {group.name: np.zeros(group.size, bool) for group in groups}
    if not dead:
        return folded
    readers = {name: _readers(graph, graph.group(name)) for name in dead}
    tensors = {
        t for reads in readers.values() for *_, calls in reads for i in calls for t in graph.trace.calls[i].inputs
    }
    values = _probe(graph, sorted(tensors), seed)
    for name, channels in dead.items():
        for channel in np.flatnonzero(channels):
            additions = [_added_value(graph, reader, channel, values) for reader in readers[name]]
            if all(added is not None for added in additions):
                for (record, index, axis, numbers, _), added in zip(readers[name], additions, strict=True):
                    _take_out(record, index, axis, numbers == channel, added)
                folded[name][channel] = True
    return folded


def _filterless(graph: ChannelGraph, group: ChannelGroup) -> np.ndarray:
    """Which channels have only zero filters, boolean; none if something other than kernels produces the group."""
    kernels = graph.producing_kernels(group)
    norms = np.zeros(group.size)
    has_filter = np.zeros(group.size, bool)
    for kernel, axis, channel in kernels:
        others = tuple(a for a in range(kernel.ndim) if a != axis)
        in_group = channel >= 0
        norms += np.bincount(channel[in_group], np.abs(kernel).sum(others)[in_group], group.size)
        has_filter[channel[in_group]] = True
    return has_filter & (norms == 0)


def _readers(graph: ChannelGraph, group: ChannelGroup) -> list[tuple[OperationRecord, int, int, np.ndarray, list[int]]]:
    return [(*consumer, graph.calls_of(consumer[0])) for consumer in graph.consumers(group)]


def _probe(graph: ChannelGraph, tensors: Sequence[int], seed: int) -> Mapping[int, np.ndarray]:
    """The values of some tensors for random inputs."""
    rng, trace = np.random.default_rng(seed), graph.trace
    scales = np.asarray(_PROBES, np.float32)
    inputs = {}
    for tensor in trace.inputs:
        shape = [32 if size is None else size for size in trace.shapes[tensor][1:]]
        draws = rng.normal(size=(len(scales), *shape)).astype(np.float32)
        # Numbers of classes or words: each is 0 or 1, which every embedding has.
        numbers = not _is_float(graph, tensor)
        inputs[tensor] = (draws > 0).astype(int) if numbers else draws * scales.reshape(-1, *[1] * len(shape))
    outputs = trace.run(inputs, tensors, training=False)
    return {t: keras.ops.convert_to_numpy(outputs[t]) for t in tensors}


def _is_float(graph: ChannelGraph, tensor: int) -> bool:
    """Whether an input of the model holds numbers of any size, not those of classes or words."""
    readers = [call.operation for call in graph.trace.calls if tensor in call.inputs]
    return graph.trace.dtype(tensor).startswith(("float", "bfloat")) and not any(
        isinstance(reader, keras.layers.Embedding) for reader in readers
    )


def _added_value(
    graph: ChannelGraph, reader: tuple, channel: int, values: Mapping[int, np.ndarray]
) -> np.ndarray | None:
    """What a channel adds to each output of a layer; None if that differs between positions."""
    record, index, axis, numbers, calls = reader
    layer, kernel = record.operation, keras.ops.convert_to_numpy(record.operation.weights[index])
    positions = np.flatnonzero(numbers == channel)
    if not np.take(kernel, positions, axis).any():
        return np.zeros(0)
    plain = isinstance(layer, layers_of("dense", "convolution")) and getattr(layer, "groups", 1) == 1
    if not plain or axis != kernel.ndim - 2:
        return None
    total = None
    for call in calls:
        (tensor,) = graph.trace.calls[call].inputs
        channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
        read = np.take(values[tensor], positions, -1 if channels_last else 1)
        own = np.moveaxis(read, -1 if channels_last else 1, 0).reshape(len(positions), -1)
        total = own[:, 0] if total is None else total
        if not (np.abs(own - total[:, None]) <= _ROUNDING * np.abs(total[:, None])).all():
            return None
    if not total.any():
        return np.zeros(0)
    if layer.bias is None or (getattr(layer, "padding", "valid") != "valid" and max(layer.kernel_size) > 1):
        return None
    per_position = kernel.sum(tuple(range(kernel.ndim - 2)))
    return total @ per_position[positions]


def _take_out(record: OperationRecord, index: int, axis: int, removed: np.ndarray, added: np.ndarray) -> None:
    kernel = record.operation.weights[index]
    stays = np.where(removed, 0.0, 1.0).reshape([-1 if a == axis else 1 for a in range(len(kernel.shape))])
    kernel.assign(keras.ops.convert_to_numpy(kernel) * stays.astype(np.float32))
    if added.size:
        record.operation.bias.assign_add(added.astype(np.float32))
