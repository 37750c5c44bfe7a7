"""Operations along one axis, which keep channels independent unless channels vary along that axis."""

from keras.src.ops import math as math_ops
from keras.src.ops import nn
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import operations


@register_rule(
    *operations(numpy_ops, "Cumsum Cumprod Nancumsum Nancumprod Sort Argsort Argpartition Diff Fliplr Flipud"),
    *operations(math_ops, "TopK"),
    *operations(nn, "Sparsemax"),
)
def along_one_axis(call: RuleCall) -> list[Labels]:
    """Running sums, sorting, differences, the largest values."""
    labels, rank = call.inputs[0], call.inputs[0].ndim
    axis = _axis(call)
    if axis is None or axis % rank == 0:
        return call.opaque("which mixes the images of a batch")
    if labels.shape[axis] > 1:
        return call.opaque("which mixes channels")
    return [labels for _ in call.output_shapes]


def _axis(call: RuleCall) -> int | None:
    kind = type(call.operation).__name__
    return {"Fliplr": 1, "Flipud": 0, "TopK": -1}.get(kind, getattr(call.operation, "axis", None))


@register_rule(*operations(numpy_ops, "Tril Triu"))
def triangle(call: RuleCall) -> Labels:
    """Zeros on one side of the diagonal of the last two axes."""
    if call.inputs[0].ndim < 3 or max(call.inputs[0].shape[-2:]) > 1:
        return call.opaque("which sets channels to zero by their number")[0]
    return call.inputs[0]


@register_rule(*operations(numpy_ops, "Rot90"))
def rotate(call: RuleCall) -> Labels:
    """A rotation in the plane of two axes of space."""
    labels = call.inputs[0]
    if any(axis % labels.ndim == 0 or labels.shape[axis] > 1 for axis in call.operation.axes):
        return call.opaque("which rotates channels or images")[0]
    return labels
