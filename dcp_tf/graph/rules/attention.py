"""Attention: heads, the channels of heads, and what is read and made around them."""

import math

import numpy as np
from keras import layers
from keras.src.ops import nn

from dcp_tf.graph.attention import AttentionProducts, masks_of
from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import positions


@register_rule(AttentionProducts)
def attention_products(call: RuleCall) -> Labels:
    """Query (..., heads, channels) times key, the weighted value; several heads of a query may share one of a key.

    A channel of a query is multiplied with that of the key only: both go together. A head goes with all its channels.
    """
    query, key, value = (call.table(which, (-2, -1)) for which in range(3))
    call.silence(1)
    heads = call.fresh(len(key), "heads")[:, None]
    query_heads, outputs = np.repeat(heads, call.operation.repeats, 0), np.repeat(value, call.operation.repeats, 0)
    call.tie(query, np.repeat(key, call.operation.repeats, 0))
    for labels, of_labels in ((query, query_heads), (key, heads), (value, heads)):
        call.within(labels, of_labels)
    tensors = len(call.call.node.arguments.args)
    for mask in call.inputs[tensors:]:
        call.pin(mask, f"{call.call.path} takes it as a mask")
    if tensors > 3:
        gate = call.table(3, (-2, -1))
        call.tie(gate, outputs)
        call.within(gate, query_heads)
    pairs = _pairs_of_positions(call)
    call.multiplies_tensors(query, pairs)
    call.multiplies_tensors(outputs, pairs)
    return outputs.reshape([1] * (len(call.output_shapes[0]) - 2) + list(outputs.shape))


def _pairs_of_positions(call: RuleCall) -> int | None:
    """How many positions of the query meet how many of the key, for one image."""
    sizes = [*call.input_shapes[0][1:-2], *(call.input_shapes[1][1 + axis] for axis in _attended(call))]
    return None if None in sizes else math.prod(sizes)


def _attended(call: RuleCall) -> list[int]:
    """The axes of positions that attention runs over, without the batch axis."""
    rank = len(call.input_shapes[0])
    axes = getattr(call.operation.layer, "_attention_axes", None) or range(1, rank - 2)
    return [axis % (rank - 1) - 1 for axis in axes]


@register_rule(layers.Attention, layers.AdditiveAttention)
def single_attention(call: RuleCall) -> Labels | list[Labels]:
    """Attention without projections: channels of a query and a key go together, those of the value pass through.

    `AdditiveAttention` sums over the pairs with a weight, `scale`, that reads them.
    """
    layer, count = call.operation, len(call.call.node.arguments.args[0])
    query, value, key = (call.channels(which, -1) for which in (0, 1, count - 1))
    sizes = [*call.input_shapes[0][1:-1], *call.input_shapes[1][1:-1]]
    products = None if None in sizes else math.prod(sizes)
    if isinstance(layer, layers.AdditiveAttention):
        if not layer.use_scale:
            return call.opaque("which sums over channels")
        call.tie(query, key)
        call.multiplies(call.consume("scale", 0, query), products)
    else:
        if layer.score_mode != "dot" or not (call.silence(count - 1) or call.silence(0)):
            return call.opaque("which sums over channels")
        call.tie(query, key)
        call.multiplies_tensors(query, products)
    call.multiplies_tensors(value, products)
    for mask in call.inputs[count:]:
        call.pin(mask, f"{call.call.path} takes it as a mask")
    scores = [call.unnamed(1).reshape([1] * len(shape)) for shape in call.output_shapes[1:]]
    return [call.place(value, -1), *scores]


@register_rule(nn.DotProductAttention)
def dot_product_attention(call: RuleCall) -> Labels:
    """`keras.ops.dot_product_attention` of (N, positions, heads, channels); all three have as many channels."""
    arguments = call.call.node.arguments
    (query, key, value), others = (call.table(which, (-2, -1)) for which in range(3)), call.inputs[3:]
    repeats = len(query) // len(key)
    if not (call.silence(1) or call.silence(0)) or "scale" not in arguments.kwargs:
        return call.opaque("which sums over channels")[0]
    heads = call.fresh(len(key), "heads")[:, None]
    query_heads = np.repeat(heads, repeats, 0)
    call.tie(query, np.repeat(key, repeats, 0))
    call.tie(key, value)
    for labels, of_labels in ((query, query_heads), (key, heads)):
        call.within(labels, of_labels)
    for labels in others:  # a bias or a mask, (N, heads or 1, positions, positions)
        call.pin(labels, f"{call.call.path} takes it as a mask")
    (rows, columns), size = (shape[1] for shape in call.input_shapes[:2]), query.shape[1]
    for _ in range(2):
        call.multiplies_tensors(query, None if None in (rows, columns) else rows * columns)
    call.argument("scale", lambda kept, old: size**-0.5 if old is None else old, depends_on=query)
    return query.reshape(1, 1, *query.shape)


@register_rule(layers.MultiHeadAttention)
def multi_head_attention(call: RuleCall) -> Labels | list[Labels]:
    """A layer that is not opened: kernels (C, heads, size) read its inputs; (heads, size, C) produces the output."""
    layer = call.operation
    output_kernel = layer.output_dense.kernel
    several = len(call.output_shapes) > 1 or len(output_kernel.shape) != 3
    if masks_of(call.call.node) or several or len(call.inputs) not in (2, 3):
        return call.opaque("with masks, scores or an output of several axes")
    readers = zip((layer.query_dense, layer.value_dense, layer.key_dense), (0, 1, len(call.inputs) - 1), strict=True)
    for dense, which in readers:
        kernel = call.consume(dense.kernel, 0, call.channels(which, -1))
        call.multiplies(kernel, positions(call.input_shapes[which], -1), bias=True)
    channels_out, query = call.fresh(output_kernel.shape[-1]), call.channels(0, -1)
    kernel = call.weight(output_kernel, {-1: channels_out})
    call.weight(layer.output_dense.bias, {0: channels_out})
    call.multiplies(kernel, positions(call.output_shapes[0], -1), bias=True)
    sizes = [*call.output_shapes[0][1:-1], *call.input_shapes[1][1:-1]]
    for size in (layer.query_dense.kernel.shape[1:], output_kernel.shape[:2]):
        call.multiplies_tensors(call.unnamed(math.prod(size)), None if None in sizes else math.prod(sizes))

    def output_shape(kept: KeptChannels, old: tuple | None) -> tuple | None:
        # Left open it is the size of the query, which may shrink by another number.
        changed = not (kept.mask(channels_out).all() and kept.mask(query).all())
        return (kept.count(channels_out),) if changed else old

    call.config("output_shape", output_shape, depends_on=channels_out)
    return call.place(channels_out, -1)
