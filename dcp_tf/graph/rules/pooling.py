"""Operations over space that treat each channel alone: pooling, padding, cropping, upsampling."""

from keras import layers
from keras.src.ops import image, nn

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import channel_axis, operations, public


def _names(pattern: str, ranks: str = "123") -> list[str]:
    return [pattern.format(rank) for rank in ranks]


@register_rule(
    *public(
        [
            *_names("MaxPooling{}D"),
            *_names("AveragePooling{}D"),
            *_names("AdaptiveMaxPooling{}D"),
            *_names("AdaptiveAveragePooling{}D"),
            *_names("ZeroPadding{}D"),
            *_names("Cropping{}D"),
            *_names("UpSampling{}D"),
        ]
    ),
    layers.CenterCrop,
    layers.RandomCrop,
    nn.MaxPool,
    nn.AveragePool,
    *operations(image, "AffineTransform CropImages GaussianBlur PadImages PerspectiveTransform"),
)
def over_space(call: RuleCall) -> Labels:
    """The channel axis is unchanged."""
    if len(call.inputs) > 1:
        return call.opaque("whose settings are computed")[0]
    data_format = getattr(call.operation, "data_format", None)
    axis = channel_axis(data_format, len(call.input_shapes[0]))
    return call.place(call.channels(0, axis), axis)


@register_rule(*public([*_names("GlobalMaxPooling{}D"), *_names("GlobalAveragePooling{}D")]))
def global_pooling(call: RuleCall) -> Labels:
    """The spatial axes are removed; with `keepdims` they keep size 1."""
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    labels = call.channels(0, axis)
    return call.place(labels, axis if call.operation.keepdims else 1)


@register_rule(layers.Resizing, image.Resize)
def resizing(call: RuleCall) -> Labels:
    """Interpolation over space."""
    axis = channel_axis(call.operation.data_format, len(call.input_shapes[0]))
    return call.place(call.channels(0, axis), axis)
