"""Custom layers of networks in `keras.applications`."""

from keras.src.applications import convnext, inception_resnet_v2

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.merging import merge


@register_rule(convnext.LayerScale)
def layer_scale(call: RuleCall) -> Labels:
    """One factor for each channel of the last axis."""
    labels = call.channels(0, -1)
    call.weight("gamma", {0: labels})
    call.config("projection_dim", labels)
    return call.inputs[0]


@register_rule(convnext.StochasticDepth)
def stochastic_depth(call: RuleCall) -> Labels:
    """Drops whole feature maps of the batch in training."""
    return call.inputs[0]


@register_rule(inception_resnet_v2.CustomScaleLayer)
def scaled_sum(call: RuleCall) -> Labels:
    """First input plus the scaled second one: a residual stream."""
    return merge(call, residual=True)
