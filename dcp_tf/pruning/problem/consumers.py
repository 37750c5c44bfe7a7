"""The kernels that read a group of channels, what is still there of them, and the atoms that a selection adds."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from dcp_tf.graph import ChannelGraph, OperationRecord
from dcp_tf.graph.rule import KeptChannels
from dcp_tf.graph.trace import unwrapped

# Record of a layer, index of its weight, axis of that along which input channels lie, and for each position of the
# axis the channel of the group (-1: of another group): what `ChannelGraph.consumers` gives.
Consumer = tuple[OperationRecord, int, int, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ConsumerKernel:
    """A kernel that reads the group.

    The three arrays that say something of each place of the kernel have as many axes as it has, of length 1 where all
    places along an axis are alike.

    Attributes:
        operation: the layer.
        kernel: its weight.
        axis: of the kernel, along which input channels lie.
        channel: per position of the axis the channel of the group, -1 where it reads others.
        mask: whether a place may be anything but zero.
        atom: number of the atom (channel or kernel) that a place belongs to, -1 where it belongs to other groups.
    """

    operation: keras.Layer
    kernel: keras.Variable
    axis: int
    channel: np.ndarray
    mask: np.ndarray
    atom: np.ndarray

    def allowed(self, selected: np.ndarray) -> np.ndarray:
        """Where the kernel may be anything but zero while some atoms are selected; broadcasts like `mask`."""
        return self.mask & ((self.atom < 0) | selected[self.atom])

    def sums(self, values: np.ndarray, size: int) -> np.ndarray:
        """Adds up values of the kernel's shape for each of `size` atoms, shape (size,)."""
        collapsed = tuple(a for a, length in enumerate(self.atom.shape) if length == 1)
        totals = values.sum(collapsed, dtype=np.float64, keepdims=True)
        own = self.atom >= 0
        return np.bincount(self.atom[own], totals[own], size)


class KernelMasks:
    """Which places of each kernel are still there after the groups selected so far."""

    def __init__(self):
        self._masks: dict[int, np.ndarray] = {}
        self._kernels: dict[int, keras.Variable] = {}

    def consumer_kernels(self, consumers: Sequence[Consumer]) -> list[ConsumerKernel]:
        """The kernels that read a group, with its channels as atoms."""
        kernels = []
        for record, index, axis, channel in consumers:
            kernel = record.operation.weights[index]
            atom = _along(axis, channel, kernel)
            self._kernels[id(kernel)] = kernel
            mask = self._masks.setdefault(id(kernel), np.ones_like(atom, bool))
            kernels.append(ConsumerKernel(record.operation, kernel, axis, channel, mask, atom))
        return kernels

    def drop(self, consumers: Sequence[ConsumerKernel], selected: np.ndarray) -> None:
        """Takes away the atoms that were not selected, and sets them to zero."""
        for consumer in consumers:
            self.hold(consumer.kernel, consumer.allowed(selected))

    def hold(self, kernel: keras.Variable, places: np.ndarray) -> None:
        """Holds a kernel at zero outside of some places (boolean, broadcasts against it)."""
        self._kernels[id(kernel)] = kernel
        self._masks[id(kernel)] = places & self._masks.get(id(kernel), True)
        kernel.assign(kernel * self._masks[id(kernel)].astype(np.float32))

    def drop_filters(self, graph: ChannelGraph, kept: KeptChannels) -> None:
        """Sets the filters of removed channels to zero: their kernels are nobody's any more."""
        for record in graph.records.values():
            for index, by_axis in record.weights.items():
                kernel = record.operation.weights[index]
                for axis, labels in by_axis.items():
                    stays = kept.mask(labels)
                    if len(kernel.shape) > 1 and (index, axis) not in record.consumes and not stays.all():
                        self.hold(kernel, _along(axis, stays, kernel))

    def matrix(self, kernel: keras.Variable) -> np.ndarray:
        """Which kernels are there, boolean over the last two axes of a weight."""
        mask = self._masks[id(kernel)]
        return np.broadcast_to(mask, [1] * (mask.ndim - 2) + list(kernel.shape[-2:])).reshape(kernel.shape[-2:])

    def for_training(self) -> dict[int, np.ndarray]:
        """Per kernel (by `id()`) an array of 0 and 1 of its shape, for training that holds removed places at zero."""
        return {
            key: np.broadcast_to(mask, self._kernels[key].shape).astype(np.float32)
            for key, mask in self._masks.items()
            if not mask.all()
        }


def with_kernels(consumers: Sequence[ConsumerKernel], channels: np.ndarray) -> tuple[list[ConsumerKernel], int]:
    """The same consumers with single kernels as atoms (DKP, Liu et al. 2021, sec. 3.6).

    Args:
        consumers: of a group.
        channels: boolean, which channels of the group are there. Only their kernels are atoms.

    Returns:
        The consumers, and the number of atoms. Where a weight has no kernels per pair of channels (attention), what one
        channel reads is one atom.
    """
    with_atoms, size = [], 0
    for consumer in consumers:
        is_atom = _along(consumer.axis, (consumer.channel >= 0) & channels[consumer.channel], consumer.kernel)
        if has_kernels(consumer):
            pairs = [1] * (len(consumer.kernel.shape) - 2) + list(consumer.kernel.shape[-2:])
            is_atom = np.broadcast_to(is_atom, pairs) & consumer.mask
        atom = np.full(is_atom.shape, -1)
        atom[is_atom] = np.arange(size, size + is_atom.sum())
        size += int(is_atom.sum())
        with_atoms.append(dataclasses.replace(consumer, atom=atom))
    return with_atoms, size


def has_kernels(consumer: ConsumerKernel) -> bool:
    """Whether the last two axes of a weight are its channels, and one of them is the one that reads the group."""
    return len(consumer.kernel.shape) - consumer.axis in (1, 2)


def channels_read(consumers: Sequence[ConsumerKernel], size: int) -> np.ndarray:
    """Which of a group's channels are still read by any of its consumers, boolean of shape (size,)."""
    read = np.zeros(size, bool)
    for consumer in consumers:
        others = tuple(a for a in range(consumer.mask.ndim) if a != consumer.axis)
        stays = np.broadcast_to(consumer.mask.any(others), consumer.channel.shape) & (consumer.channel >= 0)
        read[consumer.channel[stays]] = True
    return read


def biases_of(consumers: Sequence[ConsumerKernel]) -> list[keras.Variable]:
    """The biases of the layers that own the kernels, each once."""
    biases = [getattr(unwrapped(consumer.operation), "bias", None) for consumer in consumers]
    return list({id(bias): bias for bias in biases if bias is not None}.values())


def _along(axis: int, values: np.ndarray, kernel: keras.Variable) -> np.ndarray:
    """A vector over an axis of a kernel, in a shape that broadcasts against it."""
    return values.reshape([-1 if a == axis else 1 for a in range(len(kernel.shape))])
