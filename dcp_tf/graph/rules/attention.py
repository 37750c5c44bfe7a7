"""Attention and EinsumDense: their inputs and outputs can be pruned, channels between heads stay."""

import keras
from keras import layers

from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import positions


@register_rule(layers.MultiHeadAttention)
def multi_head_attention(call: RuleCall) -> Labels | list[Labels]:
    """Kernels (C, heads, size) read query, key and value; kernel (heads, size, C) produces the output.

    The products of attention with itself have no weights; the costs leave them out.
    """
    layer, arguments = call.operation, call.call.node.arguments
    masks = [key for key, value in arguments.kwargs.items() if isinstance(value, keras.KerasTensor)]
    output_kernel = layer.output_dense.kernel
    if masks or len(call.inputs) not in (2, 3) or len(call.output_shapes) > 1 or len(output_kernel.shape) != 3:
        return call.opaque("with masks, scores or an output of several axes")
    readers = zip((layer.query_dense, layer.value_dense, layer.key_dense), (0, 1, len(call.inputs) - 1), strict=True)
    for dense, which in readers:
        kernel = call.consume(dense.kernel, 0, call.channels(which, -1))
        call.multiplies(kernel, positions(call.input_shapes[which], -1), bias=True)
    channels_out, query = call.fresh(output_kernel.shape[-1]), call.channels(0, -1)
    kernel = call.weight(output_kernel, {-1: channels_out})
    call.weight(layer.output_dense.bias, {0: channels_out})
    call.multiplies(kernel, positions(call.output_shapes[0], -1), bias=True)

    def output_shape(kept: KeptChannels, old: tuple | None) -> tuple | None:
        # Left open it is the size of the query, which may shrink by another number.
        changed = not (kept.mask(channels_out).all() and kept.mask(query).all())
        return (kept.count(channels_out),) if changed else old

    call.config("output_shape", output_shape, depends_on=channels_out)
    return call.place(channels_out, -1)


@register_rule(layers.EinsumDense)
def einsum_dense(call: RuleCall) -> Labels | list[Labels]:
    """A Dense layer along any one axis: one kernel axis reads channels, the other produces them."""
    layer = call.operation
    input_term, rest = layer.equation.replace("...", ".").replace(" ", "").split(",")
    kernel, output_term = rest.split("->")
    simple = len(kernel) == 2 and sum(k in input_term and k not in output_term for k in kernel) == 1
    new = next((k for k in kernel if k in output_term and k not in input_term), None)
    if not simple or new is None or input_term.replace(_other(kernel, new), new) != output_term:
        return call.opaque("which is no Dense layer along one axis")
    axis = _axis(input_term, _other(kernel, new))
    labels = call.fresh(layer.kernel.shape[kernel.index(new)])
    index = call.consume("kernel", kernel.index(_other(kernel, new)), call.channels(0, axis))
    call.weight("kernel", {kernel.index(new): labels})
    if layer.bias is not None:
        if sum(size > 1 for size in layer.bias.shape) > 1:
            return call.opaque("whose bias has several axes")
        call.weight("bias", {max(range(len(layer.bias.shape)), key=lambda a: layer.bias.shape[a]): labels})
    rank = len(call.output_shapes[0])

    def output_shape(kept: KeptChannels, old: int | tuple) -> int | tuple:
        sizes = [old] if isinstance(old, int) else list(old)
        sizes[axis % rank - 1 if "." not in input_term else axis] = kept.count(labels)
        return old if kept.mask(labels).all() else sizes[0] if isinstance(old, int) else tuple(sizes)

    call.config("output_shape", output_shape, depends_on=labels)
    call.multiplies(index, positions(call.output_shapes[0], axis), bias=True)
    activate(call, labels)
    return call.place(labels, axis)


def _other(kernel: str, letter: str) -> str:
    return kernel[1 - kernel.index(letter)]


def _axis(subscripts: str, letter: str) -> int:
    """The axis of a letter: from the front, or from the back behind an ellipsis."""
    index = subscripts.index(letter)
    return index - len(subscripts) if subscripts.startswith(".") else index
