"""Fully connected layers along any axes, and embeddings."""

import math
import string
from collections.abc import Sequence

import numpy as np
from keras import layers

from dcp_tf.graph.labels import varying_axes
from dcp_tf.graph.rule import Axis, KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import activate
from dcp_tf.graph.rules.common import rearranged

Piece = tuple[Sequence[str], Labels]  # letters of the axes along which labels lie, and the labels, an axis for each


@register_rule(layers.Embedding)
def embedding(call: RuleCall) -> Labels:
    """Table (vocabulary, C)."""
    channels_out = call.fresh(call.operation.output_dim)
    call.weight("embeddings", {1: channels_out})
    call.config("output_dim", channels_out)
    return call.place(channels_out, -1)


@register_rule(layers.Dense)
def dense(call: RuleCall) -> Labels:
    """Kernel (C, units); it works on the last axis."""
    positions = string.ascii_lowercase[: len(call.input_shapes[0]) - 1]
    pieces, outputs = _linear(call, positions + "Y", "YZ", positions + "Z")
    call.weight("bias", {0: pieces[0][1]})
    call.config("units", pieces[0][1])
    return outputs


@register_rule(layers.EinsumDense)
def einsum_dense(call: RuleCall) -> Labels | list[Labels]:
    """A Dense layer along any axes, such as heads and their channels; each position of others may have a kernel."""
    layer = call.operation
    input_term, rest = layer.equation.replace("...", ".").replace(" ", "").split(",")
    kernel, output_term = rest.split("->")
    unused = [letter for letter in string.ascii_letters if letter not in layer.equation]
    from_back = "." in output_term[:-1]
    input_term, output_term = (
        term.replace(".", "".join(unused[: len(shape) - len(term) + 1]))
        for term, shape in ((input_term, call.input_shapes[0]), (output_term, call.output_shapes[0]))
    )
    if input_term[0] != output_term[0] or input_term[0] in kernel:
        return call.opaque("which mixes the images of a batch")
    if set(kernel) - set(input_term + output_term):
        return call.opaque("which sums its kernel over an axis that its input does not have")
    pieces, outputs = _linear(call, input_term, kernel, output_term)
    if layer.bias is not None:
        if _may_turn(call, layer.bias.shape, pieces, output_term):
            call.pin(outputs, f"{call.call.path} has a bias that Keras adds along the last axis where sizes agree")
        _follow(call, "bias", output_term[-len(layer.bias.shape) :], pieces)

    def output_shape(kept: KeptChannels, old: int | tuple) -> int | tuple:
        sizes, counts = [old] if isinstance(old, int) else list(old), kept.counts(outputs)
        for axis in varying_axes(outputs):
            place = len(sizes) + axis - outputs.ndim if from_back else axis - 1
            if 0 <= place < len(sizes) and sizes[place] is not None:
                sizes[place] = counts[axis]
        return old if kept.mask(outputs).all() else sizes[0] if isinstance(old, int) else tuple(sizes)

    call.config("output_shape", output_shape, depends_on=outputs)
    return outputs


def _linear(call: RuleCall, input_term: str, kernel: str, output_term: str) -> tuple[list[Piece], Labels]:
    """Labels of what the kernel of a layer makes, by the letters of the axes of its input, of itself and its output.

    Letters of the kernel that are not in the output are read; those that are not in the input are made; each position
    along those in both has a kernel of its own. All other letters stay, with the channels that lie along them.

    Returns:
        What the output is made of, what the kernel makes first; and the labels of the output.
    """
    labels, sizes = call.inputs[0], dict(zip(kernel, call.operation.kernel.shape, strict=True))
    read, made = ([x for x in kernel if x not in term] for term in (output_term, input_term))
    fresh = call.fresh(math.prod(sizes[x] for x in made)).reshape([sizes[x] for x in made])
    pieces, outputs = [(made, fresh)], rearranged(fresh, "".join(made), output_term)
    apart = call.apart(0, [input_term.index(x) for x in read])
    call.record.is_new |= bool(apart)
    apart = [] if call.as_earlier else apart
    moving = {input_term[axis] for axis in varying_axes(labels)}
    along = [x for x in read if x in moving]
    if along or (read and not apart):
        own = [x for x in kernel if x in input_term and x in output_term and x in moving and not apart]
        letters = along or read
        table = call.table(0, [input_term.index(x) for x in (*own, *letters)], others=True)
        if own:
            first, last = table.shape[: len(own)], table.shape[len(own) :]
            heads = call.fresh(math.prod(first), "heads").reshape(first)
            of_each = call.unnamed(math.prod(last)).reshape(last)
            call.in_all_heads(of_each, heads, table)
            table = of_each
            pieces.append((own, heads))
            outputs = call.in_all_heads(fresh, heads) if made else heads
            outputs = rearranged(outputs, "".join((*own, *made)), output_term)
        call.consume("kernel", _axis(kernel, letters), table)
    for factor in apart:
        letters = [input_term[axis] for axis in varying_axes(factor)]
        if len(pieces) > 1 or set(letters) - set(output_term):
            call.pin(factor, f"{call.call.path} sums over it without a kernel, or has channels along two other axes")
            continue
        factor = rearranged(factor, input_term, output_term)
        pieces.append((letters, rearranged(factor, output_term, "".join(letters))))
        outputs = call.cross(outputs, factor) if made else factor
    index = _follow(call, "kernel", kernel, pieces)
    rows = [(letters, table) for letters, table in pieces[1:] if not set(letters) & set(kernel)]
    call.record.passes |= bool(rows)
    counted = {*kernel, output_term[0], *(x for letters, _ in rows for x in letters)}
    positions = [call.output_shapes[0][axis] for axis, x in enumerate(output_term) if x not in counted]
    of_rows = rows[0][1] if rows else None
    call.multiplies(index, None if None in positions else math.prod(positions), bias=True, labels=of_rows)
    activate(call, outputs)
    return pieces, outputs


def _may_turn(call: RuleCall, bias: Sequence[int], pieces: list[Piece], output_term: str) -> bool:
    """Whether a bias along one axis may get the size of the last one, where Keras' `add` takes it as a bias of that."""
    long = [size for size in bias if size > 1]
    if len(long) != 1 or bias[-1] > 1:
        return False
    size = call.output_shapes[0][-1] or math.inf
    stays = all(call.stays(labels) for letters, labels in pieces if output_term[-1] in letters)
    return long[0] >= size or not stays


def _follow(call: RuleCall, weight: str, term: str, pieces: list[Piece]) -> int:
    """States which axes of a weight follow what the output is made of, by the letters of the axes of the weight."""
    index = call.weight(weight, {})
    for letters, labels in pieces:
        shape = getattr(call.operation, weight).shape
        inside = [x for x in term if x in letters and shape[term.index(x)] == labels.shape[letters.index(x)]]
        rows = np.moveaxis(labels, [letters.index(x) for x in inside], range(-len(inside), 0))
        if inside and len(inside) < len(letters):
            alike = call.unnamed(math.prod(rows.shape[-len(inside) :])).reshape(rows.shape[-len(inside) :])
            call.tie(rows, alike)
            rows = alike
        if inside:
            call.weight(weight, {_axis(term, inside): rows})
    return index


def _axis(term: str, letters: Sequence[str]) -> Axis:
    axes = tuple(term.index(letter) for letter in letters)
    return axes[0] if len(axes) == 1 else axes
