"""From a Keras 2 layer to the same layer of Keras 3, without its weights."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications import convnext, inception_resnet_v2

# Keys of Keras 2 configs that say how something is computed or was built, not what.
_NO_MATTER = {
    *("batch_input_shape", "fused", "implementation", "input_length", "key_shape", "query_shape", "rng_type"),
    *("trainable", "value_shape"),  # trainable is set after the layer is made: not all constructors take it
}
# Layers of Keras 2 that need more than their config (a vocabulary, code, another layer), or do not exist any more.
_NOT_CONVERTED = {
    *("Lambda", "RNN", "StackedRNNCells", "AbstractRNNCell", "SpectralNormalization", "Wrapper", "Layer"),
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
    """Whether there is a Keras 3 layer for this layer of Keras 2, as far as its kind can tell."""
    if isinstance(getattr(layer, "layer", None), object) and type(layer).__name__ in (
        "Bidirectional",
        "TimeDistributed",
    ):
        return can_convert(layer.layer)
    return _find_class(layer) is not None


def convert_layer(layer) -> layers.Layer:
    """Makes the Keras 3 layer for a layer of Keras 2.

    Raises:
        ValueError: its config says something that Keras 3 does not know; the message names it.
    """
    special = _SPECIAL.get(type(layer).__name__)
    if special is not None:
        return special(layer)
    return _from_config(_find_class(layer), _config(layer))


def valid_name(name: str) -> str:
    """Keras 3 allows no slashes in the names of layers and models."""
    return name.replace("/", "_")


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
    config["dtype"] = layer._dtype_policy.name  # the config may hold a Keras 2 object in its place
    return config


def _from_config(kind: type, config: dict[str, Any]) -> layers.Layer:
    if "hard_sigmoid" in (config.get("activation"), config.get("recurrent_activation")):
        raise ValueError("hard_sigmoid is another function in Keras 3; make it an Activation layer of its own")
    for key, value in config.items():
        if isinstance(value, dict) and ("value" in value or value.get("class_name") in ("__lambda__", "function")):
            raise ValueError(f"its {key} is a function that Keras does not know")
    parameters = inspect.signature(kind.__init__).parameters
    known = set(parameters) - {"trainable"}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known |= {"name", "dtype", "activity_regularizer"}
    lost = {key: value for key, value in config.items() if key not in known and key not in _NO_MATTER}
    lost = {key: value for key, value in lost.items() if not (value is None or value is False)}
    if lost.get("groups") == 1:
        del lost["groups"]
    if lost:
        said = ", ".join(f"{key}={value!r}" for key, value in lost.items())
        raise ValueError(f"Keras 3's {kind.__name__} knows no {said}")
    layer = kind.from_config({key: value for key, value in config.items() if key in known})
    layer.trainable = config.get("trainable", True)
    return layer


def _activation(layer) -> layers.Layer:
    config = _config(layer)
    if config["activation"] != "hard_sigmoid":
        return _from_config(layers.Activation, config)
    # Keras 2: clip(0.2 * x + 0.5, 0, 1). Keras 3: clip(x / 6 + 0.5, 0, 1).
    return keras.Sequential([layers.Rescaling(0.2, 0.5), layers.ReLU(1.0)], name=config["name"])


def _batch_normalization(layer) -> layers.Layer:
    config = _config(layer)
    axis = np.atleast_1d(config["axis"]).tolist()
    if len(axis) > 1:
        raise ValueError(f"Keras 3's BatchNormalization normalises one axis, not {axis}")
    return _from_config(layers.BatchNormalization, {**config, "axis": axis[0]})


def _leaky_relu(layer) -> layers.Layer:
    config = _config(layer)
    return _from_config(layers.LeakyReLU, {**config, "negative_slope": float(config["alpha"]), "alpha": None})


def _separable(layer) -> layers.Layer:
    # What is said of "the kernel" is of no use to Keras 2 either: there are two, with settings of their own.
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


def _time_distributed(layer) -> layers.Layer:
    return layers.TimeDistributed(convert_layer(layer.layer), name=valid_name(layer.name))


def _bidirectional(layer) -> layers.Layer:
    return layers.Bidirectional(
        convert_layer(layer.forward_layer),
        merge_mode=layer.merge_mode,
        backward_layer=convert_layer(layer.backward_layer),
        name=valid_name(layer.name),
    )


_SPECIAL: dict[str, Callable[[Any], layers.Layer]] = {
    "Activation": _activation,
    "BatchNormalization": _batch_normalization,
    "Bidirectional": _bidirectional,
    "LeakyReLU": _leaky_relu,
    "Normalization": _normalization,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "SyncBatchNormalization": _batch_normalization,
    "ThresholdedReLU": _thresholded_relu,
    "TimeDistributed": _time_distributed,
}


def copy_weights(old, new: keras.layers.Layer) -> None:
    """Copies the weights of a Keras 2 layer to the built Keras 3 layer.

    Raises:
        ValueError: they are of other shapes.
    """
    if isinstance(new, layers.Normalization):
        return
    values = old.get_weights()
    have, want = [w.shape for w in values], [tuple(w.shape) for w in new.weights]
    if have != want:
        raise ValueError(f"its weights are of shapes {have}, in Keras 3 of {want}")
    new.set_weights(values)
