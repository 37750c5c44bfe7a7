"""TensorFlow functions that need several `keras.ops`, with TensorFlow's arguments."""

import math

import numpy as np
from keras import ops

from dcp_tf.models.keras2.sizes import BATCH, listed


class ComplexTensor:
    """Real and imaginary part of a tensor. Keras 3 has no complex tensors in a graph."""

    def __init__(self, real, imag):
        self.real, self.imag = real, imag
        self.parts = (real, imag)


# Sums, products, norms


def add_n(inputs):
    """`tf.math.add_n`."""
    total = inputs[0]
    for term in inputs[1:]:
        total = ops.add(total, term)
    return total


def matmul(a, b, transpose_a=False, transpose_b=False):
    """`tf.matmul`."""
    a, b = _array(a), _array(b)
    return ops.matmul(matrix_transpose(a) if transpose_a else a, matrix_transpose(b) if transpose_b else b)


def matrix_transpose(a):
    """`tf.linalg.matrix_transpose`."""
    if isinstance(a, np.ndarray):
        return np.swapaxes(a, -1, -2)  # stays an array, which a file can hold
    order = list(range(len(a.shape)))
    return ops.transpose(a, [*order[:-2], order[-1], order[-2]])


def tensordot(a, b, axes):
    """`tf.tensordot`."""
    return ops.tensordot(_array(a), _array(b), axes)


def l2_normalize(x, axis=None, epsilon=1e-12):
    """`tf.math.l2_normalize`."""
    squares = ops.sum(ops.square(x), axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(squares, epsilon)))


def norm(tensor, ord="euclidean", axis=None, keepdims=False):
    """`tf.norm`; the euclidean norm of two axes is that of all of their values."""
    if ord in ("euclidean", "fro") or (ord == 2 and np.ndim(axis) == 0):
        return ops.sqrt(ops.sum(ops.square(tensor), axis, bool(keepdims)))
    if np.ndim(axis) > 0 or axis is None:
        raise ValueError(f"the norm {ord!r} of several axes has no counterpart")
    return ops.norm(tensor, np.inf if ord == float("inf") else ord, axis, bool(keepdims))


def cumulative(operation, neutral: float):
    """`tf.cumsum` and `tf.math.cumprod`, made of the inclusive operation from the front."""

    def apply(x, axis=0, exclusive=False, reverse=False):
        axis %= len(x.shape)
        x = ops.flip(x, axis) if reverse else x
        if exclusive:
            front = [(1, 0) if a == axis else (0, 0) for a in range(len(x.shape))]
            x = ops.pad(x, front, "constant", neutral)[(slice(None),) * axis + (slice(None, -1),)]
        x = operation(x, axis)
        return ops.flip(x, axis) if reverse else x

    return apply


def local_response_normalization(input, depth_radius=5, bias=1, alpha=1, beta=0.5):
    """`tf.nn.local_response_normalization` over the last axis."""
    rank, channels = len(input.shape), input.shape[-1]
    padded = ops.pad(ops.square(input), [*[(0, 0)] * (rank - 1), (depth_radius, depth_radius)])
    window = add_n([padded[..., start : start + channels] for start in range(2 * depth_radius + 1)])
    return ops.divide(input, ops.power(ops.add(ops.multiply(window, alpha), bias), beta))


def per_image_standardization(image):
    """`tf.image.per_image_standardization` of a batch."""
    axes = (-3, -2, -1)
    if None in image.shape[1:]:
        raise ValueError("the size of the images is open; give the inputs a known size")
    least = 1 / math.sqrt(math.prod(image.shape[-3:]))
    deviation = ops.maximum(ops.std(image, axes, keepdims=True), least)
    return ops.divide(ops.subtract(image, ops.mean(image, axes, keepdims=True)), deviation)


# Shapes and positions


def pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    """`tf.pad`."""
    paddings = [[int(size) for size in pair] for pair in paddings]
    if mode.lower() == "constant":
        return ops.pad(tensor, paddings, "constant", constant_values)
    return ops.pad(tensor, paddings, mode.lower())


def split(value, num_or_size_splits, axis=0):
    """`tf.split`, which takes sizes, while Keras takes the positions of the cuts."""
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis)
    cuts = [sum(num_or_size_splits[:i]) for i in range(1, len(num_or_size_splits))]
    return ops.split(value, cuts, axis)


def reshape(tensor, shape):
    """`tf.reshape`; the batch may be `BATCH` or -1, and another size -1 where the sizes of the tensor are known."""
    sizes = [-1 if size is BATCH else int(size) for size in listed(shape)]
    if sizes.count(-1) > 1:
        batch = next((i for i, size in enumerate(listed(shape)) if size is BATCH), None)
        known, others = tensor.shape[1:], math.prod(size for size in sizes if size != -1)
        if batch is None or sizes.count(-1) > 2 or None in known:
            raise ValueError(f"the shape {sizes} has several open sizes; give the inputs a known size")
        sizes = [math.prod(known) // others if size == -1 and i != batch else size for i, size in enumerate(sizes)]
    return ops.reshape(tensor, tuple(sizes))


def broadcast_to(input, shape):
    """`tf.broadcast_to`, of a tensor that has as many axes."""
    sizes = listed(shape)
    if len(sizes) != len(input.shape):
        raise ValueError("it adds axes")
    repeats = [1 if new is BATCH or new == old else int(new) for old, new in zip(input.shape, sizes, strict=True)]
    return ops.tile(input, repeats)


def get_item(tensor, slice_spec):
    """Indexing: `slice_spec` is one index or several; Keras 2 writes a slice as a dict."""
    several = slice_spec if isinstance(slice_spec, list | tuple) else (slice_spec,)
    return tensor[tuple(slice(e["start"], e["stop"], e["step"]) if isinstance(e, dict) else e for e in several)]


def slice_from(input_, begin, size):
    """`tf.slice`."""
    ends = [None if n is BATCH or n == -1 else first + n for first, n in zip(begin, listed(size), strict=True)]
    return input_[tuple(slice(first or None, end) for first, end in zip(begin, ends, strict=True))]


def strided_slice(input_, begin, end, strides=None, begin_mask=0, end_mask=0):
    """`tf.strided_slice` without new axes."""
    strides = strides or [1] * len(begin)
    spec = []
    for i, (first, last, step) in enumerate(zip(begin, listed(end), strides, strict=True)):
        ends_open = end_mask >> i & 1 or last is BATCH or (step > 0 and last == input_.shape[i])
        starts_open = begin_mask >> i & 1 or (step > 0 and first == 0)
        spec.append(slice(None if starts_open else first, None if ends_open else last, step if step != 1 else None))
    return input_[tuple(spec)]


def unstack(value, num=None, axis=0):
    """`tf.unstack`."""
    axis %= len(value.shape)
    count = num or value.shape[axis]
    if axis == 0 or count is None:
        raise ValueError("it unstacks the batch" if axis == 0 else "the size of its axis is open")
    return [value[(slice(None),) * axis + (index,)] for index in range(count)]


def gather(params, indices, axis=None, batch_dims=0):
    """`tf.gather`, also of constants (`tf.nn.embedding_lookup`)."""
    if batch_dims:
        raise ValueError("it gathers with batch_dims")
    if isinstance(indices, list | tuple):
        indices = np.asarray(indices, np.int32)
    if isinstance(params, list | tuple):
        params = np.asarray(params, np.float32)
    return ops.take(params, indices, axis=axis or 0)


def sort(values, axis=-1, direction="ASCENDING"):
    """`tf.sort`."""
    ascending = ops.sort(values, axis)
    return ascending if direction == "ASCENDING" else ops.flip(ascending, axis)


def band_part(input, num_lower, num_upper):
    """`tf.linalg.band_part`, of one triangle."""
    if (num_lower, num_upper) == (-1, 0):
        return ops.tril(input)
    if (num_lower, num_upper) == (0, -1):
        return ops.triu(input)
    raise ValueError("it keeps a band that is no triangle")


# Images


def depth_to_space(input, block_size, data_format="NHWC"):
    """`tf.nn.depth_to_space`."""
    if hasattr(ops, "depth_to_space"):
        return ops.depth_to_space(input, block_size, keras_format(data_format))
    height, width, channels = _sizes_of_image(input, data_format)
    parts = (height, width, block_size, block_size, channels // block_size**2)
    blocks = ops.transpose(ops.reshape(input, (-1, *parts)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(blocks, (-1, height * block_size, width * block_size, parts[-1]))


def space_to_depth(input, block_size, data_format="NHWC"):
    """`tf.nn.space_to_depth`."""
    if hasattr(ops, "space_to_depth"):
        return ops.space_to_depth(input, block_size, keras_format(data_format))
    height, width, channels = _sizes_of_image(input, data_format)
    height, width = height // block_size, width // block_size
    blocks = ops.reshape(input, (-1, height, block_size, width, block_size, channels))
    return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels * block_size**2))


def _sizes_of_image(image, data_format: str) -> tuple:
    if data_format != "NHWC" or None in image.shape[1:]:
        raise ValueError("this version of Keras needs channels last and images of a known size for it")
    return tuple(image.shape[1:])


def keras_format(data_format: str | None) -> str:
    """Keras' name of a data format of TensorFlow."""
    return "channels_first" if (data_format or "").startswith("NC") else "channels_last"


def resize(images, size, method="bilinear"):
    """`tf.image.resize`."""
    return ops.image.resize(images, tuple(int(s) for s in listed(size)), interpolation=method)


def extract_patches(images, sizes, strides, rates, padding):
    """`tf.image.extract_patches`."""
    (height, width), steps = sizes[1:3], tuple(strides[1:3])
    return ops.image.extract_patches(images, (height, width), steps, rates[1], padding.lower())


def spatial(values, rank: int, data_format: str | None = None):
    """The entries for space of a number or a list that may have entries for batch and channels."""
    if isinstance(values, int) or values is None:
        return values or 1
    values = list(values)
    if len(values) == rank:
        first = 2 if keras_format(data_format) == "channels_first" else 1
        values = values[first : first + rank - 2]
    return values[0] if len(values) == 1 else tuple(values)


def convolution(
    input,
    filter=None,
    strides=None,
    padding="VALID",
    data_format=None,
    dilations=None,
    filters=None,
    dilation_rate=None,
    use_cudnn_on_gpu=True,
):
    """`tf.nn.conv2d`, `tf.nn.convolution` and their like, with a constant kernel."""
    kernel = _array(filters if filter is None else filter)
    steps = (strides, dilation_rate if dilations is None else dilations)
    strides, dilations = (spatial(values, len(input.shape), data_format) for values in steps)
    return ops.conv(input, kernel, strides, padding.lower(), keras_format(data_format), dilations)


def depthwise_conv2d(input, filter, strides, padding, data_format=None, dilations=None):
    """`tf.nn.depthwise_conv2d` with a constant kernel."""
    strides, dilations = (spatial(values, len(input.shape), data_format) for values in (strides, dilations))
    return ops.depthwise_conv(input, _array(filter), strides, padding.lower(), keras_format(data_format), dilations)


def pool(operation, size_name: str = "ksize"):
    """`tf.nn.max_pool` and their like."""

    def apply(input, ksize, strides=None, padding="VALID", data_format=None):
        rank = len(input.shape)
        size, strides = (spatial(values, rank, data_format) for values in (ksize, strides))
        return operation(input, size, strides, padding.lower(), keras_format(data_format))

    def apply_to_value(value, ksize, strides=None, padding="VALID", data_format=None):
        return apply(value, ksize, strides, padding, data_format)

    return apply if size_name == "ksize" else apply_to_value


def any_pool(input, window_shape, pooling_type, strides=None, padding="VALID", data_format=None):
    """`tf.nn.pool`."""
    operation = ops.max_pool if pooling_type == "MAX" else ops.average_pool
    return pool(operation)(input, window_shape, strides, padding, data_format)


def _array(values):
    """A constant, which a file holds as a list."""
    return np.asarray(values, np.float32) if isinstance(values, list | tuple) else values


# Spectra


def stft(signals, frame_length, frame_step, fft_length=None, pad_end=False):
    """`tf.signal.stft` with its usual window."""
    if pad_end:
        raise ValueError("it pads the end")
    fft_length = fft_length or 2 ** math.ceil(math.log2(frame_length))
    return ComplexTensor(*ops.stft(signals, frame_length, frame_step, fft_length, window="hann", center=False))


def absolute(x):
    """`tf.abs`, also of complex numbers."""
    if isinstance(x, ComplexTensor):
        return ops.sqrt(ops.add(ops.square(x.real), ops.square(x.imag)))
    return ops.abs(x)


def part(name: str):
    """`tf.math.real` and `tf.math.imag`."""
    return lambda input: getattr(input, name)
