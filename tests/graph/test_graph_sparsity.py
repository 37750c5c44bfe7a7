"""Counts of zero kernels, the masks that hold them, and the multiply-accumulates without them."""

import keras
import numpy as np
from keras import layers

from dcp_tf.graph import KernelCount, count_cost, kernel_sparsity, nominal_macs, zero_kernel_masks


def model_with_zeros():
    """Some kernels of `conv`, `up` and `dense` are zero; all of `fresh`; single weights, but no kernel, of `whole`."""
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="whole")(image)
    inner = keras.Input((8, 8, 6))
    x = keras.Model(inner, layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(inner), name="body")(x)
    x = layers.Conv2DTranspose(5, 2, strides=2, name="up")(x)
    x = layers.Add()([x, layers.Conv2D(5, 1, kernel_initializer="zeros", name="fresh")(x)])
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    model = keras.Model(image, layers.Dense(2, name="dense")(layers.GlobalAveragePooling2D()(x)))
    found = {layer.name: layer for layer in model._flatten_layers()}
    for name, places in {"whole": (0, 0), "conv": (..., 1, [0, 2]), "up": (..., 3, 1), "dense": (0, 1)}.items():
        values = found[name].kernel.numpy()
        values[places] = 0
        found[name].kernel.assign(values)
    return model, found


def test_zero_kernels_are_counted_by_layer():
    model, _ = model_with_zeros()
    assert kernel_sparsity(model) == [
        KernelCount("body/conv", 24, 22),
        KernelCount("up", 20, 19),
        KernelCount("fresh", 25, 0),
        KernelCount("dense", 10, 9),
    ]
    assert kernel_sparsity(model)[2].sparsity == 1.0
    assert kernel_sparsity(keras.Sequential([keras.Input((3,)), layers.Dense(2)])) == []


def test_masks_are_of_the_layers_that_were_pruned_and_zero_where_a_kernel_is():
    model, found = model_with_zeros()
    masks = zero_kernel_masks(model)
    assert set(masks) == {id(found[name].kernel) for name in ("conv", "up", "dense")}
    for name in ("conv", "up", "dense"):
        mask = masks[id(found[name].kernel)]
        np.testing.assert_array_equal(mask, (found[name].kernel.numpy() != 0).astype("float32"))


def test_nominal_macs_leave_out_what_zero_kernels_would_multiply():
    model, _ = model_with_zeros()
    kernels = {"whole": (64 * 9, 18), "conv": (16 * 9, 22), "up": (16 * 4, 19), "fresh": (64, 0), "dense": (1, 9)}
    expected = sum(each * count for each, count in kernels.values()) + 36 * 9 * 5  # and the depthwise convolution
    assert nominal_macs(model) == expected


def test_without_zeros_nominal_macs_are_the_macs():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, groups=1, name="a")(image)
    model = keras.Model(image, layers.Conv2D(4, 3, groups=2, name="b")(x))
    assert nominal_macs(model, (8, 8, 3)) == count_cost(model, input_shape=(8, 8, 3)).macs


def test_a_layer_that_is_called_twice_counts_twice():
    image = keras.Input((8, 8, 3))
    layer = layers.Conv2D(3, 3, padding="same")
    model = keras.Model(image, layer(layer(image)))
    layer.kernel.assign(layer.kernel * np.eye(3, dtype="float32"))
    assert nominal_macs(model) == 2 * 64 * 9 * 3


def test_zeros_survive_saving(tmp_path):
    model, _ = model_with_zeros()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kernel_sparsity(loaded) == kernel_sparsity(model)
