"""Whether a model ends in logits or in probabilities, read off its last operation."""

from collections.abc import Callable

import keras

from dcp_tf.errors import UsageError

# Operations after an activation that only move values, by class name: layers and Keras operations share the names.
_MOVES = {
    *("Cast", "Dropout", "ExpandDims", "Flatten", "Identity", "Permute", "Ravel", "Reshape", "Squeeze", "Transpose"),
    *("SpatialDropout1D", "SpatialDropout2D", "StopGradient"),
}
_PROBABILITIES = {"softmax": "softmax", "softmax_v2": "softmax", "sigmoid": "sigmoid"}


def outputs_kind(model: keras.Model) -> str:
    """Returns "softmax" or "sigmoid" where that is the last activation of `model`, else "logits".

    Looks into nested models, and past operations that only move values. Log-softmax counts as logits: the
    cross-entropy of both is the same.

    Raises:
        UsageError: the model has several outputs of different kinds, or is not built.
    """
    if not getattr(model, "outputs", None):  # an unbuilt Sequential model raises
        raise UsageError(f"the model {model.name!r} is not built; build it for an input shape first")
    kinds = {kind_of_tensor(output) for output in model.outputs}
    if len(kinds) > 1:
        raise UsageError(f"the outputs of the model {model.name!r} are of several kinds: {', '.join(sorted(kinds))}")
    return kinds.pop()


def kind_of_tensor(tensor: keras.KerasTensor) -> str:
    """As `outputs_kind`, of one output."""
    operation, node_index, tensor_index = tensor._keras_history
    if isinstance(operation, keras.Model):
        inner = getattr(operation, "outputs", None)
        return kind_of_tensor(inner[tensor_index]) if inner else "logits"
    kind = _PROBABILITIES.get(_activation_name(operation))
    if kind is not None:
        return kind
    changes_nothing = type(operation).__name__ in _MOVES or _is_linear_activation(operation)
    inputs = operation._inbound_nodes[node_index].input_tensors
    # Several inputs, or none because this is the model's own input: nothing further to follow.
    if changes_nothing and len(inputs) == 1:
        return kind_of_tensor(inputs[0])
    return "logits"


def _activation_name(operation) -> str:
    """The name of the last function that a layer or operation applies, in lower case."""
    activation: Callable | None = getattr(operation, "activation", None)
    if activation is None:
        return type(operation).__name__.lower()
    if isinstance(activation, keras.layers.Layer):
        return _activation_name(activation)
    return getattr(activation, "__name__", type(activation).__name__).lower()


def _is_linear_activation(operation) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear
