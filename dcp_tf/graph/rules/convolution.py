"""Convolutions: one kernel axis reads channels, another produces new ones."""

import numpy as np

from dcp_tf.graph.kinds import layers_of
from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import channel_axis, positions


def _axes(call: RuleCall) -> tuple[int, Labels]:
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    return axis, call.channels(0, axis)


@register_rule(*layers_of("convolution"))
def convolution(call: RuleCall) -> Labels:
    """Kernel (*spatial, C / groups, filters)."""
    layer, (axis, channels_in) = call.operation, _axes(call)
    bias = layer.bias is not None
    if layer.groups > 1 and layer.groups == len(channels_in):
        channels_out = np.repeat(channels_in, layer.filters // layer.groups)
        kernel = call.weight("kernel", {-1: channels_out})
        call.config("groups", channels_in)
    else:
        channels_out = call.fresh(layer.filters)
        if layer.groups > 1:
            # Every group keeps the same positions, so that all groups stay equally wide.
            channels_in, rows_out = channels_in.reshape(layer.groups, -1), channels_out.reshape(layer.groups, -1)
            call.tie(channels_in[:1], channels_in)
            call.tie(rows_out[:1], rows_out)
            channels_in = channels_in[0]
        kernel = call.consume("kernel", -2, channels_in)
        call.weight("kernel", {-1: channels_out})
    call.weight("bias", {0: channels_out})
    call.config("filters", channels_out)
    call.multiplies(kernel, positions(call.output_shapes[0], axis), output_axis=-1, bias=bias)
    activate(call, channels_out)
    return call.place(channels_out, axis)


@register_rule(*layers_of("depthwise"))
def depthwise(call: RuleCall) -> Labels:
    """Kernel (*spatial, C, multiplier): channel c produces outputs c * multiplier and following."""
    layer, (axis, channels_in) = call.operation, _axes(call)
    channels_out = np.repeat(channels_in, layer.depth_multiplier)
    kernel = call.weight("kernel", {-2: channels_in})
    call.weight("bias", {0: channels_out})
    call.multiplies(kernel, positions(call.output_shapes[0], axis), output_axis=(-2, -1), bias=layer.bias is not None)
    activate(call, channels_out)
    return call.place(channels_out, axis)


@register_rule(*layers_of("separable"))
def separable(call: RuleCall) -> Labels:
    """Depthwise kernel (*spatial, C, multiplier), pointwise kernel (1, ..., C * multiplier, filters)."""
    layer, (axis, channels_in) = call.operation, _axes(call)
    channels_out = call.fresh(layer.filters)
    positions_out = positions(call.output_shapes[0], axis)
    first = call.weight("depthwise_kernel", {-2: channels_in})
    second = call.consume("pointwise_kernel", -2, np.repeat(channels_in, layer.depth_multiplier))
    call.weight("pointwise_kernel", {-1: channels_out})
    call.weight("bias", {0: channels_out})
    call.config("filters", channels_out)
    call.multiplies(first, positions_out, output_axis=(-2, -1))
    call.multiplies(second, positions_out, output_axis=-1, bias=layer.bias is not None)
    activate(call, channels_out)
    return call.place(channels_out, axis)


@register_rule(*layers_of("transposed"))
def transposed(call: RuleCall) -> Labels:
    """Kernel (*spatial, filters, C)."""
    layer, (axis, channels_in) = call.operation, _axes(call)
    channels_out = call.fresh(layer.filters)
    kernel = call.consume("kernel", -1, channels_in)
    call.weight("kernel", {-2: channels_out})
    call.weight("bias", {0: channels_out})
    call.config("filters", channels_out)
    call.multiplies(kernel, positions(call.input_shapes[0], axis), output_axis=-2, bias=layer.bias is not None)
    activate(call, channels_out)
    return call.place(channels_out, axis)
