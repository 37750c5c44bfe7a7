"""Products that sum over axes: matmul, Einstein sums, `Dot`. Channels on the axes that stay pass through.

Pairs of channels that are multiplied and summed over, those of a query and a key, go together if a kernel makes one of
them. Other channels that are summed over are pinned: a channel can be removed only if no kernel reads it any more, and
a sum without a kernel would still read it.
"""

import math
import string
from typing import Any

import numpy as np
from keras import KerasTensor, layers
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import rearranged


@register_rule(numpy_ops.Matmul)
def matmul(call: RuleCall) -> Labels:
    """(..., i, k) times (..., k, j)."""
    shapes = [shape for _, shape in _operands(call)]
    if len(shapes) != 2 or any(len(shape) < 2 for shape in shapes):
        return call.opaque("which multiplies a vector or a list")[0]
    rank = len(call.output_shapes[0])
    batch = string.ascii_lowercase[: rank - 2]
    first, second = (batch[rank - len(shape) :] for shape in shapes)
    return _contract(call, [first + "YZ", second + "ZX"], batch + "YX")


@register_rule(numpy_ops.Einsum)
def einsum(call: RuleCall) -> Labels:
    """`keras.ops.einsum` of any number of tensors."""
    input_terms, _, output_term = call.operation.subscripts.replace(" ", "").partition("->")
    terms = input_terms.split(",")
    shapes = [shape for _, shape in _operands(call)]
    if len(shapes) != len(terms):
        return call.opaque("with a factor that is written as a list")[0]
    if not output_term or any(len(set(term.replace(".", ""))) < len(term.replace(".", "")) for term in terms):
        return call.opaque("which takes a diagonal or states no output")[0]
    longest = max(len(shape) - len(term.replace("...", "")) for term, shape in zip(terms, shapes, strict=True))
    others = [letter for letter in string.ascii_letters if letter not in input_terms][: max(longest, 0)]
    terms = [_without_ellipsis(term, len(shape), others) for term, shape in zip(terms, shapes, strict=True)]
    return _contract(call, terms, _without_ellipsis(output_term, len(call.output_shapes[0]), others))


@register_rule(layers.Dot)
def dot(call: RuleCall) -> Labels:
    """(N, ..., k, ...) times (N, ..., k, ...), summed over one axis of each."""
    ranks = [len(shape) for shape in call.input_shapes]
    axes = call.operation.axes
    axes = [axes, axes] if isinstance(axes, int) else list(axes)
    letters = iter(string.ascii_letters[1:])
    terms = []
    for rank, axis in zip(ranks, axes, strict=True):
        term = ["a", *(next(letters) for _ in range(rank - 1))]
        term[axis % rank] = "Z"
        terms.append("".join(term))
    output_term = terms[0].replace("Z", "") + terms[1].replace("Z", "")[1:]
    return _contract(call, terms, output_term if len(output_term) > 1 else None)


def _operands(call: RuleCall) -> list[tuple[Labels | None, tuple]]:
    """Labels and shape of each factor in the order of the arguments; no labels for constants."""
    tensors = iter(zip(call.inputs, call.input_shapes, strict=True))
    return [next(tensors) if isinstance(factor, KerasTensor) else (None, np.shape(factor)) for factor in _factors(call)]


def _factors(call: RuleCall) -> list[Any]:
    return [value for value in call.call.arguments if isinstance(value, KerasTensor) or np.ndim(value) > 0]


def _without_ellipsis(term: str, rank: int, letters: list[str]) -> str:
    if "..." not in term:
        return term
    count = rank - len(term) + 3
    return term.replace("...", "".join(letters[len(letters) - count :]))


def _contract(call: RuleCall, terms: list[str], output_term: str | None) -> Labels:
    """Labels of a sum of products, by the letters of the axes of its factors and of its output.

    Args:
        call: with the factors among its arguments.
        terms: the axes of each factor.
        output_term: the axes of the output; None if it is one number for each image.
    """
    operands = [(labels, shape, term) for (labels, shape), term in zip(_operands(call), terms, strict=True)]
    of_images = [term for labels, _, term in operands if labels is not None]
    if output_term is None or any(term[0] != output_term[0] for term in of_images):
        mixes = "which sums over all channels" if output_term is None else "which mixes the images of a batch"
        return call.opaque(mixes)[0]
    moving = [_moving(labels, term) for labels, _, term in operands]
    _count(call, operands, output_term)
    if not set().union(*moving) <= set(output_term):
        pairs = _pairs(call, operands, output_term)
        return call.opaque("which sums over channels")[0] if pairs is None else pairs
    if (joined := _in_heads(call, operands, output_term)) is not None:
        return joined
    for letter in _held(operands):
        operands = [(_tied_along(call, labels, term, letter), shape, term) for labels, shape, term in operands]
    still_moving = [letters for letters in (_moving(labels, term) for labels, _, term in operands) if letters]
    if any(letters != still_moving[0] for letters in still_moving) or (any(moving) and not still_moving):
        return call.opaque("which multiplies channels by something else along them")[0]
    arranged = [(rearranged(labels, term, output_term), term) for labels, _, term in operands if labels is not None]
    followers = [labels for labels, term in arranged if still_moving and still_moving[0] <= set(term)]
    for labels in followers[1:]:
        call.tie(followers[0], labels)
    return max(followers or [labels for labels, _ in arranged], key=np.size)


def _count(call: RuleCall, operands: list[tuple[Labels | None, tuple, str]], output_term: str) -> None:
    """States the multiplications: one for each combination of the positions along all axes."""
    sizes = {letter: size for _, shape, term in operands for letter, size in zip(term, shape, strict=True) if size != 1}
    sizes.pop(output_term[0], None)
    labels, term = max(((x, t) for x, _, t in operands if x is not None), key=lambda pair: len(_moving(*pair)))
    along = _moving(labels, term)
    others = [size for letter, size in sizes.items() if letter not in along]
    table = np.broadcast_to(labels, [sizes[x] if x in along else 1 for x in term]) if along else call.unnamed(1)
    call.multiplies_tensors(table, None if None in sizes.values() else math.prod(others))


def _pairs(call: RuleCall, operands: list[tuple[Labels | None, tuple, str]], output_term: str) -> Labels | None:
    """Labels of the logits of an attention: the heads, or none; None where the factors are no query and key.

    Both have channels along the same axes: one that is summed over, and perhaps that of the heads.
    """
    moving = [_moving(labels, term) for labels, _, term in operands]
    if len(operands) != 2 or moving[0] != moving[1] or len(moving[0]) > 2 or len(call.inputs) != 2:
        return None
    summed, heads = moving[0] - set(output_term), moving[0] & set(output_term)
    if len(summed) != 1:
        return None
    letters = [*heads, *summed]
    query, key = (_only(labels, term, letters) for labels, _, term in operands)
    if query.shape != key.shape or not (call.silence(1) or call.silence(0)):
        return None
    call.tie(query, key)
    if not heads:
        return call.unnamed(1).reshape([1] * len(output_term))
    of_heads = call.fresh(len(query), "heads")
    call.within(query, of_heads[:, None])
    call.within(key, of_heads[:, None])
    return call.place(of_heads, output_term.index(letters[0]))


def _in_heads(call: RuleCall, operands: list[tuple[Labels | None, tuple, str]], output_term: str) -> Labels | None:
    """Labels of values that are weighted head by head: a head goes with all its channels; None for other products."""
    moving = [_moving(labels, term) for labels, _, term in operands]
    if len(operands) != 2 or sorted(map(len, moving)) != [1, 2] or not moving[0] & moving[1]:
        return None
    (heads, of_heads), (labels, term) = sorted(((x, t) for x, _, t in operands), key=lambda pair: len(_moving(*pair)))
    (letter,) = _moving(heads, of_heads)
    other = next(iter(_moving(labels, term) - {letter}))
    if other in of_heads:
        return None
    table, heads = _only(labels, term, [letter, other]), _only(heads, of_heads, [letter])
    call.within(table, heads[:, None])
    return rearranged(labels, term, output_term)


def _only(labels: Labels, term: str, letters: list[str]) -> Labels:
    """Labels along some axes, in that order; they change along no others."""
    return np.moveaxis(labels, [term.index(x) for x in letters], range(-len(letters), 0)).reshape(
        [labels.shape[term.index(x)] for x in letters]
    )


def _moving(labels: Labels | None, term: str) -> set[str]:
    """The axes along which the channels of a factor lie; none for a constant."""
    if labels is None:
        return set()
    return {letter for letter, size in zip(term, labels.shape, strict=True) if size > 1}


def _held(operands: list[tuple[Labels | None, tuple, str]]) -> set[str]:
    """Axes along which one factor has channels and another has values that cannot follow them, such as heads."""
    letters = set().union(*(_moving(labels, term) for labels, _, term in operands))
    return {
        letter
        for labels, shape, term in operands
        for letter, size in zip(term, shape, strict=True)
        if letter in letters and size != 1 and letter not in _moving(labels, term)
    }


def _tied_along(call: RuleCall, labels: Labels | None, term: str, letter: str) -> Labels | None:
    """Labels whose channels along one axis are tied."""
    if labels is None or letter not in term:
        return labels
    first = labels.take([0], term.index(letter))
    call.tie(first, labels)
    return first
