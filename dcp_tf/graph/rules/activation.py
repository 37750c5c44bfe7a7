"""Activations: elementwise ones pass labels through."""

import functools
import warnings
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops
from keras.src.ops import nn

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import axis_list, operations, public


def is_elementwise(function: Callable) -> bool:
    """Whether an activation function treats each value alone, determined by a trial on numbers."""
    if isinstance(function, (keras.Sequential, layers.Pipeline)):
        return all(map(is_elementwise, function.layers))
    if isinstance(function, layers.Layer):
        # A trial could build weights; so only layers that never have any are accepted.
        scales = isinstance(function, layers.Rescaling) and np.size(function.scale) == np.size(function.offset) == 1
        return scales or isinstance(function, (layers.ReLU, layers.LeakyReLU, layers.ELU))
    try:
        return _tried(function)
    except TypeError:  # not hashable
        return _tried.__wrapped__(function)


@functools.cache
def _tried(function: Callable) -> bool:
    values = np.linspace(-3.0, 3.5, 7, dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of a softmax over a single value, which distinguishes it
        return _equal_alone(function, values)


def _equal_alone(function: Callable, values: np.ndarray) -> bool:
    together = ops.convert_to_numpy(function(ops.convert_to_tensor(values.reshape(1, 7))))
    if together.shape != (1, 7):
        return False
    alone = [ops.convert_to_numpy(function(ops.convert_to_tensor(v.reshape(1, 1)))).item() for v in values]
    return bool(np.allclose(together[0], alone, atol=1e-5))


def activate(call: RuleCall, labels: Labels) -> None:
    """Pins the channels of a layer whose own activation mixes them."""
    function = getattr(call.operation, "activation", None)
    if function is not None and not is_elementwise(function):
        name = getattr(function, "__name__", type(function).__name__)
        call.pin(labels, f"the activation {name} of {call.call.path} mixes channels")


@register_rule(layers.Activation)
def activation(call: RuleCall) -> Labels:
    """An `Activation` layer, elementwise or not."""
    activate(call, call.inputs[0])
    return call.inputs[0]


@register_rule(layers.Softmax, *operations(nn, "Softmax LogSoftmax Normalize"))
def softmax(call: RuleCall) -> Labels:
    """A softmax along the channel axis would change with each removed channel."""
    for axis in axis_list(call.operation.axis, call.inputs[0].ndim):
        if call.inputs[0].shape[axis] > 1:
            call.pin(call.inputs[0], f"{call.call.path} normalizes over the channels")
    return call.inputs[0]


@register_rule(layers.PReLU)
def prelu(call: RuleCall) -> Labels:
    """Alpha has the input's shape without the batch axis, with 1 on shared axes."""
    alpha = call.operation.alpha
    axes = {}
    for axis, size in enumerate(alpha.shape):
        if size > 1 and call.inputs[0].shape[axis + 1] > 1:
            axes[axis] = call.channels(0, axis + 1)
    call.weight(alpha, axes)
    return call.inputs[0]


@register_rule(*operations(nn, "Glu"))
def gated_linear_unit(call: RuleCall) -> Labels:
    """One half of an axis times the sigmoid of the other half: a channel and its gate go together."""
    labels, axis = call.inputs[0], call.operation.axis
    if axis % labels.ndim == 0:
        return call.opaque("which mixes the images of a batch")[0]
    if labels.shape[axis] == 1:
        return labels
    values, gates = np.split(labels, 2, axis)
    call.tie(values, gates)
    return values


_UNCHANGED = """
    ReLU LeakyReLU ELU Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout GaussianDropout
    GaussianNoise ActivityRegularization Identity Masking
    RandomBrightness RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomInvert
    RandomPerspective RandomRotation RandomShear RandomTranslation RandomZoom
"""


@register_rule(*public(_UNCHANGED.split()))
def unchanged(call: RuleCall) -> Labels:
    """Elementwise in training, or the identity; in inference augmentations change nothing."""
    return call.inputs[0]
