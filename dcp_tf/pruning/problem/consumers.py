"""The kernels that consume a group of channels, which of their entries remain, and the atoms of a selection."""

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from dcp_tf.graph import ChannelGraph, OperationRecord
from dcp_tf.graph.kinds import output_axes
from dcp_tf.graph.rule import Axis, KeptChannels, across
from dcp_tf.graph.trace import unwrapped

# What `ChannelGraph.consumers` returns: a layer's record, the index of a weight, the axis of its input channels, and
# for each position of the axis the channel of the group (-1: of another group).
Consumer = tuple[OperationRecord, int, Axis, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ConsumerKernel:
    """A kernel that consumes the group's channels.

    The arrays `mask` and `atom` have as many axes as the kernel and broadcast against it.

    Attributes:
        operation: the layer.
        kernel: its weight.
        axis: of the kernel's input channels, or several where heads and their channels have an axis each.
        channel: per position of the axis (or table of several) the channel of the group, -1 for those of other groups.
        mask: False where the kernel is held at zero.
        atom: number of the atom (channel or kernel) that an entry belongs to, -1 for other groups.
    """

    operation: keras.Layer
    kernel: keras.Variable
    axis: Axis
    channel: np.ndarray
    mask: np.ndarray
    atom: np.ndarray

    def allowed(self, selected: np.ndarray) -> np.ndarray:
        """Where the kernel may be nonzero if these atoms are selected; broadcasts like `mask`."""
        return self.mask & ((self.atom < 0) | selected[self.atom])

    @property
    def matrix(self) -> np.ndarray:
        """The kernel's values as a float64 matrix (inputs of one output value, outputs)."""
        rows = math.prod(self.kernel.shape[: -output_axes(self.operation)])
        return self.kernel.numpy().reshape(rows, -1).astype(np.float64)

    def from_matrix(self, values: np.ndarray) -> np.ndarray:
        """A matrix of that form as values for the kernel."""
        return values.reshape(self.kernel.shape).astype(np.float32)

    def sums(self, values: np.ndarray, size: int) -> np.ndarray:
        """Sums values of the kernel's shape by atom, shape (size,)."""
        collapsed = tuple(a for a, length in enumerate(self.atom.shape) if length == 1)
        totals = values.sum(collapsed, dtype=np.float64, keepdims=True)
        own = self.atom >= 0
        return np.bincount(self.atom[own], totals[own], size)


class KernelMasks:
    """Which entries of each kernel remain after the selections so far."""

    def __init__(self):
        self._masks: dict[int, np.ndarray] = {}
        self._kernels: dict[int, keras.Variable] = {}

    def consumer_kernels(self, consumers: Sequence[Consumer]) -> list[ConsumerKernel]:
        """The kernels that consume a group, with its channels as atoms."""
        kernels = []
        for record, index, axis, channel in consumers:
            kernel = record.operation.weights[index]
            atom = across(axis, channel, len(kernel.shape))
            self._kernels[id(kernel)] = kernel
            mask = self._masks.setdefault(id(kernel), np.ones_like(atom, bool))
            kernels.append(ConsumerKernel(record.operation, kernel, axis, channel, mask, atom))
        return kernels

    def drop(self, consumers: Sequence[ConsumerKernel], selected: np.ndarray) -> None:
        """Removes the atoms that were not selected: masks them and sets them to zero."""
        for consumer in consumers:
            self.restrict(consumer.kernel, consumer.allowed(selected))

    def restrict(self, kernel: keras.Variable, mask: np.ndarray) -> None:
        """Holds a kernel at zero where a boolean mask, which broadcasts against it, is False."""
        self._kernels[id(kernel)] = kernel
        self._masks[id(kernel)] = mask & self._masks.get(id(kernel), True)
        kernel.assign(kernel * self._masks[id(kernel)].astype(np.float32))

    def drop_filters(self, graph: ChannelGraph, kept: KeptChannels) -> None:
        """Sets the filters of removed channels to zero, as nothing uses their outputs."""
        for record in graph.records.values():
            for index, by_axis in record.weights.items():
                kernel = record.operation.weights[index]
                for axis, labels in by_axis.items():
                    remains = kept.mask(labels)
                    if len(kernel.shape) > 1 and (index, axis) not in record.consumes and not remains.all():
                        self.restrict(kernel, across(axis, remains, len(kernel.shape)))

    def matrix(self, kernel: keras.Variable) -> np.ndarray:
        """Which kernels remain, boolean over the last two axes of a weight."""
        mask = self._masks[id(kernel)]
        return np.broadcast_to(mask, [1] * (mask.ndim - 2) + list(kernel.shape[-2:])).reshape(kernel.shape[-2:])

    def for_training(self) -> dict[int, np.ndarray]:
        """Masks for `fit`: by `id()` of a kernel an array of 0 and 1 of its shape."""
        return {
            key: np.broadcast_to(mask, self._kernels[key].shape).astype(np.float32)
            for key, mask in self._masks.items()
            if not mask.all()
        }


def with_kernels(consumers: Sequence[ConsumerKernel], channels: np.ndarray) -> tuple[list[ConsumerKernel], int]:
    """The same consumers with single kernels as atoms (DKP, Liu et al. 2021, sec. 3.6).

    Args:
        consumers: of a group.
        channels: boolean, which channels of the group remain. Only their kernels are atoms.

    Returns:
        The consumers, and the number of atoms. In a weight without one kernel per pair of channels (attention) all
        entries of an input channel are one atom.
    """
    with_atoms, size = [], 0
    for consumer in consumers:
        is_atom = across(
            consumer.axis, (consumer.channel >= 0) & channels[consumer.channel], len(consumer.kernel.shape)
        )
        if has_kernels(consumer):
            pairs = [1] * (len(consumer.kernel.shape) - 2) + list(consumer.kernel.shape[-2:])
            is_atom = np.broadcast_to(is_atom, pairs) & consumer.mask
        atom = np.full(is_atom.shape, -1)
        atom[is_atom] = np.arange(size, size + is_atom.sum())
        size += int(is_atom.sum())
        with_atoms.append(dataclasses.replace(consumer, atom=atom))
    return with_atoms, size


def has_kernels(consumer: ConsumerKernel) -> bool:
    """Whether the last two axes of a weight are its channels, and the group lies along one of them."""
    return isinstance(consumer.axis, int) and len(consumer.kernel.shape) - consumer.axis in (1, 2)


def channels_read(consumers: Sequence[ConsumerKernel], size: int) -> np.ndarray:
    """Which of a group's channels any of its consumers still reads, boolean of shape (size,)."""
    read = np.zeros(size, bool)
    for consumer in consumers:
        own = (consumer.axis,) if isinstance(consumer.axis, int) else consumer.axis
        others = tuple(a for a in range(consumer.mask.ndim) if a not in own)
        is_read = np.broadcast_to(consumer.mask.any(others), consumer.channel.shape) & (consumer.channel >= 0)
        read[consumer.channel[is_read]] = True
    return read


def biases_of(consumers: Sequence[ConsumerKernel]) -> list[keras.Variable]:
    """The biases of the layers that own the kernels, each once."""
    biases = [getattr(unwrapped(consumer.operation), "bias", None) for consumer in consumers]
    return list({id(bias): bias for bias in biases if bias is not None}.values())
