"""Converts a Keras 2 layer to the same layer of Keras 3, without its weights."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications import convnext, inception_resnet_v2

from dcp_tf.models.keras2.weights import check_hard_sigmoid, needs_own_activation
from dcp_tf.models.names import valid_name

# Keys of Keras 2 configs that do not affect the outputs.
_IRRELEVANT = {
    *("batch_input_shape", "fused", "implementation", "input_length", "key_shape", "query_shape", "rng_type"),
    *("trainable", "value_shape"),  # trainable is set after the layer is made: not all constructors take it
}
# Layers of Keras 2 that need more than their config (a vocabulary, code, another layer), or no longer exist.
_NOT_CONVERTED = {
    *("AbstractRNNCell", "Wrapper", "Layer"),
    *("DenseFeatures", "Discretization", "Hashing", "HashedCrossing", "IntegerLookup", "StringLookup"),
    *("TextVectorization", "LocallyConnected1D", "LocallyConnected2D", "RandomHeight", "RandomWidth"),
}
# Layers that Keras keeps for networks of keras.applications, in both versions.
_OF_APPLICATIONS = {
    "CustomScaleLayer": inception_resnet_v2.CustomScaleLayer,
    "LayerScale": convnext.LayerScale,
    "StochasticDepth": convnext.StochasticDepth,
}


def can_convert(layer) -> bool:
    """Whether there is a Keras 3 layer of the same kind."""
    return _find_class(layer) is not None


def inner_layers(layer) -> list:
    """The layers of Keras 2 that a wrapper or a recurrent layer calls, models among them."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        return [layer.forward_layer, layer.backward_layer]
    if kind in ("TimeDistributed", "SpectralNormalization"):
        return [layer.layer]
    if kind == "RNN":
        return [layer.cell]
    return list(layer.cells) if kind == "StackedRNNCells" else []


def convert_layer(layer, convert_inner: Callable[[Any], layers.Layer]) -> layers.Layer:
    """Makes the Keras 3 layer for a layer of Keras 2.

    Args:
        layer: the Keras 2 layer.
        convert_inner: converts a layer or a model that this layer calls.

    Raises:
        ValueError: its config says something that Keras 3 does not know; the message names it.
    """
    kind = type(layer).__name__
    if kind in _WRAPPERS:
        return _WRAPPERS[kind](layer, convert_inner)
    if kind in _SPECIAL:
        return _SPECIAL[kind](layer)
    return _from_config(_find_class(layer), _config(layer))


def _find_class(layer) -> type | None:
    name = type(layer).__name__
    if not type(layer).__module__.startswith("tf_keras.") or name in _NOT_CONVERTED:
        return None
    if name == "ThresholdedReLU":
        return layers.ReLU
    return _OF_APPLICATIONS.get(name) or getattr(layers, name, None)


def _config(layer) -> dict[str, Any]:
    config = dict(layer.get_config())
    config["name"] = valid_name(config["name"])
    config["dtype"] = layer._dtype_policy.name  # the config may hold a Keras 2 object instead
    return config


def _from_config(kind: type, config: dict[str, Any]) -> layers.Layer:
    check_hard_sigmoid(kind.__name__, config)
    if needs_own_activation(kind.__name__, config):
        config = {**config, "activation": _hard_sigmoid("hard_sigmoid")}
    for key, value in config.items():
        if isinstance(value, dict) and ("value" in value or value.get("class_name") in ("__lambda__", "function")):
            raise ValueError(f"its {key} is a function that Keras does not know")
    parameters = inspect.signature(kind.__init__).parameters
    known = set(parameters) - {"trainable"}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known |= {"name", "dtype", "activity_regularizer"}
    if issubclass(kind, layers.RNN):
        known |= {"zero_output_for_mask"}
    lost = {key: value for key, value in config.items() if key not in known and key not in _IRRELEVANT}
    lost = {key: value for key, value in lost.items() if not (value is None or value is False)}
    if lost.get("groups") == 1:
        del lost["groups"]
    if lost:
        settings = ", ".join(f"{key}={value!r}" for key, value in lost.items())
        raise ValueError(f"Keras 3's {kind.__name__} has no {settings}")
    arguments = {key: value for key, value in config.items() if key in known}
    holds_layer = any(isinstance(value, layers.Layer) for value in arguments.values())
    layer = kind(**arguments) if holds_layer else kind.from_config(arguments)
    layer.trainable = config.get("trainable", True)
    return layer


def _activation(layer) -> layers.Layer:
    config = _config(layer)
    if config["activation"] != "hard_sigmoid":
        return _from_config(layers.Activation, config)
    return _hard_sigmoid(config["name"])


def _hard_sigmoid(name: str) -> keras.Sequential:
    # Keras 2: clip(0.2 * x + 0.5, 0, 1). Keras 3: clip(x / 6 + 0.5, 0, 1).
    return keras.Sequential([layers.Rescaling(0.2, 0.5), layers.ReLU(1.0)], name=name)


def _batch_normalization(layer) -> layers.Layer:
    config = _config(layer)
    axis = np.atleast_1d(config["axis"]).tolist()
    if len(axis) > 1:
        raise ValueError(f"Keras 3's BatchNormalization normalizes one axis, not {axis}")
    return _from_config(layers.BatchNormalization, {**config, "axis": axis[0]})


def _leaky_relu(layer) -> layers.Layer:
    config = _config(layer)
    return _from_config(layers.LeakyReLU, {**config, "negative_slope": float(config["alpha"]), "alpha": None})


def _lambda(layer) -> layers.Layer:
    """The same Python function, already in memory: it works on TensorFlow tensors in both versions."""
    shape = layer._output_shape
    return layers.Lambda(
        layer.function,
        output_shape=None if shape is None or callable(shape) else tuple(shape),
        mask=layer.mask,
        arguments=layer.arguments,
        name=valid_name(layer.name),
        dtype=layer._dtype_policy.name,
    )


def _separable(layer) -> layers.Layer:
    # Keras 2 ignores the settings of "the kernel" too: there are two kernels, with their own settings.
    unused = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
    config = {key: value for key, value in _config(layer).items() if key not in unused}
    return _from_config(_find_class(layer), config)


def _thresholded_relu(layer) -> layers.Layer:
    config = _config(layer)
    return _from_config(layers.ReLU, {**config, "threshold": float(config["theta"]), "theta": None})


def _normalization(layer) -> layers.Layer:
    """Mean and variance become part of the config: Keras 3 stores and uses them in another way."""
    config = _config(layer)
    mean, variance = (np.asarray(value, np.float32).squeeze().tolist() for value in (layer.mean, layer.variance))
    return _from_config(layers.Normalization, {**config, "mean": mean, "variance": variance})


def _bidirectional(layer, convert_inner: Callable) -> layers.Layer:
    return layers.Bidirectional(
        convert_inner(layer.forward_layer),
        merge_mode=layer.merge_mode,
        backward_layer=convert_inner(layer.backward_layer),
        name=valid_name(layer.name),
    )


def _time_distributed(layer, convert_inner: Callable) -> layers.Layer:
    return layers.TimeDistributed(convert_inner(layer.layer), name=valid_name(layer.name))


def _spectral_normalization(layer, convert_inner: Callable) -> layers.Layer:
    return _from_config(layers.SpectralNormalization, {**_config(layer), "layer": convert_inner(layer.layer)})


def _rnn(layer, convert_inner: Callable) -> layers.Layer:
    return _from_config(layers.RNN, {**_config(layer), "cell": convert_inner(layer.cell)})


def _stacked_cells(layer, convert_inner: Callable) -> layers.Layer:
    if layer.reverse_state_order:
        raise ValueError("Keras 3's StackedRNNCells knows no reverse_state_order=True")
    return layers.StackedRNNCells([convert_inner(cell) for cell in layer.cells], name=valid_name(layer.name))


_WRAPPERS: dict[str, Callable[[Any, Callable], layers.Layer]] = {
    "Bidirectional": _bidirectional,
    "RNN": _rnn,
    "SpectralNormalization": _spectral_normalization,
    "StackedRNNCells": _stacked_cells,
    "TimeDistributed": _time_distributed,
}
_SPECIAL: dict[str, Callable[[Any], layers.Layer]] = {
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Lambda": _lambda,
    "LeakyReLU": _leaky_relu,
    "Normalization": _normalization,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "SyncBatchNormalization": _batch_normalization,
    "ThresholdedReLU": _thresholded_relu,
}
