"""Converts a call in a Keras 3 model to tf_keras layers that compute the same. Imports tf_keras, so import it late.

Layers with weights become the tf_keras layer of the same name, built from their config; so do layers without weights
that TFMOT or the placement of quantizers must distinguish. All other operations (keras.ops, resizing, normalization)
have no weights to train, and a wrapper layer runs the Keras 3 operation itself.
"""

import inspect
import re
import weakref
from typing import Any

import keras
import tf_keras
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.graph.trace import Call

# Layers without weights whose config means the same in both versions.
_SAME = {
    *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"),
    *(f"{kind}Pooling{n}D" for kind in ("Average", "Max", "GlobalAverage", "GlobalMax") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("Cropping", "SpatialDropout", "ZeroPadding") for n in (1, 2, 3)),
    *("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("ELU", "Flatten", "Identity", "LeakyReLU", "Permute", "ReLU", "Rescaling", "Reshape", "Softmax"),
}
# Names of activations that are the same function in both versions. (hard_sigmoid, for one, is not.)
_SAME_ACTIVATIONS = {
    **{name: name for name in ("elu", "exponential", "linear", "mish", "relu", "selu", "sigmoid", "softmax")},
    **{name: name for name in ("softplus", "softsign", "tanh")},
    "silu": "swish",
}
_INSIDE = ("linear", "relu")  # activations that stay inside their layer: TFLite computes them in the same operation
# Config entries about the initialization of weights, whose values come from the model.
_WEIGHT_SETTINGS = ("initializer", "regularizer", "constraint")


# Objects that a config cannot hold, by id, as long as a layer holds them. TFMOT clones models through configs.
_HELD: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class _Holding(tf_keras.layers.Layer):
    """A layer that holds an object; its config suffices to clone a model, but not to save it."""

    def __init__(self, held: Any, **settings):
        super().__init__(**settings)
        self._held = held
        _HELD[id(held)] = held

    def get_config(self) -> dict[str, Any]:
        """The settings, and the id of the object."""
        return {**super().get_config(), "held": id(self._held)}

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """Builds another layer with the same object."""
        return cls(**{**config, "held": _HELD[config["held"]]})


class OperationLayer(_Holding):
    """Runs a Keras 3 operation without weights in inference mode; it holds the `Call`."""

    def call(self, inputs):
        """Returns the output, or a list of several."""
        values = dict(zip(self._held.inputs, inputs if isinstance(inputs, list) else [inputs], strict=True))
        outputs = self._held.run(values, training=False)
        return outputs if len(outputs) > 1 else outputs[0]


class ActivationLayer(_Holding):
    """Applies an activation function of Keras 3 that tf_keras does not have; it holds the function."""

    def call(self, inputs):
        """Returns the function of the inputs."""
        return self._held(inputs)


class FrozenBatchNormalization(tf_keras.layers.BatchNormalization):
    """Uses its stored statistics in training, too, as the file does; gamma and beta are trained."""

    def call(self, inputs, training=None):
        """Returns the normalized inputs."""
        return super().call(inputs, training=False)


def make_layers(call: Call, name: str, *, freeze_batch_norm: bool = False) -> list[tf_keras.layers.Layer]:
    """Makes the layers for a call, to be applied in order: the layer, and its activation if it is separate.

    Args:
        call: of a Keras 3 layer or operation.
        name: of the first layer.
        freeze_batch_norm: makes every BatchNormalization a `FrozenBatchNormalization`.

    Raises:
        UsageError: the layer has weights, and tf_keras has no layer for them.
    """
    operation = call.operation
    if isinstance(operation, layers.Activation):
        return [_activation(operation.activation, name)]
    if not has_counterpart(operation) and not _is_same(operation):
        return [OperationLayer(call, name=name, dtype="float32")]
    freeze = freeze_batch_norm and type(operation) is layers.BatchNormalization
    kind = FrozenBatchNormalization if freeze else _counterpart(operation)
    try:
        tf_layers = [kind(**_settings(operation, kind, name))]
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{_described(operation)} cannot be made in tf_keras: {reason}") from error
    activation = getattr(operation, "activation", None)
    if activation is not None and _name_of(activation) not in _INSIDE:
        tf_layers.append(_activation(activation, f"{name}_activation"))
    return tf_layers


def has_counterpart(operation: Any) -> bool:
    """Whether an operation of Keras 3 has weights, so that a layer of tf_keras must hold them.

    Normalization has constants, not weights: they are computed from data once.
    """
    return bool(getattr(operation, "weights", None)) and not isinstance(operation, layers.Normalization)


def tf_name(name: str) -> str:
    """A path in a Keras 3 model as a valid TensorFlow name."""
    return re.sub(r"^[^A-Za-z0-9.]", "n", re.sub(r"[^A-Za-z0-9_.\-]", "_", name))


def weight_names(operation: Any) -> list[str]:
    """The last parts of the names of a layer's weights in tf_keras, in the order of `operation.weights`."""
    depthwise = isinstance(operation, layers.DepthwiseConv1D | layers.DepthwiseConv2D)
    return ["depthwise_kernel" if depthwise and v.name == "kernel" else v.name for v in operation.weights]


def _is_same(operation: Any) -> bool:
    name = type(operation).__name__
    return name in _SAME and getattr(layers, name, None) is type(operation)


def _described(operation: Any) -> str:
    return f"layer {operation.name!r} ({type(operation).__name__})"


def _counterpart(operation: Any) -> type:
    """The tf_keras class of a Keras layer; custom layers have none, whatever their name."""
    name = type(operation).__name__
    kind = getattr(tf_keras.layers, name, None)
    if getattr(layers, name, None) is not type(operation) or kind is None:
        raise UsageError(
            f"{_described(operation)} has weights and no counterpart in tf_keras, which quantization-aware "
            "training needs; use a Keras layer in its place, or quantize to int8"
        )
    return kind


def _settings(operation: Any, kind: type, name: str) -> dict[str, Any]:
    """The config as tf_keras expects it.

    Raises:
        UsageError: a setting has no counterpart in tf_keras.
    """
    known = {key for base in kind.__mro__ for key in inspect.signature(base.__init__).parameters}
    config = dict(operation.get_config())
    if isinstance(operation, layers.LeakyReLU):
        config["alpha"] = config.pop("negative_slope")
    config = {key: value for key, value in config.items() if not key.endswith(_WEIGHT_SETTINGS)}
    lost = {key: value for key, value in config.items() if key not in known and value not in (None, False)}
    if lost:
        shown = ", ".join(f"{key}={value!r}" for key, value in lost.items())
        raise UsageError(f"{_described(operation)}: tf_keras knows no {shown}")
    config = {key: value for key, value in config.items() if key in known}
    if "activation" in config:
        config["activation"] = inside if (inside := _name_of(operation.activation)) in _INSIDE else "linear"
    # Weights and activations are quantized from float32, whatever precision the model was trained in.
    return {**config, "name": name, "dtype": "float32", "trainable": operation.trainable}


def _activation(function: Any, name: str) -> tf_keras.layers.Layer:
    same = _SAME_ACTIVATIONS.get(_name_of(function))
    if same is not None:
        return tf_keras.layers.Activation(same, name=name, dtype="float32")
    if getattr(function, "weights", None):
        raise UsageError(f"the activation {name!r} ({type(function).__name__}) has weights; make it a layer of its own")
    return ActivationLayer(function, name=name, dtype="float32")


def _name_of(function: Any) -> str | None:
    """The name of a Keras activation function; None for custom functions and layers."""
    name = getattr(function, "__name__", None)
    return name if name and getattr(keras.activations, name, None) is function else None
