"""The samples that calibrate the ranges of activations of integer files."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from dcp_tf.errors import UsageError

# Ranges converge after some hundred samples, and each sample runs through slow reference kernels. Arrays give this many
# samples at even distances (files are often sorted by class), iterables their first ones.
CALIBRATION_SAMPLES = 512


def calibration_samples(model: Any, data: Any) -> tuple[Iterator[list[np.ndarray]], int | None]:
    """Cuts representative data into single samples.

    Args:
        model: the Keras model that takes them.
        data: an array (N, ...), one array for each input, or an iterable of batches. A batch is an array, a tuple of
            one array per input, or (inputs, labels), where the labels are dropped.

    Returns:
        The samples, each a list with one array (1, ...) per input, and their number if it is known.

    Raises:
        UsageError: there is no sample, or one does not fit the inputs (raised while iterating, too).
    """
    count = len(model.inputs)
    arrays = _whole_arrays(data, count)
    if arrays is not None:
        length = len(arrays[0])
        total = min(length, CALIBRATION_SAMPLES)
        rows = np.linspace(0, max(length - 1, 0), total).astype(int)
        samples = ([array[row : row + 1] for array in arrays] for row in rows)
    elif isinstance(data, Iterable):
        total = None
        samples = itertools.islice(_rows(data, count), CALIBRATION_SAMPLES)
    else:
        raise UsageError(
            f"representative_data must be an array or an iterable of batches. Received: {type(data).__name__}"
        )
    checked = (_checked(model, sample) for sample in samples)
    first = next(checked, None)
    if first is None:
        raise UsageError("representative_data is empty; give some hundred typical images")
    return itertools.chain([first], checked), total


def _whole_arrays(data: Any, count: int) -> list[np.ndarray] | None:
    """The data as one array per input, or None if it has another form."""
    if isinstance(data, np.ndarray):
        return [data] if count == 1 else None
    if count > 1 and isinstance(data, (list, tuple)) and len(data) == count:
        return list(data) if all(isinstance(part, np.ndarray) for part in data) else None
    return None


def _rows(batches: Iterable, count: int) -> Iterator[list[np.ndarray]]:
    for batch in batches:
        arrays = [np.asarray(part) for part in _inputs_of(batch, count)]
        for row in range(min((len(array) if array.ndim else 0) for array in arrays)):
            yield [array[row : row + 1] for array in arrays]


def _inputs_of(batch: Any, count: int) -> list:
    """The inputs in a batch, without labels, in the order of `model.inputs`."""
    import keras

    if isinstance(batch, (tuple, list)) and (count == 1 or isinstance(batch[0], (tuple, list, dict))):
        batch = batch[0]
    parts = keras.tree.flatten(batch)
    if len(parts) != count:
        raise UsageError(f"a batch of representative_data must hold {count} inputs. Received: {len(parts)}")
    return parts


def _checked(model: Any, sample: list[np.ndarray]) -> list[np.ndarray]:
    for tensor, array in zip(model.inputs, sample, strict=True):
        if tuple(array.shape[1:]) != tuple(tensor.shape[1:]):
            raise UsageError(
                f"representative_data must have the shape (N, {', '.join(map(str, tensor.shape[1:]))}) of the input "
                f"{tensor.name!r}. Received samples of shape {tuple(array.shape[1:])}"
            )
        if not np.all(np.isfinite(array)):
            raise UsageError("representative_data holds NaN or infinite values; they have no integer range")
    return [np.ascontiguousarray(array, dtype=tensor.dtype) for tensor, array in zip(model.inputs, sample, strict=True)]
