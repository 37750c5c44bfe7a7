"""Fully connected layers and embeddings."""

from keras import layers

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import positions


@register_rule(layers.Dense)
def dense(call: RuleCall) -> Labels:
    """Kernel (C, units); it works on the last axis."""
    layer = call.operation
    made = call.fresh(layer.units)
    kernel = call.consume("kernel", 0, call.channels(0, -1))
    call.weight("kernel", {1: made})
    call.weight("bias", {0: made})
    call.config("units", made)
    # The papers count 2 * C_in * C_out for it whether or not a bias is added.
    call.multiplies(kernel, positions(call.output_shapes[0], -1), output_axis=1, bias=True)
    activate(call, made)
    return call.place(made, -1)


@register_rule(layers.Embedding)
def embedding(call: RuleCall) -> Labels:
    """Table (vocabulary, C)."""
    made = call.fresh(call.operation.output_dim)
    call.weight("embeddings", {1: made})
    call.config("output_dim", made)
    return call.place(made, -1)
