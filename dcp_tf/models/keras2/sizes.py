"""Sizes of tensors in the graphs of Keras 2 models: `tf.shape(x)`, its entries, and arithmetic with them.

In Keras 2 they are tensors. Here they are plain numbers, since Keras 3 knows all sizes except the batch size, which
`BATCH` represents.
"""

from typing import Any

import numpy as np
import tensorflow as tf


class _Batch:
    """The symbolic batch size; nothing can be computed from it."""

    def __repr__(self) -> str:
        return "BATCH"


BATCH = _Batch()


class Sizes:
    """A vector of sizes: whole numbers and `BATCH`. It is not a sequence, so that TensorFlow treats it as one value."""

    def __init__(self, entries):
        self.entries = tuple(entries)


def sizes_of(tensor) -> Sizes:
    """The shape of a Keras 3 tensor.

    Raises:
        ValueError: a size other than the batch's is open.
    """
    first, *others = tensor.shape
    if None in others:
        shape = tuple(tensor.shape)
        raise ValueError(f"it takes the sizes of a tensor of shape {shape}: give the inputs a known size")
    return Sizes([BATCH if first is None else first, *others])


def listed(value: Any) -> list:
    """The entries of a vector of sizes: `Sizes`, an array, or a sequence of numbers and BATCH."""
    return list(value.entries) if isinstance(value, Sizes) else list(value)


def compute_sizes(layer, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Computes a TensorFlow function whose arguments are sizes and numbers.

    Args:
        layer: the Keras 2 layer that calls the function.
        args: positional arguments: `Sizes`, BATCH and constants.
        kwargs: the others.

    Returns:
        A number, BATCH, `Sizes`, or a list of the first two.

    Raises:
        ValueError: the function would compute with the number of images.
    """
    by_symbol = _PASSING_BATCH.get(layer.symbol)
    if by_symbol is not None:
        return by_symbol(*args, **kwargs)
    args, kwargs = tf.nest.map_structure(_as_constant, (args, kwargs))
    value = np.asarray(layer.function(*args, **kwargs))
    return value.item() if value.ndim == 0 else Sizes(value.tolist())


def _as_constant(value: Any) -> Any:
    if isinstance(value, Sizes):
        if BATCH in value.entries:
            raise ValueError("it computes with the number of images in the batch")
        return np.asarray(value.entries, np.int32)
    if value is BATCH:
        raise ValueError("it computes with the number of images in the batch")
    return value


def _item(tensor, slice_spec) -> Any:
    (spec,) = slice_spec if isinstance(slice_spec, list | tuple) else (slice_spec,)
    if isinstance(spec, dict):
        spec = slice(spec["start"], spec["stop"], spec["step"])
    picked = listed(tensor)[spec]
    return Sizes(picked) if isinstance(spec, slice) else picked


def _concat(values, axis, name=None) -> Sizes:
    return Sizes(entry for part in values for entry in listed(part))


# Functions that pass BATCH through.
_PASSING_BATCH = {
    "__operators__.getitem": _item,
    "cast": lambda x, dtype, name=None: x,
    "concat": _concat,
    "convert_to_tensor": lambda value, **_: value,
    "identity": lambda input, name=None: input,
    "stack": lambda values, axis=0, name=None: Sizes(values),
    "unstack": lambda value, num=None, axis=0, name=None: listed(value),
}
