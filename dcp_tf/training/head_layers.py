"""What auxiliary heads are made of."""

import keras
import numpy as np
import tensorflow as tf

_POOLING = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
_CONVOLUTIONS = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}

# Ranks of the tensors that a head which pools can read: vectors, signals, images, volumes.
POOLED_RANKS = (2, *_POOLING)


def pooled_head(name: str, shape: tuple, units: int, data_format: str, activation: str | None = None) -> keras.Model:
    """`Dense(AvgPool(ReLU(BatchNorm(feature map))))` (Liu et al. 2021, eq. 3 and 4).

    Args:
        name: of the head; its layers' names begin with it.
        shape: of the feature map, with the batch axis; a vector is not pooled.
        units: how many values it gives.
        data_format: where the channels of the feature map are.
        activation: of the last layer.

    Returns:
        An untrained model.
    """
    feature_map, x = _normalised(name, shape, data_format)
    if len(shape) > 2:
        x = _POOLING[len(shape)](data_format=data_format, name=f"{name}_pool")(x)
    return keras.Model(feature_map, keras.layers.Dense(units, activation, name=f"{name}_dense")(x), name=name)


def map_head(name: str, shape: tuple, wanted: tuple, data_format: str, activation: str | None = None) -> keras.Model:
    """`Resize(Conv1x1(ReLU(BatchNorm(feature map))))`, for outputs with one answer for each place.

    Args:
        name: of the head; its layers' names begin with it.
        shape: of the feature map, with the batch axis.
        wanted: the shape of the model's output, with the batch axis; it has as many axes, the answers on the last one.
        data_format: where the channels of the feature map are.
        activation: of the resized map.

    Returns:
        An untrained model whose outputs have the shape `wanted`.
    """
    feature_map, x = _normalised(name, shape, data_format)
    x = _CONVOLUTIONS[len(shape)](wanted[-1], 1, data_format=data_format, name=f"{name}_conv")(x)
    if data_format == "channels_first":
        x = keras.layers.Permute((*range(2, len(shape)), 1), name=f"{name}_channels_last")(x)
    if tuple(x.shape[1:-1]) != tuple(wanted[1:-1]):  # bilinear weights sum to 1, so this commutes with the convolution
        x = ResizeLinearly(wanted[1:-1], name=f"{name}_resize")(x)
    if activation is not None:
        x = keras.layers.Activation(activation, name=f"{name}_{activation}")(x)
    return keras.Model(feature_map, x, name=name)


def _normalised(name: str, shape: tuple, data_format: str) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    axis = 1 if data_format == "channels_first" and len(shape) > 2 else -1
    feature_map = keras.Input(batch_shape=shape)
    x = keras.layers.BatchNormalization(axis=axis, name=f"{name}_bn")(feature_map)
    return feature_map, keras.layers.ReLU(name=f"{name}_relu")(x)


class ResizeLinearly(keras.layers.Layer):
    """Resizes signals, images or volumes (batch, ..., channels) along all axes between, by linear interpolation.

    As `tf.image.resize` does for images: the centres of the pixels are aligned, beyond the outermost one its value
    goes on. It is never saved in a user's model, so it needs no configuration.

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
    centres = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.minimum(centres.astype(int), max(before - 2, 0))
    share = centres - low
    matrix = np.zeros((after, before))
    matrix[np.arange(after), low] = 1 - share
    matrix[np.arange(after), np.minimum(low + 1, before - 1)] += share
    return matrix
