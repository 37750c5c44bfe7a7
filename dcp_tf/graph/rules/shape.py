"""Operations that move values: labels move in the same way."""

import math
from typing import Any

import numpy as np
from keras import layers
from keras.src.ops import core, linalg, nn
from keras.src.ops import math as math_ops
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.labels import compress, place, varying_axes
from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import axis_list, channel_axis, operations


def _full(labels: Labels, shape: tuple) -> Labels:
    """Labels with every known axis at its full size."""
    return np.broadcast_to(labels, [1 if axis == 0 else size for axis, size in enumerate(shape)])


def moved_to(call: RuleCall, labels: Labels, before: tuple, after: tuple) -> Labels | None:
    """Labels of a tensor of shape `before` that is reshaped to `after`; None if they cannot be tracked."""
    if None not in before[1:] and None not in after[1:] and math.prod(before[1:]) == math.prod(after[1:]):
        return compress(_full(labels, before).reshape(1, *after[1:]))
    # Axes in front, of images and positions or windows, change as they like if none of those with channels does.
    varying = varying_axes(labels)
    first = min(varying, default=len(before))
    for axis in range(1, len(after) + 1):
        behind, reshaped = before[first:], after[axis:]
        if None not in (*behind, *reshaped) and math.prod(behind) == math.prod(reshaped):
            moved = _full(labels.reshape(labels.shape[first:])[None], (None, *behind)).reshape(reshaped)
            return compress(moved.reshape([1] * axis + list(reshaped)))
    return None


def new_sizes(labels: Labels):
    """A function that changes the entries of a shape along which `labels` change; `offset` skips the batch axis."""

    def change(kept: KeptChannels, old: Any, offset: int = 0) -> tuple:
        sizes = list(old)
        counts = kept.counts(labels)
        for axis in varying_axes(labels):
            if sizes[axis - offset] != -1:
                sizes[axis - offset] = counts[axis]
        return tuple(sizes)

    return change


@register_rule(layers.Flatten)
def flatten(call: RuleCall) -> Labels:
    """(N, ...) to (N, values); channels_first tensors become channels-last first."""
    labels, shape = call.inputs[0], call.input_shapes[0]
    if len(shape) == 1:
        return labels.reshape(1, 1)
    if None in shape[1:]:
        if varying_axes(labels):
            return call.opaque("whose input size is unknown")[0]
        return labels.reshape(-1)[:1].reshape(1, 1)
    full = _full(labels, shape)
    if call.operation.data_format == "channels_first" and len(shape) > 2:
        full = np.moveaxis(full, 1, -1)
    return compress(full.reshape(1, -1))


@register_rule(layers.Reshape)
def reshape_layer(call: RuleCall) -> Labels:
    """`target_shape` has no batch axis and may hold -1."""
    moved = moved_to(call, call.inputs[0], call.input_shapes[0], call.output_shapes[0])
    if moved is None:
        return call.opaque("which reshapes unknown sizes")[0]
    change = new_sizes(moved)
    call.config("target_shape", lambda kept, old: change(kept, old, offset=1), depends_on=moved)
    return moved


@register_rule(numpy_ops.Reshape)
def reshape_operation(call: RuleCall) -> Labels:
    """`keras.ops.reshape`: the new shape includes the batch axis, which must not change."""
    after = tuple(call.operation.newshape)
    if not after or after[0] not in (-1, None, call.input_shapes[0][0]):
        return call.opaque("which reshapes the batch axis")[0]
    shape = tuple(call.output_shapes[0])
    moved = moved_to(call, call.inputs[0], call.input_shapes[0], shape)
    if moved is None:
        return call.opaque("which reshapes unknown sizes")[0]
    call.config("newshape", new_sizes(moved), depends_on=moved)
    return moved


@register_rule(layers.Permute)
def permute_layer(call: RuleCall) -> Labels:
    """`dims` counts the axes from 1, without the batch axis."""
    return call.inputs[0].transpose(0, *call.operation.dims)


_AXIS_MOVES = {
    numpy_ops.Transpose: lambda operation, array: np.transpose(array, operation.axes),
    numpy_ops.Swapaxes: lambda operation, array: np.swapaxes(array, operation.axis1, operation.axis2),
    numpy_ops.Moveaxis: lambda operation, array: np.moveaxis(array, operation.source, operation.destination),
}


@register_rule(*_AXIS_MOVES)
def move_axes(call: RuleCall) -> Labels:
    """`keras.ops.transpose`, `swapaxes` and `moveaxis`."""
    move = next(move for kind, move in _AXIS_MOVES.items() if isinstance(call.operation, kind))
    return move(call.operation, call.inputs[0])


@register_rule(numpy_ops.Flip)
def flip(call: RuleCall) -> Labels:
    """`keras.ops.flip`."""
    axes = axis_list(call.operation.axis, call.inputs[0].ndim)
    return call.opaque("which moves images within the batch")[0] if 0 in axes else np.flip(call.inputs[0], axes)


@register_rule(numpy_ops.Roll)
def roll(call: RuleCall) -> Labels:
    """`keras.ops.roll` over space; rolled channels would move elsewhere once some are removed."""
    labels = call.inputs[0]
    if any(axis == 0 or labels.shape[axis] > 1 for axis in axis_list(call.operation.axis, labels.ndim)):
        return call.opaque("which rolls channels or images")[0]
    return labels


@register_rule(numpy_ops.Tile)
def tile(call: RuleCall) -> Labels:
    """`keras.ops.tile`: every copy of a channel is that channel."""
    labels, repeats = call.inputs[0], call.operation.repeats
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    repeats = [1] * (labels.ndim - len(repeats)) + repeats
    if len(repeats) > labels.ndim or repeats[0] != 1:
        return call.opaque("which repeats the batch")[0]
    return np.tile(labels, [n if size > 1 else 1 for n, size in zip(repeats, labels.shape, strict=True)])


@register_rule(numpy_ops.Repeat)
def repeat(call: RuleCall) -> Labels:
    """`keras.ops.repeat`: every copy of a channel is that channel."""
    labels, axis, repeats = call.inputs[0], call.operation.axis, call.operation.repeats
    if axis is None or axis % labels.ndim == 0:
        return call.opaque("which repeats the batch")[0]
    if labels.shape[axis] == 1:
        return labels
    if not isinstance(repeats, int):
        return call.opaque("which repeats each channel another number of times")[0]
    return np.repeat(labels, repeats, axis)


@register_rule(numpy_ops.Stack)
def stack(call: RuleCall) -> Labels:
    """`keras.ops.stack`: stacked channels stay or go together."""
    joined = call.inputs[0]
    for labels in call.inputs[1:]:
        call.tie(joined, labels)
        joined = np.broadcast_to(joined, np.broadcast_shapes(joined.shape, labels.shape))
    axis = call.operation.axis % (joined.ndim + 1)
    return call.opaque("which moves the batch axis")[0] if axis == 0 else np.expand_dims(joined, axis)


@register_rule(*operations(core, "Unstack"))
def unstack(call: RuleCall) -> list[Labels]:
    """`keras.ops.unstack` along an axis without channels, or whose positions have several channels each."""
    labels = call.inputs[0]
    axis = call.operation.axis % labels.ndim
    if axis == call.batch_axis or (labels.shape[axis] > 1 and labels.ndim == 2):
        return call.opaque("which unstacks channels or images")
    if labels.shape[axis] == 1:
        return [np.squeeze(labels, axis) for _ in call.output_shapes]
    pieces = [np.take(labels, number, axis) for number in range(labels.shape[axis])]
    if any(varying_axes(piece) == [] for piece in pieces):
        return call.opaque("which unstacks channels")
    for piece in pieces:
        call.part(piece)
    return pieces


@register_rule(*operations(nn, "DepthToSpace"))
def depth_to_space(call: RuleCall) -> Labels:
    """Blocks of channels become blocks of positions: one channel of each input block makes one output channel."""
    axis = channel_axis(call.operation.data_format, 4)
    rows = call.channels(0, axis).reshape(call.operation.block_size**2, -1)
    call.tie(rows[:1], rows)
    return call.place(rows[0], axis)


@register_rule(*operations(nn, "SpaceToDepth"))
def space_to_depth(call: RuleCall) -> Labels:
    """The channels are repeated once for each position of a block."""
    axis = channel_axis(call.operation.data_format, 4)
    return call.place(np.tile(call.channels(0, axis), call.operation.block_size**2), axis)


@register_rule(layers.RepeatVector)
def repeat_vector(call: RuleCall) -> Labels:
    """(N, C) to (N, n, C)."""
    return call.inputs[0][:, None, :]


@register_rule(numpy_ops.ExpandDims)
def expand_dims(call: RuleCall) -> Labels:
    """`keras.ops.expand_dims`."""
    labels, rank = call.inputs[0], len(call.output_shapes[0])
    axes = axis_list(call.operation.axis, rank)
    return call.opaque("which moves the batch axis")[0] if 0 in axes else np.expand_dims(labels, tuple(axes))


@register_rule(numpy_ops.Squeeze)
def squeeze(call: RuleCall) -> Labels:
    """`keras.ops.squeeze` of axes of size 1."""
    labels, shape = call.inputs[0], call.input_shapes[0]
    axes = call.operation.axis
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1 and axis > 0]
    return np.squeeze(labels, tuple(axis_list(axes, labels.ndim)))


@register_rule(numpy_ops.Pad)
def pad(call: RuleCall) -> Labels:
    """`keras.ops.pad`: padding of the channel axis creates new channels on both sides."""
    widths = [tuple(w) for w in call.operation.pad_width]
    labels, shape = call.inputs[0], call.input_shapes[0]
    if len(widths) == 1:
        widths = widths * labels.ndim
    for axis, (front, back) in enumerate(widths):
        if not (front or back) or labels.shape[axis] == 1:
            continue
        if call.operation.mode != "constant":
            return call.opaque("which pads channels with other channels")[0]
        vector = call.channels(0, axis)
        new = call.fresh(front + back, key=f"padding of axis {axis}")
        before, after = new[:front], new[front:]

        def change(
            kept: KeptChannels, old: Any, axis: int = axis, before: Labels = before, after: Labels = after
        ) -> tuple:
            sizes = [tuple(w) for w in old] * (len(shape) if len(old) == 1 else 1)
            sizes[axis] = (kept.count(before), kept.count(after))
            return tuple(sizes)

        call.config("pad_width", change, depends_on=new)
        if sum(labels.shape[a] > 1 for a in range(labels.ndim)) > 1:
            return call.opaque("which pads a tensor with several channel axes")[0]
        labels = place(np.concatenate([before, vector, after]), axis, len(shape))
    return labels


_REDUCTIONS = """
    Mean Max Min Sum Amax Amin Prod Std Var Median Any All CountNonzero Ptp Argmax Argmin Quantile Percentile Trapezoid
    Nanargmax Nanargmin Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar
"""


@register_rule(*operations(numpy_ops, _REDUCTIONS), *operations(math_ops, "Logsumexp"), *operations(linalg, "Norm"))
def reduce(call: RuleCall) -> Labels:
    """Reductions over space keep channels; reductions over channels mix them."""
    labels = call.inputs[0]
    axes = axis_list(call.operation.axis, labels.ndim)
    if 0 in axes:
        return call.opaque("which mixes the images of a batch")[0]
    if any(labels.shape[axis] > 1 for axis in axes):
        return call.opaque("which mixes channels")[0]
    left = labels if getattr(call.operation, "keepdims", False) else np.squeeze(labels, tuple(axes))
    # Several quantiles add a leading axis.
    return left if left.ndim == len(call.output_shapes[0]) else call.opaque("which makes several values of each")[0]
