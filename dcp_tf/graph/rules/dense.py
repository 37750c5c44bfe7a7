"""Fully connected layers and embeddings."""

from keras import layers

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import positions


@register_rule(layers.Dense)
def dense(call: RuleCall) -> Labels:
    """Kernel (C, units); it works on the last axis."""
    layer = call.operation
    channels_out = call.fresh(layer.units)
    kernel = call.consume("kernel", 0, call.channels(0, -1))
    call.weight("kernel", {1: channels_out})
    call.weight("bias", {0: channels_out})
    call.config("units", channels_out)
    # The papers count 2 * C_in * C_out for it whether or not a bias is added.
    call.multiplies(kernel, positions(call.output_shapes[0], -1), output_axis=1, bias=True)
    activate(call, channels_out)
    return call.place(channels_out, -1)


@register_rule(layers.Embedding)
def embedding(call: RuleCall) -> Labels:
    """Table (vocabulary, C)."""
    channels_out = call.fresh(call.operation.output_dim)
    call.weight("embeddings", {1: channels_out})
    call.config("output_dim", channels_out)
    return call.place(channels_out, -1)
