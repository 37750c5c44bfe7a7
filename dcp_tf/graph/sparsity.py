"""Zero kernels: what kernel pruning leaves behind, and what later training must keep at zero."""

import dataclasses

import keras
import numpy as np

from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.cost import count_cost
from dcp_tf.graph.kinds import layers_of


@dataclasses.dataclass(frozen=True)
class KernelCount:
    """The kernels of one layer, one per pair of input channel and filter.

    Attributes:
        path: of the layer.
        total: how many it has.
        kept: how many of them have any weight that is not zero.
    """

    path: str
    total: int
    kept: int

    @property
    def sparsity(self) -> float:
        """The fraction that is zero."""
        return 1 - self.kept / self.total


def zero_kernel_masks(model: keras.Model) -> dict[int, np.ndarray]:
    """Masks that keep zero kernels at zero.

    Args:
        model: functional or Sequential, perhaps nested.

    Returns:
        For each weight (by its `id()`) an array of 0 and 1 of its shape, for `training.fit`, one for every convolution
        or fully connected layer that has some zero kernels. Layers whose kernels are all zero get no mask: they were
        initialized so in order to be trained.
    """
    masks = {}
    for layer in _layers(model):
        stays = _nonzero(layer)
        if stays.any() and not stays.all():
            masks[id(layer.kernel)] = np.broadcast_to(stays, layer.kernel.shape).astype(np.float32)
    return masks


def kernel_sparsity(model: keras.Model | ChannelGraph) -> list[KernelCount]:
    """The layers with zero kernels, in running order."""
    graph = model if isinstance(model, ChannelGraph) else ChannelGraph(model)
    records = [r for r in graph.records.values() if isinstance(r.operation, _LAYERS)]
    stays = [_nonzero(record.operation) for record in records]
    return [
        KernelCount(record.path, nonzero.size, int(nonzero.sum()))
        for record, nonzero in zip(records, stays, strict=True)
        if not nonzero.all()
    ]


def nominal_macs(model: keras.Model | ChannelGraph, input_shape: tuple | None = None) -> int:
    """Multiply-accumulates without those of zero kernels, which a dense runtime still computes.

    Args:
        model: functional or Sequential, or its graph.
        input_shape: of one image, where the model leaves its size open.
    """
    kept = {count.path: (count.kept, count.total) for count in kernel_sparsity(model)}
    total = 0
    for layer in count_cost(model, input_shape=input_shape).layers:
        nonzero, kernels = kept.get(layer.path, (1, 1))
        total += layer.macs * nonzero // kernels
    return total


_LAYERS = layers_of("dense", "convolution", "transposed")


def _layers(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, _LAYERS) and layer.built]


def _nonzero(layer: keras.Layer) -> np.ndarray:
    """Which kernels are not zero, (1, ..., inputs, filters)."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    return (kernel != 0).any(tuple(range(kernel.ndim - 2)), keepdims=True)
