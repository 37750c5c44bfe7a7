"""Small networks that hold what real ones are made of, with weights that leave nothing at its initial 0 or 1."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

from dcp_tf.tflite import Quantization

SIZE = 16
CLASSES = 5
EDGE = importlib.util.find_spec("ai_edge_quantizer") is not None
MODES = [mode for mode in Quantization if (EDGE or not mode.weight_bits) and mode.value != "qat"]


def settle(model, seed=0):
    """Gives biases and BatchNorm statistics values, so that a fold that is wrong shows."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("bias", "beta", "moving_mean", "alpha")):
            weight.assign(random.normal(0, 0.2, weight.shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    return model


def zero_kernels(model, share=0.8, seed=0):
    """Sets whole kernels of the convolutions to zero, as kernel pruning leaves them."""
    random = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D"):
            kernel = np.array(layer.kernel)
            kernel[:, :, random.random(kernel.shape[2:]) < share] = 0
            layer.kernel.assign(kernel)
    return model


def images(count=24, size=SIZE, seed=1):
    """Smooth coloured noise in 0..1, float32 (count, size, size, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, size // 4, size // 4, 3))
    fine = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2)
    return (0.8 * fine + 0.2 * random.random(fine.shape)).astype(np.float32)


def _head(x):
    return layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling2D()(x))


def _norm(x):
    return layers.BatchNormalization()(x)


def vgg_like():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for filters in (8, 12):
        x = layers.ReLU()(_norm(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)))
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(layers.Dense(16, activation="relu")(layers.Flatten()(x)))
    return settle(keras.Model(inputs, layers.Dense(CLASSES)(x)))


def residual():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(_norm(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)))
    for filters, stride in ((8, 1), (16, 2)):
        y = layers.ReLU()(_norm(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)))
        y = _norm(layers.Conv2D(filters, 3, padding="same", use_bias=False)(y))
        shortcut = x if stride == 1 else _norm(layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    return settle(keras.Model(inputs, _head(x)))


def mobile():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU(6.0)(_norm(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)))
    y = layers.ReLU(6.0)(_norm(layers.Conv2D(24, 1, use_bias=False)(x)))
    y = layers.ReLU(6.0)(_norm(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)))
    y = _norm(layers.Conv2D(8, 1, use_bias=False)(y))
    return settle(keras.Model(inputs, _head(layers.Add()([x, y]))))


def squeeze_prelu():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.PReLU(shared_axes=[1, 2])(_norm(layers.Conv2D(8, 3, padding="same")(x)))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="relu")(gate))
    x = layers.Concatenate()([layers.Multiply()([x, gate]), x])
    return settle(keras.Model(inputs, _head(x)))


def upsampling():
    x = inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(x)
    return settle(keras.Model(inputs, _head(layers.SeparableConv2D(7, 3)(x))))


def nested():
    x = inner_inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.ReLU()(_norm(layers.Conv2D(6, 3)(x)))
    backbone = keras.Model(inner_inputs, x, name="backbone")
    inputs = keras.Input((SIZE, SIZE, 3))
    return settle(keras.Model(inputs, _head(backbone(layers.Rescaling(2.0, -1.0)(inputs)))))


def sequential():
    stack = [keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D()]
    return settle(keras.Sequential([*stack, layers.Dense(CLASSES)]))


NETWORKS = {
    function.__name__: function
    for function in (vgg_like, residual, mobile, squeeze_prelu, upsampling, nested, sequential)
}


def quick(*names, among, beside):
    """Pairs of a name and `beside` as parameters of a test; those that are not in `names` are slow."""
    return [pytest.param(name, beside, marks=() if name in names else pytest.mark.slow) for name in among]
