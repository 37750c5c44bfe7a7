"""Normalizations: per-channel ones follow the channels, those with statistics over channels pin them."""

import numpy as np
from keras import layers

from dcp_tf.graph.rule import Kept, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import public


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


@register_rule(*public(["LayerNormalization", "RMSNormalization", "UnitNormalization"]))
def over_axes(call: RuleCall) -> Labels:
    """Statistics over the listed axes: removing a channel there would change all the others."""
    axes = call.operation.axis
    for axis in [axes] if isinstance(axes, int) else axes:
        if call.inputs[0].shape[axis] > 1:
            call.pin(call.inputs[0], f"{call.call.path} takes statistics over the channels")
    return call.inputs[0]


@register_rule(layers.GroupNormalization)
def group_normalization(call: RuleCall) -> Labels:
    """Statistics over groups of channels; with one channel a group it is per channel."""
    layer = call.operation
    if call.inputs[0].shape[layer.axis] == 1:
        call.pin(call.inputs[0], f"{call.call.path} takes statistics over the channels")
        return call.inputs[0]
    labels = call.channels(0, layer.axis)
    if layer.groups not in (-1, len(labels)):
        call.pin(labels, f"{call.call.path} takes statistics over groups of channels")
    else:
        call.weight("gamma", {0: labels})
        call.weight("beta", {0: labels})
        call.config("groups", lambda kept, old: old if old == -1 else kept.count(labels), depends_on=labels)
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
    def cut(kept: Kept, old):
        if np.size(old) == 1 or kept.mask(labels).all():
            return old
        values = np.asarray(old)
        return kept.take(values, {values.ndim - 1: labels}).tolist()

    return cut
