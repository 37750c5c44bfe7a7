"""TensorFlow functions in the graphs of Keras 2 models (`tf.nn.relu(x)`, `x + y`), written with keras.ops.

Keras 2 wraps each call in a layer that knows the function's name and its arguments. The functions here take the
arguments under TensorFlow's names.
"""

from collections.abc import Callable

import numpy as np
from keras import ops

from dcp_tf.models.keras2 import functions
from dcp_tf.models.keras2.sizes import sizes_of


def _binary(operation: Callable) -> Callable:
    """An operation of two tensors, one of which may be a list of numbers: so files hold constants."""

    def apply(x, y):
        if isinstance(x, list | tuple):
            x = np.asarray(x, y.dtype)
        if isinstance(y, list | tuple):
            y = np.asarray(y, x.dtype)
        return operation(x, y)

    return apply


def _of_x(operation: Callable) -> Callable:
    return lambda x: operation(x)


def _of_features(operation: Callable) -> Callable:
    return lambda features: operation(features)


def _where(condition, x=None, y=None):
    if x is None or y is None:
        raise ValueError("it lists positions, which are as many as the values say")
    x, y = (np.asarray(value, np.float32) if isinstance(value, list | tuple) else value for value in (x, y))
    return ops.where(condition, x, y)


def _reduction(operation: Callable) -> Callable:
    return lambda input_tensor, axis=None, keepdims=False: operation(input_tensor, axis, keepdims)


def _same_names(prefix: str, wrap: Callable, names: str) -> dict[str, Callable]:
    """Functions that have the same name in TensorFlow, below `tf.` and the prefix, and in keras.ops."""
    return {prefix + name: wrap(getattr(ops, name)) for name in names.split()}


# What to do where a function has no counterpart.
HINTS = {
    "Lambda": "allow_lambda=True runs its code",
    "tf.nn.dropout": "it drops values at inference too, use the layer Dropout",
}

# The name that Keras 2 gives a function, below `tf.`, -> what computes the same.
OPERATIONS: dict[str, Callable] = {
    **_same_names(
        "math.",
        _of_x,
        """ceil cos cosh erf exp expm1 floor log log1p log_sigmoid logical_not negative reciprocal round rsqrt sigmoid
        sign sin sinh sqrt square tan tanh""",
    ),
    **_same_names(
        "math.",
        _binary,
        """add divide divide_no_nan equal greater greater_equal less less_equal logical_and logical_or logical_xor
        maximum minimum multiply not_equal subtract""",
    ),
    **_same_names("math.", _of_features, "softplus"),
    **_same_names("math.reduce_", _reduction, "all any logsumexp max mean min prod std sum"),
    **_same_names("nn.", _of_features, "elu relu relu6 selu silu softsign"),
    "__operators__.add": _binary(ops.add),
    "__operators__.getitem": functions.get_item,
    "broadcast_to": functions.broadcast_to,
    "cast": lambda x, dtype: ops.cast(x, getattr(dtype, "name", dtype)),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "compat.v1.floor_div": _binary(ops.floor_divide),
    "compat.v1.gather": functions.gather,
    "compat.v1.nn.conv2d": functions.convolution,
    "compat.v1.nn.convolution": functions.convolution,
    "compat.v1.nn.crelu": lambda features, axis=-1: ops.concatenate([ops.relu(features), ops.relu(-features)], axis),
    "compat.v1.nn.depthwise_conv2d": functions.depthwise_conv2d,
    "compat.v1.nn.embedding_lookup": lambda params, ids, partition_strategy=None: functions.gather(params, ids),
    "compat.v1.nn.max_pool": functions.pool(ops.max_pool, "value"),
    "compat.v1.nn.pool": functions.any_pool,
    "compat.v1.norm": functions.norm,
    "compat.v1.pad": lambda tensor, paddings, mode="CONSTANT", name=None, constant_values=0: functions.pad(
        tensor, paddings, mode, constant_values
    ),
    "compat.v1.shape": lambda input, out_type=None: sizes_of(input),
    "compat.v1.squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "compat.v1.transpose": lambda a, perm=None: ops.transpose(a, perm),
    "concat": lambda values, axis: ops.concatenate(values, axis),
    "convert_to_tensor": lambda value, dtype=None: value if dtype is None else ops.cast(value, dtype),
    "debugging.check_numerics": lambda tensor, message: tensor,
    "einsum": lambda equation, *inputs: ops.einsum(equation, *inputs),
    "ensure_shape": lambda x, shape: x,
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "identity": lambda input: input,
    "image.extract_patches": functions.extract_patches,
    "image.flip_left_right": lambda image: ops.flip(image, -2),
    "image.flip_up_down": lambda image: ops.flip(image, -3),
    "image.per_image_standardization": functions.per_image_standardization,
    "image.resize": functions.resize,
    "image.rgb_to_grayscale": lambda images: ops.image.rgb_to_grayscale(images),
    "linalg.band_part": functions.band_part,
    "linalg.diag_part": lambda input: ops.diagonal(input, 0, -2, -1),
    "linalg.matmul": functions.matmul,
    "linalg.matrix_transpose": functions.matrix_transpose,
    "math.abs": functions.absolute,
    "math.acos": _of_x(ops.arccos),
    "math.add_n": functions.add_n,
    "math.argmax": lambda input, axis=None, output_type="int64": ops.cast(
        ops.argmax(input, axis or 0), getattr(output_type, "name", output_type)
    ),
    "math.argmin": lambda input, axis=None, output_type="int64": ops.cast(
        ops.argmin(input, axis or 0), getattr(output_type, "name", output_type)
    ),
    "math.asin": _of_x(ops.arcsin),
    "math.atan": _of_x(ops.arctan),
    "math.atan2": lambda y, x: _binary(ops.arctan2)(y, x),
    "math.count_nonzero": lambda input, axis=None: ops.count_nonzero(input, axis),
    "math.cumprod": functions.cumulative(ops.cumprod, 1.0),
    "math.cumsum": functions.cumulative(ops.cumsum, 0.0),
    "math.floordiv": _binary(ops.floor_divide),
    "math.floormod": _binary(ops.mod),
    "math.imag": functions.part("imag"),
    "math.is_finite": _of_x(ops.isfinite),
    "math.is_inf": _of_x(ops.isinf),
    "math.is_nan": _of_x(ops.isnan),
    "math.l2_normalize": functions.l2_normalize,
    "math.pow": _binary(ops.power),
    "math.real": functions.part("real"),
    "math.reduce_euclidean_norm": lambda input_tensor, axis=None, keepdims=False: functions.norm(
        input_tensor, axis=axis, keepdims=keepdims
    ),
    "math.reduce_variance": _reduction(ops.var),
    "math.squared_difference": lambda x, y: ops.square(_binary(ops.subtract)(x, y)),
    "math.top_k": lambda input, k=1, sorted=True: ops.top_k(input, k, sorted),
    "math.truediv": _binary(ops.divide),
    "nn.avg_pool": functions.pool(ops.average_pool),
    "nn.avg_pool2d": functions.pool(ops.average_pool),
    "nn.bias_add": lambda value, bias: _binary(ops.add)(value, bias),
    "nn.depth_to_space": functions.depth_to_space,
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.local_response_normalization": functions.local_response_normalization,
    "nn.log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, -1 if axis is None else axis),
    "nn.max_pool": functions.pool(ops.max_pool),
    "nn.max_pool2d": functions.pool(ops.max_pool),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, -1 if axis is None else axis),
    "nn.space_to_depth": functions.space_to_depth,
    "one_hot": lambda indices, depth, axis=-1, dtype="float32": ops.one_hot(indices, depth, axis or -1, dtype),
    "ones_like": lambda input, dtype=None: ops.ones_like(input, dtype),
    "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis),
    "reshape": functions.reshape,
    "reverse": lambda tensor, axis: ops.flip(tensor, axis),
    "roll": lambda input, shift, axis: ops.roll(input, shift, axis),
    "shape": lambda input, out_type=None: sizes_of(input),
    "signal.stft": functions.stft,
    "slice": functions.slice_from,
    "sort": functions.sort,
    "split": functions.split,
    "squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "stack": lambda values, axis=0: ops.stack(values, axis),
    "stop_gradient": lambda input: ops.stop_gradient(input),
    "strided_slice": functions.strided_slice,
    "tensordot": functions.tensordot,
    "tile": lambda input, multiples: ops.tile(input, [int(times) for times in multiples]),
    "unstack": functions.unstack,
    "where": _where,
    "zeros_like": lambda input, dtype=None: ops.zeros_like(input, dtype),
}
