"""PReLUs as the larger of two tensors compute the same, whatever their slopes and what is around them."""

import keras
import numpy as np
import pytest
from equivalence import randomize
from keras import layers

from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.prelu import with_maximum


def prelu(shared=(1, 2), name="prelu"):
    return layers.PReLU(alpha_initializer=keras.initializers.RandomUniform(-2, 3, 1), shared_axes=shared, name=name)


def chain(*around):
    """A convolution, the PReLU between other layers, and a convolution that reads it."""
    before, after = around
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, name="first")(x)
    for layer in (*before(), prelu(), *after()):
        x = layer(x)
    return keras.Model(image, layers.Conv2D(4, 3, name="last")(x))


def residual():
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1, name="first")(x)
    y = layers.Add()([x, prelu()(x)])
    return keras.Model(image, layers.Conv2D(4, 3, name="last")(y))


def shared():
    x = image = keras.Input((8, 8, 3))
    layer = prelu()
    y = [layer(layers.Conv2D(6, 1, name=name)(x)) for name in ("first", "second")]
    return keras.Model(image, layers.Conv2D(4, 3, name="last")(layers.Add()(y)))


def nested():
    x = image = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(6, 3), prelu(), layers.Conv2D(5, 1)], name="inner")
    return keras.Model(image, prelu(name="outer")(inner(x)))


# name -> model, how many convolutions change signs back
NETS = {
    "batch norm": (lambda: chain(lambda: [layers.BatchNormalization()], list), 0),
    "convolution": (lambda: chain(list, list), 0),
    "depthwise": (lambda: chain(lambda: [layers.DepthwiseConv2D(3)], lambda: [layers.DepthwiseConv2D(1)]), 0),
    "padding": (lambda: chain(list, lambda: [layers.ZeroPadding2D(1), layers.AveragePooling2D(2)]), 0),
    "activated": (lambda: chain(lambda: [layers.Activation("tanh")], list), 0),
    "largest": (lambda: chain(list, lambda: [layers.MaxPooling2D()]), 1),
    "grouped": (lambda: chain(list, lambda: [layers.Conv2D(8, 1, groups=4, name="grouped")]), 1),
    "unscaled": (lambda: chain(lambda: [layers.BatchNormalization(scale=False)], list), 0),
    "residual": (residual, 1),
    "shared": (shared, 1),
    "nested": (nested, 1),
    "sequential": (
        lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(6, 3), prelu(), layers.Conv2D(5, 1)]),
        0,
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_larger_of_two_tensors_is_prelu(name):
    make, beside = NETS[name]
    model = make()
    randomize(model)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.PReLU):
            layer.alpha.assign(np.random.default_rng(1).uniform(-2, 3, layer.alpha.shape))
    before = [np.asarray(weight) for weight in model.weights]
    new, _, left = with_maximum(ChannelGraph(model))
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    np.testing.assert_allclose(np.asarray(new(images)), np.asarray(model(images)), rtol=1e-4, atol=1e-5)
    names = [layer.name for layer in new._flatten_layers()]
    assert not left
    assert sum(name.endswith("_restored") for name in names) == beside
    assert not any(isinstance(layer, layers.PReLU) for layer in new._flatten_layers())
    assert all(np.array_equal(old, np.asarray(now)) for old, now in zip(before, model.weights, strict=True))


def test_slopes_of_positions_stay():
    x = image = keras.Input((8, 8, 3))
    x = prelu(None, "by_position")(layers.Conv2D(4, 1)(x))
    x = prelu((1, 2, 3), "of_all")(layers.Conv2D(4, 1)(x))
    model = keras.Model(image, prelu(None, "vector")(layers.Flatten()(x)))
    new, count, left = with_maximum(ChannelGraph(model))
    assert count == 1
    assert left == ["by_position", "vector"]
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(new(images)), np.asarray(model(images)), rtol=1e-4, atol=1e-5)
