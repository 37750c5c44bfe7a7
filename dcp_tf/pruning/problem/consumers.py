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
class Reader:
    """A kernel that reads the group.

    The three arrays that say something of each place of the kernel have as many axes as it has, of length 1 where all
    places along an axis are alike.

    Attributes:
        operation: the layer.
        kernel: its weight.
        axis: of the kernel, along which input channels lie.
        channel: per position of the axis the channel of the group, -1 where it reads others.
        held: whether a place may be anything but zero.
        atom: number of the atom (channel or kernel) that a place belongs to, -1 where it belongs to other groups.
    """

    operation: keras.Layer
    kernel: keras.Variable
    axis: int
    channel: np.ndarray
    held: np.ndarray
    atom: np.ndarray

    def allowed(self, selected: np.ndarray) -> np.ndarray:
        """Where the kernel may be anything but zero while some atoms are selected; broadcasts like `held`."""
        return self.held & ((self.atom < 0) | selected[self.atom])

    def sums(self, values: np.ndarray, size: int) -> np.ndarray:
        """Adds up values of the kernel's shape for each of `size` atoms, shape (size,)."""
        collapsed = tuple(a for a, length in enumerate(self.atom.shape) if length == 1)
        totals = values.sum(collapsed, dtype=np.float64, keepdims=True)
        mine = self.atom >= 0
        return np.bincount(self.atom[mine], totals[mine], size)


class HeldPlaces:
    """Which places of each kernel are still there after the groups selected so far."""

    def __init__(self):
        self._held: dict[int, np.ndarray] = {}
        self._kernels: dict[int, keras.Variable] = {}

    def readers(self, consumers: Sequence[Consumer]) -> list[Reader]:
        """The kernels that read a group, with its channels as atoms."""
        readers = []
        for record, index, axis, channel in consumers:
            kernel = record.operation.weights[index]
            atom = _along(axis, channel, kernel)
            self._kernels[id(kernel)] = kernel
            held = self._held.setdefault(id(kernel), np.ones_like(atom, bool))
            readers.append(Reader(record.operation, kernel, axis, channel, held, atom))
        return readers

    def drop(self, readers: Sequence[Reader], selected: np.ndarray) -> None:
        """Takes away the atoms that were not selected, and sets them to zero."""
        for reader in readers:
            self.hold(reader.kernel, reader.allowed(selected))

    def hold(self, kernel: keras.Variable, places: np.ndarray) -> None:
        """Holds a kernel at zero outside of some places (boolean, broadcasts against it)."""
        self._kernels[id(kernel)] = kernel
        self._held[id(kernel)] = places & self._held.get(id(kernel), True)
        kernel.assign(kernel * self._held[id(kernel)].astype(np.float32))

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
        held = self._held[id(kernel)]
        return np.broadcast_to(held, [1] * (held.ndim - 2) + list(kernel.shape[-2:])).reshape(kernel.shape[-2:])

    def masks(self) -> dict[int, np.ndarray]:
        """Per kernel (by `id()`) an array of 0 and 1 of its shape, for training that holds removed places at zero."""
        return {
            key: np.broadcast_to(held, self._kernels[key].shape).astype(np.float32)
            for key, held in self._held.items()
            if not held.all()
        }


def with_kernels(readers: Sequence[Reader], channels: np.ndarray) -> tuple[list[Reader], int]:
    """The same readers with single kernels as atoms (DKP, Liu et al. 2021, sec. 3.6).

    Args:
        readers: of a group.
        channels: boolean, which channels of the group are there. Only their kernels are atoms.

    Returns:
        The readers, and the number of atoms. Where a weight has no kernels per pair of channels (attention), what one
        channel reads is one atom.
    """
    found, size = [], 0
    for reader in readers:
        mine = _along(reader.axis, (reader.channel >= 0) & channels[reader.channel], reader.kernel)
        if has_kernels(reader):
            pairs = [1] * (len(reader.kernel.shape) - 2) + list(reader.kernel.shape[-2:])
            mine = np.broadcast_to(mine, pairs) & reader.held
        atom = np.full(mine.shape, -1)
        atom[mine] = np.arange(size, size + mine.sum())
        size += int(mine.sum())
        found.append(dataclasses.replace(reader, atom=atom))
    return found, size


def has_kernels(reader: Reader) -> bool:
    """Whether the last two axes of a weight are its channels, and one of them is the one that reads the group."""
    return len(reader.kernel.shape) - reader.axis in (1, 2)


def channels_read(readers: Sequence[Reader], size: int) -> np.ndarray:
    """Which of a group's channels are still read by any of its readers, boolean of shape (size,)."""
    read = np.zeros(size, bool)
    for reader in readers:
        others = tuple(a for a in range(reader.held.ndim) if a != reader.axis)
        stays = np.broadcast_to(reader.held.any(others), reader.channel.shape) & (reader.channel >= 0)
        read[reader.channel[stays]] = True
    return read


def biases_of(readers: Sequence[Reader]) -> list[keras.Variable]:
    """The biases of the layers that own the kernels, each once."""
    biases = [getattr(unwrapped(reader.operation), "bias", None) for reader in readers]
    return list({id(bias): bias for bias in biases if bias is not None}.values())


def _along(axis: int, values: np.ndarray, kernel: keras.Variable) -> np.ndarray:
    """A vector over an axis of a kernel, in a shape that broadcasts against it."""
    return values.reshape([-1 if a == axis else 1 for a in range(len(kernel.shape))])
