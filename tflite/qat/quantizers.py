"""The TFMOT quantizers of weights and activations. Imports TFMOT and tf_keras, so import it late.

Differences from TFMOT's own 8-bit scheme: kernels of all layer kinds have one scale per output channel, as in TFLite
(TFMOT has a single one for depthwise, transposed and fully connected layers); the scale of a kernel follows its current
values; ranges of activations can be measured before training; and the file is converted from unrounded kernels, because
the converter rounds them in the same way and does not support some of TFMOT's forms.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from dcp_tf.graph.kinds import KINDS
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.qat.bridge_layers import ActivationLayer, FrozenBatchNormalization, OperationLayer


def _import_tfmot() -> Any:
    """Imports TFMOT and restores the environment variable that it changes.

    TFMOT sets TF_USE_LEGACY_KERAS for the whole process. If tf.keras is first used after that, it is Keras 2, here and
    in child processes.
    """
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    tf.get_logger()  # its handler keeps the current standard error, which must not be the captured one
    tf.keras.layers  # noqa: B018 (tf.keras is loaded on first use)
    with OutputCapture():
        import tensorflow_model_optimization as tfmot
    if before is None:
        os.environ.pop("TF_USE_LEGACY_KERAS", None)
    else:
        os.environ["TF_USE_LEGACY_KERAS"] = before
    return tfmot


tfmot = _import_tfmot()

# Weight of a step's range in the moving average. TFMOT's .001 follows the weights over thousands of steps and clips
# activations that outgrow their range in the meantime.
_FOLLOWING = 0.1

# The mode of the quantizers, read while a graph is traced: "observe" measures ranges without rounding, "train" rounds
# and updates ranges slowly, "infer" rounds, "export" only rounds activations, "off" does nothing.
_MODE: contextvars.ContextVar = contextvars.ContextVar("mode", default=("infer", None))


@contextlib.contextmanager
def quantizers_in(mode: str, share: Any = None) -> Iterator[None]:
    """Sets the mode of the quantizers for calls inside the block.

    Args:
        mode: one of the modes above.
        share: "observe" only, the weight of the new batch in the mean of ranges: 1 for the first, 1/2 for the second.
    """
    token = _MODE.set((mode, share))
    try:
        yield
    finally:
        _MODE.reset(token)


class KernelQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Rounds a kernel to 8 bits, symmetric around 0, with one scale per output channel.

    Args:
        channel_axes: the axes of the output channels: (3,) of a Conv2D, (2, 3) of a DepthwiseConv2D.
    """

    def __init__(self, channel_axes: tuple[int, ...]):
        self.channel_axes = tuple(channel_axes)

    def build(self, tensor_shape, name, layer):
        """Adds no variables: the scale follows the current kernel."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """Returns the rounded kernel; zeros stay zeros."""
        mode, _ = _MODE.get()
        if mode in ("observe", "export", "off"):
            return inputs
        axes = list(range(len(inputs.shape)))
        order = [axis for axis in axes if axis not in self.channel_axes] + list(self.channel_axes)
        moved = tf.transpose(inputs, order)
        flat = tf.reshape(moved, (-1, math.prod(inputs.shape[axis] for axis in self.channel_axes)))
        largest = tf.stop_gradient(tf.reduce_max(tf.abs(flat), axis=0))
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(flat, -largest, largest, narrow_range=True)
        return tf.transpose(tf.reshape(rounded, moved.shape), [order.index(axis) for axis in axes])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"channel_axes": self.channel_axes}


class RangeQuantizer(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):
    """Rounds activations to 8 bits; the range is measured first, then updated as a moving average."""

    def __init__(self):
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)

    def __call__(self, inputs, training, weights, **kwargs):
        """Returns the rounded values, or in mode "observe" the values."""
        mode, share = _MODE.get()
        low, high = weights["min_var"], weights["max_var"]
        if mode in ("observe", "train"):
            share = _FOLLOWING if share is None else share
            low.assign_add(share * (tf.minimum(tf.reduce_min(inputs), 0.0) - low))
            high.assign_add(share * (tf.maximum(tf.reduce_max(inputs), 0.0) - high))
        if mode in ("observe", "off"):
            return inputs
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

    def get_config(self) -> dict[str, Any]:
        """There are no arguments."""
        return {}


class _Stepped:
    """A layer that TFLite computes in two operations, with rounding in between."""

    def build(self, input_shape):
        super().build(input_shape)
        self._between = RangeQuantizer()
        self._between_variables = self._between.build(None, "between", self)

    def _round(self, values):
        return self._between(values, False, weights=self._between_variables)


class SteppedBatchNormalization(_Stepped, FrozenBatchNormalization):
    """BatchNormalization that is not folded into a convolution: a product, then a sum."""

    def call(self, inputs, training=None):
        """Returns the normalized inputs, by the stored statistics."""
        axis = self.axis[0] if isinstance(self.axis, list | tuple) else self.axis
        shape = [-1 if number == axis % len(inputs.shape) else 1 for number in range(len(inputs.shape))]
        scale = tf.math.rsqrt(self.moving_variance + self.epsilon) * (self.gamma if self.scale else 1.0)
        shift = (self.beta if self.center else 0.0) - self.moving_mean * scale
        return self._round(inputs * tf.reshape(scale, shape)) + tf.reshape(shift, shape)


class SteppedAffine(_Stepped, tf_keras.layers.Layer):
    """Rescaling or Normalization: a product with a constant, then a sum with one.

    Args:
        scale: number or array.
        shift: number or array.
        **settings: of the layer.
    """

    def __init__(self, scale, shift, **settings):
        super().__init__(**settings)
        self._scale, self._shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)

    def call(self, inputs):
        """Returns inputs * scale + shift."""
        values = tf.cast(inputs, tf.float32) * self._scale
        return self._round(values) + self._shift if self._shift.any() else values

    def get_config(self) -> dict[str, Any]:
        """The arguments, as lists."""
        return {**super().get_config(), "scale": self._scale.tolist(), "shift": self._shift.tolist()}


class SteppedSeparableConv2D(_Stepped, tf_keras.layers.SeparableConv2D):
    """SeparableConv2D: a depthwise convolution, then a 1x1 convolution."""

    def call(self, inputs):
        """Returns the convolved inputs."""
        settings = {"padding": self.padding, "data_format": self.data_format}
        dilation = {"dilation_rate": self.dilation_rate}
        values = tf_keras.backend.depthwise_conv2d(
            inputs, self.depthwise_kernel, strides=self.strides, **settings, **dilation
        )
        values = tf_keras.backend.conv2d(self._round(values), self.pointwise_kernel, **settings)
        if self.use_bias:
            values = tf_keras.backend.bias_add(values, self.bias, data_format=self.data_format)
        return self.activation(values)


def stepped(call: Any, layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    """The variant of a tf_keras layer that also rounds between its two steps.

    Layers of other kinds are returned unchanged.
    """
    operation = call.operation
    if isinstance(layer, tf_keras.layers.BatchNormalization):
        return SteppedBatchNormalization.from_config(layer.get_config())
    if isinstance(layer, tf_keras.layers.SeparableConv2D):
        return SteppedSeparableConv2D.from_config(layer.get_config())
    if isinstance(operation, keras.layers.Rescaling):
        return SteppedAffine(operation.scale, operation.offset, name=layer.name)
    if isinstance(operation, keras.layers.Normalization) and not operation.invert:
        spread = np.maximum(np.sqrt(np.asarray(operation.variance)), keras.config.epsilon())
        return SteppedAffine(1.0 / spread, -np.asarray(operation.mean) / spread, name=layer.name)
    return layer


class LayerConfig(tfmot.quantization.keras.QuantizeConfig):
    """The quantization of a layer.

    Args:
        kernels: attribute of the layer -> axes of the output channels.
        quantize_output: whether the output is rounded, too.
    """

    def __init__(self, kernels: dict[str, tuple[int, ...]], quantize_output: bool):
        self.kernels = kernels
        self.quantize_output = quantize_output

    def get_weights_and_quantizers(self, layer):
        """Pairs of a kernel and its quantizer."""
        return [(getattr(layer, name), KernelQuantizer(axes)) for name, axes in self.kernels.items()]

    def set_quantize_weights(self, layer, quantize_weights):
        """Replaces the kernels with rounded ones."""
        for name, value in zip(self.kernels, quantize_weights, strict=True):
            setattr(layer, name, value)

    def get_activations_and_quantizers(self, layer):
        """None: activations are rounded as outputs."""
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        """There are none."""
        del layer, quantize_activations

    def get_output_quantizers(self, layer):
        """One if the output is rounded."""
        return [RangeQuantizer()] if self.quantize_output else []

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"kernels": self.kernels, "quantize_output": self.quantize_output}


class _NoRegistry(tfmot.quantization.keras.QuantizeRegistry):
    """An empty registry: every annotated layer has its own `LayerConfig`."""

    def supports(self, layer) -> bool:
        return False

    def get_quantize_config(self, layer):
        raise ValueError(f"{layer.name} was annotated without a config")


class _SameLayout(tfmot.quantization.keras.QuantizeLayoutTransform):
    """Leaves the layers unchanged: `placement` knows what TFLite fuses into one operation."""

    def apply(self, model, layer_quantize_map):
        return model, layer_quantize_map


class _Scheme(tfmot.quantization.keras.QuantizeScheme):
    def get_layout_transformer(self):
        return _SameLayout()

    def get_quantize_registry(self):
        return _NoRegistry()


def annotate(layer: tf_keras.layers.Layer, *, quantize_output: bool) -> tf_keras.layers.Layer:
    """Annotates a layer for TFMOT; layers without any rounding are returned unchanged."""
    kind = KINDS.get(type(layer).__name__.removeprefix("Stepped"))
    kernels = {} if kind is None or kind.rank == 3 else kind.kernels
    if not kernels and not quantize_output:
        return layer
    return tfmot.quantization.keras.quantize_annotate_layer(layer, LayerConfig(kernels, quantize_output))


def apply(annotated: tf_keras.Model) -> tf_keras.Model:
    """The model with quantizers for an annotated model; weights are copied."""
    classes = (LayerConfig, KernelQuantizer, RangeQuantizer, OperationLayer, ActivationLayer, FrozenBatchNormalization)
    classes += (SteppedBatchNormalization, SteppedAffine, SteppedSeparableConv2D)
    with tfmot.quantization.keras.quantize_scope({kind.__name__: kind for kind in classes}):
        return tfmot.quantization.keras.quantize_apply(annotated, _Scheme())
