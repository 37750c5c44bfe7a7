"""`keras.ops` that work on each value alone, and those that join tensors value by value."""

import numpy as np
from keras import KerasTensor
from keras.src.ops import core, nn
from keras.src.ops import math as math_ops
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.rule import Kept, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.merging import merge


def _classes(module, names: str) -> list[type]:
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


_UNARY = [
    *_classes(
        nn,
        """Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid LeakyRelu
        HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold""",
    ),
    *_classes(
        numpy_ops,
        """Absolute Abs Fabs Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Copy Cos Cosh Deg2rad Rad2deg Exp
        Exp2 Expm1 Floor Log Log10 Log1p Log2 NanToNum Negative Reciprocal Round Sign Sin Sinc Sinh Sqrt Square Tan Tanh
        Trunc OnesLike ZerosLike""",
    ),
    *_classes(math_ops, "Rsqrt Erf Erfc Erfinv"),
    *_classes(core, "StopGradient Cast SaturateCast ConvertToTensor"),
]

_BINARY = _classes(
    numpy_ops,
    """Arctan2 Divide DivideNoNan Equal Fmax Fmin Fmod FloorDivide Greater GreaterEqual Heaviside Hypot Less LessEqual
    LogicalAnd LogicalOr LogicalXor Logaddexp Logaddexp2 Maximum Minimum Mod Multiply NotEqual Power TrueDivide Where
    Clip LogicalNot""",
)

_ADDITIVE = _classes(numpy_ops, "Add Subtract")


@register_rule(*_UNARY)
def unary(call: RuleCall) -> Labels:
    """Labels stay as they are."""
    return call.inputs[0]


@register_rule(*_BINARY)
def binary(call: RuleCall) -> Labels:
    """Values are joined position by position; array constants among the arguments are cut with the channels."""
    return _joined(call, residual=False)


@register_rule(*_ADDITIVE)
def additive(call: RuleCall) -> Labels:
    """As `binary`; a sum of two feature maps is a residual stream."""
    return _joined(call, residual=True)


def _joined(call: RuleCall, residual: bool) -> Labels:
    joined = merge(call, residual=residual and len(call.inputs) > 1)
    for position, value in enumerate(call.call.arguments):
        if isinstance(value, KerasTensor) or not hasattr(value, "shape") or np.ndim(value) == 0:
            continue
        _cut_constant(call, position, np.shape(value), joined)
    return joined


def _cut_constant(call: RuleCall, position: int, shape: tuple, joined: Labels) -> None:
    axes = {}
    for axis in range(-len(shape), 0):
        if shape[axis] > 1 and -axis <= joined.ndim and joined.shape[axis] > 1:
            rows = np.moveaxis(joined, axis, -1).reshape(-1, joined.shape[axis])
            call.tie(rows[:1], rows)
            axes[axis] = rows[0]
    if axes:

        def cut(kept: Kept, value, axes: dict = axes):
            return kept.take(np.asarray(value), axes)

        call.argument(position, cut)
