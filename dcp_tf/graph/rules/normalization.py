"""Normalizations: per-channel ones follow the channels; means over channels pin them, sums of squares do not."""

import math

import numpy as np
from keras import Variable, layers
from keras.src.ops import nn

from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import axis_list, operations, public


@register_rule(layers.BatchNormalization)
def batch_normalization(call: RuleCall) -> Labels:
    """Four vectors of the length of the channel axis."""
    layer = call.operation
    if call.inputs[0].shape[layer.axis] == 1:
        return call.inputs[0]
    labels = call.channels(0, layer.axis)
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        call.weight(name, {0: labels})
    return call.inputs[0]


@register_rule(*public(["RMSNormalization", "UnitNormalization"]))
def over_squares(call: RuleCall) -> Labels:
    """A channel that is zero adds nothing to a sum of squares: it goes without a trace where zeros can be made.

    The mean of squares is over fewer channels then: x / sqrt(sum / n + epsilon) is, over m of n channels and with
    epsilon * n / m in its place, sqrt(n / m) times as large.
    """
    layer, labels = call.operation, call.inputs[0]
    axes = axis_list(layer.axis, labels.ndim)
    moving = [index for index, axis in enumerate(axes) if labels.shape[axis] > 1]
    maker = call.zero(0) if moving else None
    if len(moving) > 1 or (maker is not None and not call.ignore_statistics):
        why = f", and {maker} cannot make channels of zeros" if len(moving) == 1 else ""
        call.pin(labels, _statistics(call) + why)
    elif moving and hasattr(layer, "epsilon"):
        channels = call.channels(0, axes[moving[0]])
        call.weight("scale", {moving[0]: channels})
        call.factor("scale", lambda kept: math.sqrt(len(channels) / kept.count(channels)))
        call.config("epsilon", lambda kept, old: old * len(channels) / kept.count(channels), depends_on=channels)
    return labels


@register_rule(layers.LayerNormalization)
def over_axes(call: RuleCall) -> Labels:
    """Statistics over the listed axes: removing a channel there would change all the others."""
    layer, labels = call.operation, call.inputs[0]
    axes = axis_list(layer.axis, labels.ndim)
    moving = [index for index, axis in enumerate(axes) if labels.shape[axis] > 1]
    if not call.ignore_statistics:
        if moving:
            call.pin(labels, _statistics(call))
        return labels
    for index in moving:
        for name in ("gamma", "beta"):
            weight = getattr(layer, name, None)
            if isinstance(weight, Variable):
                call.weight(weight, {index: call.channels(0, axes[index])})
    return labels


@register_rule(*operations(nn, "LayerNorm RMSNorm"))
def over_axes_of_an_operation(call: RuleCall) -> Labels:
    """`keras.ops.layer_normalization` and its like; scale and offset are constants or other tensors."""
    if any(call.inputs[0].shape[axis] > 1 for axis in axis_list(call.operation.axis, call.inputs[0].ndim)):
        call.pin(call.inputs[0], _statistics(call))
    return call.inputs[0] if len(call.inputs) == 1 else call.opaque("which is scaled by another tensor")[0]


def _statistics(call: RuleCall) -> str:
    return f"{call.call.path} ({type(call.operation).__name__}) takes statistics over the channels"


@register_rule(layers.GroupNormalization)
def group_normalization(call: RuleCall) -> Labels:
    """Statistics over groups of channels; with one channel per group it is per channel."""
    layer = call.operation
    if call.inputs[0].shape[layer.axis] == 1:
        call.pin(call.inputs[0], _statistics(call))
        return call.inputs[0]
    labels = call.channels(0, layer.axis)
    if layer.groups in (-1, len(labels)):
        call.config("groups", lambda kept, old: old if old == -1 else kept.count(labels), depends_on=labels)
    elif call.ignore_statistics:
        rows = labels.reshape(layer.groups, -1)
        call.tie(rows[:1], rows)
    else:
        call.pin(labels, _statistics(call))
    call.weight("gamma", {0: labels})
    call.weight("beta", {0: labels})
    return call.inputs[0]


@register_rule(layers.Normalization)
def normalization(call: RuleCall) -> Labels:
    """Given or learned mean and variance along the kept axes."""
    layer = call.operation
    rank = len(call.input_shapes[0])
    kept_axes = sorted(axis % rank for axis in layer.axis)
    moving = [axis for axis in kept_axes if call.inputs[0].shape[axis] > 1]
    if not moving:
        return call.inputs[0]
    if len(kept_axes) > 1:
        return call.opaque("which has statistics along several axes")[0]
    labels = call.channels(0, moving[0])
    if layer.input_mean is None:
        call.weight("adapt_mean", {0: labels})
        call.weight("adapt_variance", {0: labels})
    else:
        for key in ("mean", "variance"):
            call.config(key, _cut_list(labels), depends_on=labels)
    return call.inputs[0]


@register_rule(layers.Rescaling)
def rescaling(call: RuleCall) -> Labels:
    """A scale and an offset, numbers or lists along the last axis."""
    layer = call.operation
    lists = [key for key in ("scale", "offset") if np.size(getattr(layer, key)) > 1]
    if any(np.ndim(getattr(layer, key)) > 1 or call.input_shapes[0][-1] == 1 for key in lists):
        return call.opaque("whose scale has several axes or makes channels")[0]
    for key in lists if call.inputs[0].shape[-1] > 1 else ():
        labels = call.channels(0, -1)
        call.config(key, _cut_list(labels), depends_on=labels)
    return call.inputs[0]


def _cut_list(labels: Labels):
    def cut(kept: KeptChannels, old):
        if np.size(old) == 1 or kept.mask(labels).all():
            return old
        values = np.asarray(old)
        return kept.take(values, {values.ndim - 1: labels}).tolist()

    return cut
