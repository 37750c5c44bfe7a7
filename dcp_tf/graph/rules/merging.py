"""Layers that join several tensors: sums, products and concatenations."""

import numpy as np
from keras import layers
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import Labels, RuleCall, register_rule


def merge(call: RuleCall, residual: bool) -> Labels:
    """Joins all inputs value by value, with broadcasting: positions that meet are the same channel.

    An input that is broadcast along the channels of another one is pinned: its one channel meets many, so it cannot
    follow any of them.
    """
    rank = len(call.output_shapes[0])
    joined = None
    followers = [
        (labels.reshape([1] * (rank - labels.ndim) + list(labels.shape)), [1] * (rank - len(shape)) + list(shape))
        for labels, shape in zip(call.inputs, call.input_shapes, strict=True)
    ]
    longest = [max(labels.shape[axis] for labels, _ in followers) for axis in range(rank)]
    for labels, shape in followers:
        stretched = any(shape[axis] == 1 and longest[axis] > 1 for axis in range(rank))
        if stretched:
            call.pin(labels, f"{call.call.path} broadcasts it over the channels of another tensor")
        elif joined is None:
            joined = labels
        else:
            call.tie(joined, labels)
            joined = np.broadcast_to(call.plainer(joined, labels), np.broadcast_shapes(joined.shape, labels.shape))
            if residual:
                call.residual.append(np.unique(joined))
    return call.opaque("which broadcasts all of its inputs")[0] if joined is None else joined


@register_rule(layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
def residual_merge(call: RuleCall) -> Labels:
    """Several feature maps become one: a residual stream."""
    return merge(call, residual=True)


@register_rule(layers.Multiply)
def gate(call: RuleCall) -> Labels:
    """A product, such as a squeeze-and-excite gate: the gate's channels go with the feature map's."""
    return merge(call, residual=False)


@register_rule(layers.Concatenate, numpy_ops.Concatenate)
def concatenate(call: RuleCall) -> Labels:
    """Labels are concatenated along the axis; along the other axes they are tied."""
    rank = len(call.output_shapes[0])
    axis = call.operation.axis % rank
    if all(labels.shape[axis] == 1 and _one_channel_along(call, axis) for labels in call.inputs):
        for labels in call.inputs[1:]:
            call.tie(call.inputs[0], labels)
        shape = np.broadcast_shapes(*(labels.shape for labels in call.inputs))
        return np.broadcast_to(call.inputs[0], shape)
    parts = []
    other = np.broadcast_shapes(*(np.moveaxis(x, axis, 0).shape[1:] for x in call.inputs))
    for labels, shape in zip(call.inputs, call.input_shapes, strict=True):
        if shape[axis] is None:
            return call.opaque("whose sizes along the joined axis are unknown")[0]
        moved = np.moveaxis(labels, axis, 0)
        parts.append(np.broadcast_to(moved, (shape[axis], *other)))
    return np.moveaxis(np.concatenate(parts), 0, axis)


def _one_channel_along(call: RuleCall, axis: int) -> bool:
    """Whether joining along `axis` leaves channels whole because they lie along another axis."""
    return any(a != axis for labels in call.inputs for a in varying_axes(labels))
