"""The kernels that read a group of channels, and which of their input positions are still there."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from dcp_tf.graph import ChannelGraph, ChannelGroup


@dataclasses.dataclass(eq=False)
class Reader:
    """A kernel that reads the group.

    Attributes:
        operation: the layer.
        kernel: its weight.
        axis: of the kernel, along which input channels lie.
        channel: per position of the axis the channel of the group, -1 where it reads others.
        held: per position of the axis whether it may be anything but zero; shared by all problems.
    """

    operation: keras.Layer
    kernel: keras.Variable
    axis: int
    channel: np.ndarray
    held: np.ndarray

    def along_axis(self, values: np.ndarray) -> np.ndarray:
        """A vector over the axis in a shape that broadcasts against the kernel."""
        return values.reshape([-1 if a == self.axis else 1 for a in range(len(self.kernel.shape))])


class HeldPositions:
    """Which input positions of each kernel are still there after the groups selected so far."""

    def __init__(self):
        self._held: dict[int, np.ndarray] = {}

    def readers(self, graph: ChannelGraph, group: ChannelGroup) -> list[Reader]:
        """The kernels that read a group."""
        readers = []
        for record, index, axis, channel in graph.consumers(group):
            kernel = record.operation.weights[index]
            held = self._held.setdefault(id(kernel), np.ones(len(channel), bool))
            readers.append(Reader(record.operation, kernel, axis, channel, held))
        return readers

    def drop(self, readers: Sequence[Reader], selected: np.ndarray) -> None:
        """Takes away what the group does not keep, and sets it to zero."""
        for reader in readers:
            reader.held &= (reader.channel < 0) | selected[reader.channel]
            reader.kernel.assign(reader.kernel * reader.along_axis(reader.held.astype(np.float32)))

    def masks(self, graph: ChannelGraph) -> dict[int, np.ndarray]:
        """Per kernel (by `id()`) an array of 0 and 1 of its shape, for training that holds removed channels at zero."""
        found = {}
        for record in graph.records.values():
            for index, axis in record.consumes:
                kernel = record.operation.weights[index]
                held = self._held.get(id(kernel))
                if held is not None and not held.all():
                    shape = [-1 if a == axis else 1 for a in range(len(kernel.shape))]
                    found[id(kernel)] = np.broadcast_to(held.reshape(shape), kernel.shape).astype(np.float32)
        return found


def biases_of(readers: Sequence[Reader]) -> list[keras.Variable]:
    """The biases of the layers that own the kernels, each once."""
    found: Mapping[int, keras.Variable] = {
        id(r.operation.bias): r.operation.bias for r in readers if getattr(r.operation, "bias", None) is not None
    }
    return list(found.values())
