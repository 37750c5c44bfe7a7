"""`keras.ops` that do what a layer does, with constants in place of weights: the constants follow the channels."""

import numpy as np
from keras.src.ops import image, nn

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import channel_axis, constant_arrays, operations
from dcp_tf.graph.rules.elementwise import cut_array


@register_rule(*operations(nn, "DepthwiseConv"))
def depthwise(call: RuleCall) -> Labels:
    """A constant kernel (*space, C, multiplier), such as a blur."""
    if len(call.inputs) > 1:
        return call.opaque("whose kernel is computed")[0]
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    channels_in = call.channels(0, axis)
    ((where, kernel),) = constant_arrays(call)
    call.argument(where, cut_array({-2: channels_in}), depends_on=channels_in)
    return call.place(np.repeat(channels_in, np.shape(kernel)[-1]), axis)


@register_rule(*operations(nn, "BatchNorm"))
def batch_normalization(call: RuleCall) -> Labels:
    """Mean, variance, offset and scale are vectors of the length of one axis."""
    if len(call.inputs) > 1:
        return call.opaque("whose statistics are computed")[0]
    axis = call.operation.axis
    if call.inputs[0].shape[axis] > 1:
        labels = call.channels(0, axis)
        for where, _ in constant_arrays(call):
            call.argument(where, cut_array({-1: labels}), depends_on=labels)
    return call.inputs[0]


@register_rule(*operations(image, "ExtractPatches"))
def extract_patches(call: RuleCall) -> Labels:
    """The channels are repeated once for each position of a patch."""
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    channels_in = call.channels(0, axis)
    return call.place(np.tile(channels_in, call.output_shapes[0][axis] // len(channels_in)), axis)
