"""The samples that calibrate the ranges of activations of integer files."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
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
        data: an array (N, ...), one array for each input (a list in their order, or a dict by name), or an iterable of
            batches. A batch is an array, a tuple or dict of one array per input, or (inputs, labels), where the labels
            are dropped.

    Returns:
        The samples, each a list with one array (1, ...) per input, and their number if it is known.

    Raises:
        UsageError: there is no sample, or one does not fit the inputs (raised while iterating, too).
    """
    arrays = _whole_arrays(model, data)
    if arrays is not None:
        length = len(arrays[0])
        total = min(length, CALIBRATION_SAMPLES)
        rows = np.linspace(0, max(length - 1, 0), total).astype(int)
        samples = ([array[row : row + 1] for array in arrays] for row in rows)
    elif isinstance(data, Iterable):
        total = None
        samples = itertools.islice(_rows(model, data), CALIBRATION_SAMPLES)
    else:
        raise UsageError(
            f"representative_data must be an array or an iterable of batches. Received: {type(data).__name__}"
        )
    checked = (_checked(model, sample) for sample in samples)
    first = next(checked, None)
    if first is None:
        raise UsageError("representative_data is empty; give some hundred typical images")
    return itertools.chain([first], checked), total


def spread(
    samples: Iterator[list[np.ndarray]], total: int | None, count: int, kept: list[list[np.ndarray]]
) -> Iterator[list[np.ndarray]]:
    """Passes samples on and keeps `count` of them: at even distances, or the first ones where `total` is unknown."""
    rows = range(count) if total is None else {*np.linspace(0, total - 1, count).astype(int).tolist()}
    for row, sample in enumerate(samples):
        if row in rows:
            kept.append(sample)
        yield sample


def _whole_arrays(model: Any, data: Any) -> list[np.ndarray] | None:
    """The data as one array per input, or None if it has another form."""
    count = len(model.inputs)
    if isinstance(data, Mapping):
        return [np.asarray(part) for part in _ordered(model, data)]
    if isinstance(data, np.ndarray):
        return [data] if count == 1 else None
    if count > 1 and isinstance(data, (list, tuple)) and len(data) == count:
        return list(data) if all(isinstance(part, np.ndarray) for part in data) else None
    return None


def _rows(model: Any, batches: Iterable) -> Iterator[list[np.ndarray]]:
    for batch in batches:
        arrays = [np.asarray(part) for part in _inputs_of(model, batch)]
        for row in range(min((len(array) if array.ndim else 0) for array in arrays)):
            yield [array[row : row + 1] for array in arrays]


def _inputs_of(model: Any, batch: Any) -> list:
    """The inputs in a batch, without labels, in the order of `model.inputs`."""
    count = len(model.inputs)
    if isinstance(batch, (tuple, list)) and (count == 1 or isinstance(batch[0], (tuple, list, dict))):
        batch = batch[0]
    parts = _ordered(model, batch)
    if len(parts) != count:
        raise UsageError(f"a batch of representative_data must hold {count} inputs. Received: {len(parts)}")
    return parts


def _ordered(model: Any, inputs: Any) -> list:
    """The parts of nested inputs, in the order of `model.inputs` where they have names."""
    import keras

    from dcp_tf.data.binding import order_of_inputs
    from dcp_tf.models.functional import functional_graph

    parts = keras.tree.flatten(inputs)
    if not isinstance(inputs, Mapping) or functional_graph(model) is None:
        return parts
    return [parts[number] for number in order_of_inputs(model, inputs, "representative_data")]


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
