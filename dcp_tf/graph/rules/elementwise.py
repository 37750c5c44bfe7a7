"""`keras.ops` that work on each value alone, and those that join tensors value by value."""

import numpy as np
from keras.src.activations import activations
from keras.src.ops import core, nn
from keras.src.ops import math as math_ops
from keras.src.ops import numpy as numpy_ops

from dcp_tf.graph.rule import KeptChannels, Labels, RuleCall, register_rule
from dcp_tf.graph.rules.common import constant_arrays, operations
from dcp_tf.graph.rules.merging import merge

_UNARY = [
    *operations(
        nn,
        """Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus LogSigmoid LeakyRelu
        HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh HardShrink Threshold""",
    ),
    *operations(
        numpy_ops,
        """Absolute Abs Fabs Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Copy Cos Cosh Deg2rad Rad2deg Exp
        Exp2 Expm1 Floor Log Log10 Log1p Log2 NanToNum Negative Reciprocal Round Sign Sin Sinc Sinh Sqrt Square Tan Tanh
        Trunc OnesLike ZerosLike Isfinite Isinf Isnan Isneginf Isposinf Isreal Signbit I0 BitwiseInvert BitwiseNot Angle
        Real Imag Conj Conjugate EmptyLike""",
    ),
    *operations(math_ops, "Rsqrt Erf Erfc Erfinv"),
    *operations(core, "StopGradient Cast SaturateCast ConvertToTensor"),
    *operations(activations, "ReLU"),  # what keras.activations.relu makes of a symbolic tensor
]

_BINARY = operations(
    numpy_ops,
    """Arctan2 Divide DivideNoNan Equal Fmax Fmin Fmod FloorDivide Greater GreaterEqual Heaviside Hypot Less LessEqual
    LogicalAnd LogicalOr LogicalXor Logaddexp Logaddexp2 Maximum Minimum Mod Multiply NotEqual Power TrueDivide Where
    LogicalNot BitwiseAnd BitwiseOr BitwiseXor BitwiseLeftShift BitwiseRightShift LeftShift RightShift Gcd Isclose Lcm
    Ldexp Nextafter""",
)

_ADDITIVE = operations(numpy_ops, "Add Subtract")


@register_rule(*_UNARY)
def unary(call: RuleCall) -> Labels:
    """Labels are unchanged."""
    return call.inputs[0]


@register_rule(*_BINARY)
def binary(call: RuleCall) -> Labels:
    """Joins values position by position; array constants among the arguments follow the channels."""
    return _joined(call, residual=False)


@register_rule(*_ADDITIVE)
def additive(call: RuleCall) -> Labels:
    """As `binary`; a sum of two feature maps is a residual stream."""
    return _joined(call, residual=True)


def _joined(call: RuleCall, residual: bool) -> Labels:
    joined = merge(call, residual=residual and len(call.inputs) > 1)
    for key, value in constant_arrays(call):
        if axes := _follows(call, np.shape(value), joined):
            call.argument(key, cut_array(axes), depends_on=joined)
    return joined


def _follows(call: RuleCall, shape: tuple, joined: Labels) -> dict[int, Labels]:
    """The axes of an array along which channels vary, with their labels."""
    axes = {}
    for axis in range(-len(shape), 0):
        if shape[axis] > 1 and joined.shape[axis] > 1:
            axes[axis] = call.rows(joined, (axis,), others=True)
    return axes


def cut_array(axes: dict[int, Labels]):
    """A function that selects the kept positions of an array or a nested list."""

    def cut(kept: KeptChannels, value):
        values = kept.take(np.asarray(value), axes)
        return values.tolist() if isinstance(value, (list, tuple)) else values

    return cut


@register_rule(numpy_ops.Clip)
def clip(call: RuleCall) -> Labels:
    """The limits are settings of the operation; Keras cannot save array limits."""
    limits = [np.size(getattr(call.operation, key)) for key in ("x_min", "x_max")]
    return call.inputs[0] if max(limits) == 1 else call.opaque("whose limits are arrays")[0]
