"""Rebuilds Keras 3 models in tf_keras (Keras 2), which TFMOT needs, with equal outputs and weights."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError

# Largest difference of the outputs, relative to the largest output. Only the order of sums differs: 1e-6 is typical.
_TOLERANCE = 1e-4
_TOLERANCE_LOW_PRECISION = 5e-2  # if the model computes in half precision: its copy computes in float32
_QUANTIZED = ("QuantizeAnnotate", "QuantizeWrapperV2")  # TFMOT's wrappers

Wrap = Callable[[Any, Any, bool], Any]


def to_tf_keras(model: Any) -> Any:
    """Rebuilds a functional or Sequential Keras 3 model in tf_keras and checks that the outputs are equal.

    Nested models become part of one flat model; shared layers stay shared. Layers are named by their paths, such as
    "backbone_a" for "a" in "backbone", and an activation other than ReLU becomes a separate layer after its layer.
    Initializers, regularizers and constraints are dropped.

    Args:
        model: with fixed sizes, apart from the batch.

    Returns:
        A `tf_keras.Model` with the inputs and outputs of `model`, flattened.

    Raises:
        UsageError: a layer has no counterpart, or the outputs differ.
    """
    from dcp_tf.tflite.conversion.keras_inference import check_model

    check_model(model)
    built = build(model)
    _check_outputs(model, built)
    return built


def copy_back(tf_model: Any, model: Any) -> None:
    """Copies the weights of a bridged model, quantized or not, into its original Keras 3 model.

    Args:
        tf_model: what `to_tf_keras` or `quantization_aware_training` returned.
        model: the Keras 3 model, or another one of the same architecture and layer names.

    Raises:
        UsageError: the architectures differ.
    """
    for variable, twin in pair_weights(tf_model, model):
        variable.assign(twin)


def pair_weights(tf_model: Any, model: Any) -> list[tuple[Any, Any]]:
    """Pairs of a weight of a Keras 3 model and its variable in the bridged model.

    Raises:
        UsageError: a weight has no counterpart.
    """
    from dcp_tf.graph.trace import Trace
    from dcp_tf.tflite.qat.bridge_layers import has_counterpart

    trace = Trace(model)
    names = _layer_names(trace)
    layers = {_unwrapped(layer).name: layer for layer in tf_model.layers}
    pairs = []
    for operation in {id(call.operation): call.operation for call in trace.calls}.values():
        if has_counterpart(operation):
            layer = layers.get(names[id(operation)])
            pairs += _pair_layer(operation, [] if layer is None else _weights(layer, operation))
    return pairs


def build(model: Any, wrap: Wrap | None = None, *, freeze_batch_norm: bool = False) -> Any:
    """`to_tf_keras` without the check, and with wrapped layers.

    Args:
        model: as `to_tf_keras` takes it.
        wrap: function of a call (see `dcp_tf.graph.trace`; None for an input, which gets a linear layer), its tf_keras
            layer, and whether that is the call's last layer; returns the layer to use.
        freeze_batch_norm: whether BatchNormalization uses its stored statistics in training.

    Returns:
        The tf_keras model, with the weights of `model`.

    Raises:
        UsageError: a layer has no counterpart.
    """
    return _Builder(model, wrap, freeze_batch_norm).model()


class _Builder:
    def __init__(self, model: Any, wrap: Wrap | None, freeze_batch_norm: bool):
        from dcp_tf.graph.trace import Trace

        self._model = model
        self._trace = Trace(model)
        self._names = _layer_names(self._trace)
        self._wrap = wrap
        self._freeze_batch_norm = freeze_batch_norm
        self._made: dict[int, list] = {}
        self._used = set(self._names.values())

    def model(self) -> Any:
        import tf_keras

        from dcp_tf.tflite.qat.bridge_layers import tf_name

        trace = self._trace
        inputs = [
            tf_keras.Input(batch_shape=trace.shapes[number], dtype=trace.dtype(number), name=f"bridge_input_{index}")
            for index, number in enumerate(trace.inputs)
        ]
        tensors = {n: self._first_layer(i, x) for i, (n, x) in enumerate(zip(trace.inputs, inputs, strict=True))}
        for call in trace.calls:
            tensors.update(zip(call.outputs, self._apply(call, tensors), strict=True))
        outputs = [tensors[number] for number in trace.outputs]
        return tf_keras.Model(_one_or_all(inputs), _one_or_all(outputs), name=tf_name(self._model.name))

    def _first_layer(self, index: int, tensor: Any) -> Any:
        import tf_keras

        if self._wrap is None or not tensor.dtype.is_floating:  # integers are exact
            return tensor
        name = f"bridge_input_{index}_quantized"
        return self._wrap(None, tf_keras.layers.Activation("linear", name=name, dtype=tensor.dtype), True)(tensor)

    def _apply(self, call: Any, tensors: Mapping[int, Any]) -> list:
        from dcp_tf.graph.trace import accepts_training
        from dcp_tf.tflite.qat.bridge_layers import OperationLayer

        first, *others = self._layers(call)
        if isinstance(_unwrapped(first), OperationLayer):
            value = first(_one_or_all([tensors[number] for number in call.inputs]))
        else:
            args, kwargs = call.node.arguments.fill_in({key: tensors[n] for key, n in call.bindings.items()})
            kwargs = {key: value for key, value in kwargs.items() if value is not None}
            if call.training is not None and accepts_training(type(call.operation)):
                kwargs["training"] = call.training
            value = first(*args, **kwargs)
        self._copy_weights(call.operation, first)
        for layer in others:
            value = layer(value)
        return value if isinstance(value, list) else [value]

    def _layers(self, call: Any) -> list:
        """The layers for a call; only layers with weights are shared between calls."""
        from dcp_tf.tflite.qat.bridge_layers import has_counterpart, make_layers

        key = id(call.operation)
        if key in self._made and has_counterpart(call.operation):
            return self._made[key]
        name = self._names[key] if key not in self._made else _unused(self._names[key], self._used)
        layers = make_layers(call, name, freeze_batch_norm=self._freeze_batch_norm)
        self._used.update(layer.name for layer in layers)
        if self._wrap is not None:
            layers = [self._wrap(call, layer, layer is layers[-1]) for layer in layers]
        self._made[key] = layers
        return self._made[key]

    def _copy_weights(self, operation: Any, layer: Any) -> None:
        from dcp_tf.tflite.qat.bridge_layers import has_counterpart

        if has_counterpart(operation):
            for weight, twin in _pair_layer(operation, _weights(layer, operation)):
                twin.assign(np.asarray(weight, dtype=np.float32))


def _layer_names(trace: Any) -> dict[int, str]:
    """The name of the tf_keras layer for every operation of a traced model, by id; it only depends on the model."""
    from dcp_tf.tflite.qat.bridge_layers import tf_name

    names: dict[int, str] = {}
    for call in trace.calls:
        if id(call.operation) not in names:
            names[id(call.operation)] = _unused(tf_name(call.path), names.values())
    return names


def _unused(name: str, used: Any) -> str:
    number, unused = 1, name
    while unused in used:
        number, unused = number + 1, f"{name}_{number}"
    return unused


def _one_or_all(values: list) -> Any:
    return values[0] if len(values) == 1 else values


def _unwrapped(layer: Any) -> Any:
    return layer.layer if type(layer).__name__ in _QUANTIZED else layer


def _weights(layer: Any, operation: Any) -> list:
    """The variables of a tf_keras layer in the order of the weights of its Keras 3 layer."""
    inner = _unwrapped(layer)
    if type(layer).__name__ != "QuantizeWrapperV2" and len(inner.weights) == len(operation.weights):
        return inner.weights
    # TFMOT's wrapper puts quantized tensors in the place of weights, so that the layer itself no longer knows them, and
    # the variables of quantizers are among the weights of both.
    from dcp_tf.tflite.qat.bridge_layers import weight_names

    by_name = {v.name.rpartition("/")[2].partition(":")[0]: v for v in [*layer.weights, *inner.weights]}
    return [by_name[name] for name in weight_names(operation) if name in by_name]


def _pair_layer(operation: Any, variables: list) -> list[tuple[Any, Any]]:
    have, want = [tuple(v.shape) for v in variables], [tuple(w.shape) for w in operation.weights]
    if have != want:
        raise UsageError(
            f"layer {operation.name!r} ({type(operation).__name__}) has weights of shapes {want}, and {have} in "
            "tf_keras: that is another layer"
        )
    return list(zip(operation.weights, variables, strict=True))


def _check_outputs(model: Any, built: Any) -> None:
    """Runs both on the same random input.

    Raises:
        UsageError: the outputs differ.
    """
    import keras
    import tensorflow as tf

    from dcp_tf.tflite.conversion.keras_inference import infer

    random = np.random.default_rng(0)
    inputs = [_random_input([x.shape[0] or 2, *x.shape[1:]], x.dtype, random) for x in model.inputs]
    outputs = tf.nest.flatten(built(_one_or_all(inputs), training=False))
    low = any(layer.compute_dtype != "float32" for layer in model._flatten_layers() if isinstance(layer, keras.Layer))
    tolerance = _TOLERANCE_LOW_PRECISION if low else _TOLERANCE
    for number, (a, b) in enumerate(zip(infer(model, inputs), outputs, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        error = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
        if not error <= tolerance:
            raise UsageError(
                f"{model.name!r} computes something else in tf_keras, which quantization-aware training needs: output "
                f"{number} differs by {error:.2g} of its largest value; quantize to int8 instead"
            )


def _random_input(shape: list[int], dtype: str, random: np.random.Generator) -> Any:
    import tensorflow as tf

    values = random.normal(size=shape) if "float" in dtype else random.integers(0, 2, shape)
    return tf.constant(values, dtype)
