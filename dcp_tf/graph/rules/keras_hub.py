"""Layers of KerasHub with weights of their own, by their names: KerasHub need not be installed."""

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import channel_axis


@register_rule("keras_hub.src.models.vit.vit_layers.ViTPatchingAndEmbedding")
def patches_and_positions(call: RuleCall) -> Labels:
    """A convolution of patches, a class token beside them, and a table of positions that is added."""
    layer = call.operation
    convolution, axis = layer.patch_embedding, channel_axis(layer.data_format, 4)
    channels_out = call.fresh(layer.hidden_dim)
    kernel = call.consume(convolution.kernel, -2, call.channels(0, axis))
    call.weight(convolution.kernel, {-1: channels_out})
    call.weight(layer.position_embedding.embeddings, {-1: channels_out})
    if convolution.bias is not None:
        call.weight(convolution.bias, {0: channels_out})
    if layer.use_class_token:
        call.weight("class_token", {-1: channels_out})
    call.config("hidden_dim", channels_out)
    call.multiplies(kernel, layer.num_patches, output_axis=-1, bias=convolution.bias is not None)
    return call.place(channels_out, -1)
