"""TensorFlow functions in the graphs of Keras 2 models (`tf.nn.relu(x)`, `x + y`), written with keras.ops.

Keras 2 wraps each call in a layer that knows the function's name and its arguments. The functions here take the
arguments under TensorFlow's names.
"""

from collections.abc import Callable

import numpy as np
from keras import ops


def _binary(operation: Callable) -> Callable:
    """An operation of two tensors, one of which may be a list of numbers: so files hold constants."""

    def apply(x, y):
        if isinstance(x, list | tuple):
            x = np.asarray(x, y.dtype)
        if isinstance(y, list | tuple):
            y = np.asarray(y, x.dtype)
        return operation(x, y)

    return apply


def _add_n(inputs):
    total = inputs[0]
    for each in inputs[1:]:
        total = ops.add(total, each)
    return total


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    paddings = [[int(size) for size in pair] for pair in paddings]
    if mode.lower() == "constant":
        return ops.pad(tensor, paddings, "constant", constant_values)
    return ops.pad(tensor, paddings, mode.lower())


def _split(value, num_or_size_splits, axis=0):
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis)
    # TensorFlow takes sizes, Keras the places of the cuts.
    places = [sum(num_or_size_splits[:i]) for i in range(1, len(num_or_size_splits))]
    return ops.split(value, places, axis)


def _matmul(a, b, transpose_a=False, transpose_b=False):
    return ops.matmul(_swap(a) if transpose_a else a, _swap(b) if transpose_b else b)


def _swap(x):
    order = list(range(len(x.shape)))
    return ops.transpose(x, [*order[:-2], order[-1], order[-2]])


def _resize(images, size, method="bilinear"):
    return ops.image.resize(images, tuple(int(s) for s in size), interpolation=method)


def _l2_normalize(x, axis=None, epsilon=1e-12):
    squares = ops.sum(ops.square(x), axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(squares, epsilon)))


def _get_item(tensor, slice_spec):
    """Indexing: `slice_spec` is one index or several; Keras 2 writes a slice as a dict."""
    several = slice_spec if isinstance(slice_spec, list | tuple) else (slice_spec,)
    return tensor[tuple(slice(e["start"], e["stop"], e["step"]) if isinstance(e, dict) else e for e in several)]


# The name that Keras 2 gives a function, below `tf.`, -> what computes the same.
OPERATIONS: dict[str, Callable] = {
    "__operators__.add": _binary(ops.add),
    "__operators__.getitem": _get_item,
    "cast": lambda x, dtype: ops.cast(x, getattr(dtype, "name", dtype)),
    "clip_by_value": lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "compat.v1.pad": lambda tensor, paddings, mode="CONSTANT", name=None, constant_values=0: _pad(
        tensor, paddings, mode, constant_values
    ),
    "compat.v1.squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "compat.v1.transpose": lambda a, perm=None: ops.transpose(a, perm),
    "concat": lambda values, axis: ops.concatenate(values, axis),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "identity": lambda input: input,
    "image.resize": _resize,
    "linalg.matmul": _matmul,
    "math.abs": lambda x: ops.abs(x),
    "math.add": _binary(ops.add),
    "math.add_n": _add_n,
    "math.divide": _binary(ops.divide),
    "math.exp": lambda x: ops.exp(x),
    "math.l2_normalize": _l2_normalize,
    "math.log": lambda x: ops.log(x),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.multiply": _binary(ops.multiply),
    "math.negative": lambda x: ops.negative(x),
    "math.pow": _binary(ops.power),
    "math.reduce_max": lambda input_tensor, axis=None, keepdims=False: ops.max(input_tensor, axis, keepdims),
    "math.reduce_mean": lambda input_tensor, axis=None, keepdims=False: ops.mean(input_tensor, axis, keepdims),
    "math.reduce_min": lambda input_tensor, axis=None, keepdims=False: ops.min(input_tensor, axis, keepdims),
    "math.reduce_sum": lambda input_tensor, axis=None, keepdims=False: ops.sum(input_tensor, axis, keepdims),
    "math.rsqrt": lambda x: ops.rsqrt(x),
    "math.sigmoid": lambda x: ops.sigmoid(x),
    "math.softplus": lambda features: ops.softplus(features),
    "math.sqrt": lambda x: ops.sqrt(x),
    "math.square": lambda x: ops.square(x),
    "math.subtract": _binary(ops.subtract),
    "math.tanh": lambda x: ops.tanh(x),
    "math.truediv": _binary(ops.divide),
    "nn.avg_pool2d": lambda input, ksize, strides, padding: ops.average_pool(input, ksize, strides, padding.lower()),
    "nn.bias_add": lambda value, bias: _binary(ops.add)(value, bias),
    "nn.elu": lambda features: ops.elu(features),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, -1 if axis is None else axis),
    "nn.max_pool2d": lambda input, ksize, strides, padding: ops.max_pool(input, ksize, strides, padding.lower()),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.selu": lambda features: ops.selu(features),
    "nn.silu": lambda features: ops.silu(features),
    "nn.softmax": lambda logits, axis=-1: ops.softmax(logits, -1 if axis is None else axis),
    "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(int(size) for size in shape)),
    "split": _split,
    "squeeze": lambda input, axis=None: ops.squeeze(input, axis),
    "stack": lambda values, axis=0: ops.stack(values, axis),
    "tile": lambda input, multiples: ops.tile(input, [int(times) for times in multiples]),
}
