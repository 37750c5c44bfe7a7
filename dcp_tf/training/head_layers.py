"""The layers of auxiliary heads."""

import keras
import numpy as np
import tensorflow as tf

_POOLING = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
_CONVOLUTIONS = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}

# Ranks of the tensors that a pooling head can read: vectors, signals, images, volumes.
POOLED_RANKS = (2, *_POOLING)


def pooled_head(name: str, shape: tuple, units: int, data_format: str, activation: str | None = None) -> keras.Model:
    """`Dense(AvgPool(ReLU(BatchNorm(feature map))))` (Liu et al. 2021, eq. 3 and 4).

    Args:
        name: of the head; its layers' names begin with it.
        shape: of the feature map, with the batch axis; a vector is not pooled.
        units: the size of its output.
        data_format: of the feature map.
        activation: of the last layer.

    Returns:
        An untrained model.
    """
    feature_map, x = _normalized(name, shape, data_format)
    if len(shape) > 2:
        x = _POOLING[len(shape)](data_format=data_format, name=f"{name}_pool")(x)
    return keras.Model(feature_map, keras.layers.Dense(units, activation, name=f"{name}_dense")(x), name=name)


def map_head(
    name: str, shape: tuple, output_shape: tuple, data_format: str, activation: str | None = None
) -> keras.Model:
    """`Resize(Conv1x1(ReLU(BatchNorm(feature map))))`, for outputs with one prediction per position.

    Args:
        name: of the head; its layers' names begin with it.
        shape: of the feature map, with the batch axis.
        output_shape: of the model, with the batch axis; of the same rank, predictions on the last axis.
        data_format: of the feature map.
        activation: of the resized map.

    Returns:
        An untrained model with outputs of that shape.
    """
    feature_map, x = _normalized(name, shape, data_format)
    x = _CONVOLUTIONS[len(shape)](output_shape[-1], 1, data_format=data_format, name=f"{name}_conv")(x)
    if data_format == "channels_first":
        x = keras.layers.Permute((*range(2, len(shape)), 1), name=f"{name}_channels_last")(x)
    if tuple(x.shape[1:-1]) != tuple(output_shape[1:-1]):
        # Bilinear weights sum to 1, so this commutes with the convolution.
        x = ResizeLinearly(output_shape[1:-1], name=f"{name}_resize")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
    return keras.Model(feature_map, x, name=name)


def _normalized(name: str, shape: tuple, data_format: str) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    axis = 1 if data_format == "channels_first" and len(shape) > 2 else -1
    feature_map = keras.Input(batch_shape=shape)
    x = keras.layers.BatchNormalization(axis=axis, name=f"{name}_bn")(feature_map)
    return feature_map, keras.layers.ReLU(name=f"{name}_relu")(x)


class ResizeLinearly(keras.layers.Layer):
    """Resizes signals, images or volumes (batch, ..., channels) along all axes between, by linear interpolation.

    As `tf.image.resize` does for images: pixel centers are aligned, and the outermost value continues beyond its
    center. The layer is never saved in a user's model, so it needs no configuration.

    Args:
        sizes: along each of the axes.
        name: of the layer.
    """

    def __init__(self, sizes: tuple[int, ...], name: str | None = None):
        super().__init__(name=name)
        self._sizes = tuple(sizes)

    def call(self, maps):
        """The resized maps."""
        for axis, size in enumerate(self._sizes, start=1):
            if maps.shape[axis] != size:
                weights = tf.constant(interpolation(maps.shape[axis], size), maps.dtype)
                resized = tf.tensordot(maps, weights, [[axis], [1]])  # the new axis is the last
                order = [*range(axis), len(maps.shape) - 1, *range(axis, len(maps.shape) - 1)]
                maps = tf.transpose(resized, order)
        return maps

    def compute_output_shape(self, input_shape):
        """Batch and channels stay."""
        return (input_shape[0], *self._sizes, input_shape[-1])


def interpolation(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) that resizes an axis linearly."""
    centers = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.minimum(centers.astype(int), max(before - 2, 0))
    weight = centers - low
    matrix = np.zeros((after, before))
    matrix[np.arange(after), low] = 1 - weight
    matrix[np.arange(after), np.minimum(low + 1, before - 1)] += weight
    return matrix
