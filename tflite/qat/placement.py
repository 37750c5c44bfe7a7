"""Decides which tensors are rounded in training: those that TFLite stores in 8 bits.

TFLite rounds the output of an operation, after everything that is fused into it. BatchNormalization is fused into the
preceding convolution, ReLU into the preceding convolution or sum, and operations that only move values or take a
maximum pass integers through.
"""

from collections import Counter
from typing import Any

import keras
import numpy as np

from dcp_tf.graph.kinds import KINDS

# By class name, for layers and keras.ops operations.
_KERNELS = {name for name, kind in KINDS.items() if kind.rank < 3}
_JOINS_RELU = {*_KERNELS, "BatchNormalization", "Add", "Subtract", "Multiply"}
_MOVES = {
    *("Cropping1D", "Cropping2D", "ExpandDims", "Flatten", "Flip", "GetItem", "Identity", "Pad", "Permute", "Ravel"),
    *("Repeat", "RepeatVector", "Reshape", "Split", "Squeeze", "Stack", "StopGradient", "SwapAxes", "Tile"),
    *("Transpose", "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D", "Resizing", "Resize"),
    *("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D"),
    *("AveragePool", "AveragePooling1D", "AveragePooling2D", "MaxPool", "MaxPooling1D", "MaxPooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "Max"),
}
# TFLite fixes the ranges of their outputs.
_FIXED = {"softmax", "log_softmax", "sigmoid", "tanh"}
_RELU = ("relu", "relu6")
_SEVERAL_STEPS = {
    *("Attention", "AdditiveAttention", "GroupNormalization", "LayerNormalization", "MultiHeadAttention"),
    *("SeparableConv1D", "UnitNormalization"),
}


class Placement:
    """Where the quantizers go.

    Args:
        trace: of the Keras 3 model.
    """

    def __init__(self, trace: Any):
        self._uses = Counter(number for call in trace.calls for number in call.inputs) + Counter(trace.outputs)
        self._trace = trace
        self._consumer = {number: call for call in trace.calls for number in call.inputs}

    def quantizes(self, call: Any, is_last: bool) -> bool:
        """Whether the output of a tf_keras layer is rounded.

        Args:
            call: the call of the layer.
            is_last: False for a layer whose activation is a separate layer.
        """
        if not is_last:
            return True
        if len(call.node.arguments.args) != 1 and isinstance(call.operation, keras.Layer):
            return False  # TFMOT's wrapper passes on a single argument
        if len(call.outputs) != 1 or "float" not in self._trace.dtype(call.outputs[0]):
            return False
        if _last_function(call) in _FIXED or _only_moves(call):
            return False
        return not self._is_fused(call, call.outputs[0])

    def is_stepped(self, call: Any) -> bool:
        """Whether TFLite computes the layer in two operations with rounding in between."""
        if _kind(call) in ("Normalization", "Rescaling"):
            return not self._is_fused(call, call.outputs[0])
        return _kind(call) == "SeparableConv2D" or self._is_alone(call)

    def unseen(self) -> list[str]:
        """Names of the layers that TFLite computes in several operations, of which training only sees the last one."""
        return [call.path for call in self._trace.calls if _kind(call) in _SEVERAL_STEPS]

    def _is_fused(self, call: Any, tensor: int) -> bool:
        """Whether the only consumer of the output is fused into the operation, or rounds the output itself."""
        if self._uses[tensor] != 1 or tensor not in self._consumer:
            return False
        reader = self._consumer[tensor]
        if _kind(call) == "Rescaling" and np.ndim(call.operation.scale) == 0:
            # Fused into a convolution without padding: padding adds zeros after the rescaling.
            return _kind(reader) == "Dense" or (_kind(reader) == "Conv2D" and reader.operation.padding == "valid")
        if _kind(reader) == "BatchNormalization":
            return self._is_linear_kernel(call)
        if _kind(reader) == "Add" and len(reader.inputs) == 1:  # adds a constant, which is fused into the bias
            return self._is_linear_kernel(call) or (_kind(call) == "BatchNormalization" and not self._is_alone(call))
        if _is_relu(reader):
            return _kind(call) in _JOINS_RELU and _last_function(call) in ("", "linear")
        return _kind(reader) == "Concatenate"

    def _is_linear_kernel(self, call: Any) -> bool:
        return _kind(call) in _KERNELS and _last_function(call) == "linear"

    def _is_alone(self, call: Any) -> bool:
        """Whether it is a BatchNormalization that is not fused into a convolution."""
        if _kind(call) != "BatchNormalization":
            return False
        index = self._trace.producer.get(call.inputs[0])
        before = None if index is None else self._trace.calls[index]
        return before is None or not self._is_linear_kernel(before) or self._uses[call.inputs[0]] != 1


def _kind(call: Any) -> str:
    return type(call.operation).__name__


def _only_moves(call: Any) -> bool:
    return _kind(call) in _MOVES or (_kind(call) == "Activation" and _last_function(call) == "linear")


def _is_relu(call: Any) -> bool:
    """Whether it is a ReLU that TFLite can fuse into another operation."""
    if _kind(call) == "ReLU":
        layer = call.operation
        return layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold
    return _kind(call) in ("Relu", "Relu6") or (_kind(call) == "Activation" and _last_function(call) in _RELU)


def _last_function(call: Any) -> str:
    """The name of the last function of the call; "" for calls without an activation."""
    activation = getattr(call.operation, "activation", None)
    if activation is not None:
        return getattr(activation, "__name__", type(activation).__name__).lower()
    name = {"LogSoftmax": "log_softmax"}.get(_kind(call), _kind(call).lower())
    return name if name in _FIXED else ""
