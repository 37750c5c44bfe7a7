"""Kernels that are zero: what kernel pruning leaves, and what later training has to hold."""

import keras
import numpy as np


def zero_kernel_masks(model: keras.Model) -> dict[int, np.ndarray]:
    """Masks that hold at zero what is zero now.

    Args:
        model: functional or Sequential, perhaps nested.

    Returns:
        Per weight (by its `id()`) an array of 0 and 1 of its shape, for `training.fit`: of every convolution or fully
        connected layer some of whose kernels are zero as a whole. Layers that are zero altogether are left free: they
        were made so to be trained.
    """
    masks = {}
    for layer in _layers(model):
        stays = _nonzero(layer)
        if stays.any() and not stays.all():
            masks[id(layer.kernel)] = np.broadcast_to(stays, layer.kernel.shape).astype(np.float32)
    return masks


def kernel_sparsity(model: keras.Model) -> dict[str, float]:
    """The share of kernels that are zero, by the path of each layer that has any."""
    shares = {layer.path: 1.0 - float(_nonzero(layer).mean()) for layer in _layers(model)}
    return {path: share for path, share in shares.items() if share}


_LAYERS = (
    *(keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
)


def _layers(model: keras.Model) -> list[keras.Layer]:
    return [layer for layer in model._flatten_layers() if isinstance(layer, _LAYERS) and layer.built]


def _nonzero(layer: keras.Layer) -> np.ndarray:
    """Which kernels have any weight, (1, ..., inputs, filters)."""
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    return (kernel != 0).any(tuple(range(kernel.ndim - 2)), keepdims=True)
