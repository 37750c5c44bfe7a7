"""Batches gathered from arrays in place: the whole is never copied, however many passes there are."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_CHUNK_BYTES = 2**24


def gathered(
    order: np.ndarray,
    batch_size: int,
    drop_remainder: bool,
    arrays: Sequence[np.ndarray],
    chosen: np.ndarray | None = None,
) -> tf.data.Dataset:
    """The rows of some arrays in a given order.

    Args:
        order: positions, int64.
        batch_size: rows per batch.
        drop_remainder: whether a smaller last batch is left out.
        arrays: with equally many rows; memory-mapped ones are read from disk batch by batch.
        chosen: the rows that the positions count; None: all rows.

    Returns:
        Tuples of the positions (B,) and of the rows (B, ...) of each array, in the arrays' own types.
    """

    def rows(positions: np.ndarray) -> list[np.ndarray]:
        numbers = positions if chosen is None else chosen[positions]
        return [np.ascontiguousarray(array[numbers]) for array in arrays]

    def pick(positions: tf.Tensor) -> tuple:
        if not arrays:
            return (positions,)
        picked = tf.numpy_function(rows, [positions], [array.dtype for array in arrays], stateful=False)
        return positions, *(
            tf.ensure_shape(x, [positions.shape[0], *array.shape[1:]]) for x, array in zip(picked, arrays, strict=True)
        )

    return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder).map(pick)


def all_finite(array: np.ndarray) -> bool:
    """Whether all values are finite as float32, checked without a copy of the whole."""
    if array.dtype.kind != "f":
        return True
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    with np.errstate(over="ignore"):
        chunks = (array[i : i + rows].astype(np.float32) for i in range(0, len(array), rows))
        return all(np.isfinite(chunk).all() for chunk in chunks)
