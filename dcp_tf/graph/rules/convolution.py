"""Convolutions: they read channels with one axis of the kernel and make new ones with another."""

import numpy as np

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import channel_axis, positions, public


def _axes(call: RuleCall) -> tuple[int, Labels]:
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    return axis, call.channels(0, axis)


@register_rule(*public(["Conv1D", "Conv2D", "Conv3D"]))
def convolution(call: RuleCall) -> Labels:
    """Kernel (*spatial, C / groups, filters)."""
    layer, (axis, read) = call.operation, _axes(call)
    bias = layer.bias is not None
    if layer.groups > 1 and layer.groups == len(read):
        made = np.repeat(read, layer.filters // layer.groups)
        kernel = call.weight("kernel", {-1: made})
        call.config("groups", read)
    else:
        made = call.fresh(layer.filters)
        if layer.groups > 1:
            # Every group keeps the same positions, so that all groups stay equally wide.
            read, made_rows = read.reshape(layer.groups, -1), made.reshape(layer.groups, -1)
            call.tie(read[:1], read)
            call.tie(made_rows[:1], made_rows)
            read = read[0]
        kernel = call.consume("kernel", -2, read)
        call.weight("kernel", {-1: made})
    call.weight("bias", {0: made})
    call.config("filters", made)
    call.multiplies(kernel, positions(call.output_shapes[0], axis), output_axis=-1, bias=bias)
    activate(call, made)
    return call.place(made, axis)


@register_rule(*public(["DepthwiseConv1D", "DepthwiseConv2D"]))
def depthwise(call: RuleCall) -> Labels:
    """Kernel (*spatial, C, multiplier): channel c makes the outputs c * multiplier ... in turn."""
    layer, (axis, read) = call.operation, _axes(call)
    made = np.repeat(read, layer.depth_multiplier)
    kernel = call.weight("kernel", {-2: read})
    call.weight("bias", {0: made})
    call.multiplies(kernel, positions(call.output_shapes[0], axis), output_axis=(-2, -1), bias=layer.bias is not None)
    activate(call, made)
    return call.place(made, axis)


@register_rule(*public(["SeparableConv1D", "SeparableConv2D"]))
def separable(call: RuleCall) -> Labels:
    """Depthwise kernel (*spatial, C, multiplier), pointwise kernel (1, ..., C * multiplier, filters)."""
    layer, (axis, read) = call.operation, _axes(call)
    made = call.fresh(layer.filters)
    places = positions(call.output_shapes[0], axis)
    first = call.weight("depthwise_kernel", {-2: read})
    second = call.consume("pointwise_kernel", -2, np.repeat(read, layer.depth_multiplier))
    call.weight("pointwise_kernel", {-1: made})
    call.weight("bias", {0: made})
    call.config("filters", made)
    call.multiplies(first, places, output_axis=(-2, -1))
    call.multiplies(second, places, output_axis=-1, bias=layer.bias is not None)
    activate(call, made)
    return call.place(made, axis)


@register_rule(*public(["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]))
def transposed(call: RuleCall) -> Labels:
    """Kernel (*spatial, filters, C)."""
    layer, (axis, read) = call.operation, _axes(call)
    made = call.fresh(layer.filters)
    kernel = call.consume("kernel", -1, read)
    call.weight("kernel", {-2: made})
    call.weight("bias", {0: made})
    call.config("filters", made)
    call.multiplies(kernel, positions(call.input_shapes[0], axis), output_axis=-2, bias=layer.bias is not None)
    activate(call, made)
    return call.place(made, axis)
