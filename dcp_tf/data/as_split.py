"""The data of a Python program, as Keras takes it, in the form that training and selection read."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.data.array_split import make_array_split
from dcp_tf.data.data_split import DataSplit
from dcp_tf.data.image_split import ImageDataset
from dcp_tf.data.py_dataset_split import PyDatasetSplit
from dcp_tf.data.structure import flat_parts, split_batch
from dcp_tf.data.tf_data_split import TfDataSplit
from dcp_tf.errors import UsageError


def as_split(data: Any) -> DataSplit:
    """Converts the data of a Python program to the form that training and selection read.

    Values stay unchanged. Inputs, labels and sample weights are arrays, or several in (nested) dicts, tuples or lists;
    None stands for the labels of an output without any. `DataSplit.bound_to` gives them the order of a model.

    Args:
        data: a `DataSplit` (returned as it is), an `ImageDataset` (its train images), inputs, a tuple (inputs, labels)
            or (inputs, labels, sample_weight), a finite `tf.data.Dataset` of batches of these, or a
            `keras.utils.PyDataset`.

    Raises:
        UsageError: it is of another type, empty or endless.
    """
    if isinstance(data, DataSplit):
        return data
    if isinstance(data, ImageDataset):
        return data.train
    if isinstance(data, tf.data.Dataset):
        return TfDataSplit(data)
    if isinstance(data, keras.utils.PyDataset):
        return PyDatasetSplit(data)
    if isinstance(data, Iterator):
        raise UsageError(
            "a generator can be read only once; give a keras.utils.PyDataset, or tf.data.Dataset.from_generator("
            "function, output_signature=...), with .take(batches) if the function never ends"
        )
    is_batch = isinstance(data, tuple) or (isinstance(data, list) and len(data) == 2)
    if is_batch and not 1 <= len(data) <= 3:
        raise _not_data(data)
    inputs, labels, weights = split_batch(tuple(data) if is_batch else data)
    inputs = _input_arrays(inputs, data, _sample_count(inputs, labels))
    size = len(flat_parts(inputs)[0]) if flat_parts(inputs) and np.ndim(flat_parts(inputs)[0]) else 0
    return make_array_split(inputs, _label_arrays(labels, size), weights=_label_arrays(weights, size))


def _input_arrays(inputs: Any, data: Any, count: int | None) -> Any:
    """Arrays in dicts and tuples, of lists too; a list of `count` images is one array."""
    if isinstance(inputs, Mapping):
        return {name: _input_arrays(part, data, count) for name, part in inputs.items()}
    if isinstance(inputs, tf.RaggedTensor | tf.SparseTensor):
        raise UsageError(
            "ragged and sparse inputs have no rows of one length: .to_tensor() pads, tf.sparse.to_dense fills them"
        )
    if isinstance(inputs, list) and inputs and all(hasattr(part, "__array__") for part in inputs):
        shapes = {np.shape(part) for part in inputs}
        is_stack = len(inputs) == count or (count is None and len(shapes) == 1)
        if is_stack or len({shape[:1] for shape in shapes}) > 1:
            return _stacked(inputs)
    if isinstance(inputs, tuple | list) and inputs and not isinstance(inputs[0], int | float):
        return tuple(_input_arrays(part, data, count) for part in inputs)
    if hasattr(inputs, "__array__"):
        return inputs
    raise _not_data(data)


def _not_data(data: Any) -> UsageError:
    ragged = [part for part in keras.tree.flatten(data) if isinstance(part, tf.RaggedTensor | tf.SparseTensor)]
    if ragged:
        kind = type(ragged[0]).__name__
        return UsageError(f"a {kind} has no rows of one length: give .to_tensor() of it, or tf.sparse.to_dense")
    return UsageError(
        "data must be a tf.data.Dataset of batches, a keras.utils.PyDataset, arrays, a tuple (inputs, labels) or "
        f"(inputs, labels, sample_weight), or a dcp_tf data set, received {_kind(data)}"
    )


def _label_arrays(labels: Any, size: int) -> Any:
    """Arrays in dicts and tuples; a list of numbers or of `size` rows is one array."""
    if isinstance(labels, Mapping):
        return {name: _label_arrays(part, size) for name, part in labels.items()}
    is_several = isinstance(labels, tuple | list) and all(
        part is None or (hasattr(part, "__len__") and (isinstance(part, Mapping) or len(part) == size))
        for part in labels
    )
    if is_several:
        return tuple(_label_arrays(part, size) for part in labels)
    try:
        return None if labels is None else np.asarray(labels)
    except ValueError as error:  # NumPy says that the shape is inhomogeneous
        sizes = sorted({len(part) if hasattr(part, "__len__") else 1 for part in labels})
        raise UsageError(
            f"labels or weights of {size} samples differ in length ({', '.join(map(str, sizes[:5]))}): give each "
            "sample, and each output, as many"
        ) from error


def _sample_count(inputs: Any, labels: Any) -> int | None:
    """How many samples there are by the labels, where these say it."""
    if isinstance(inputs, list) and isinstance(labels, list):
        lengths = {len(part) for part in (*inputs, *labels) if hasattr(part, "__len__")}
        if len(lengths) == 1 and all(part is None or np.ndim(part) for part in labels):
            return lengths.pop()  # one array for each input and each output
    parts = keras.tree.flatten(labels) if isinstance(labels, Mapping | tuple) else [labels]
    return next((len(part) for part in parts if hasattr(part, "__len__")), None)


def _stacked(images: list) -> np.ndarray:
    try:
        return np.asarray(images)
    except ValueError as error:  # NumPy says that the shape is inhomogeneous
        raise UsageError(
            "the images in the list differ in shape; resize them to one (numpy.stack joins them)"
        ) from error


def _kind(data: Any) -> str:
    if isinstance(data, tuple | list):
        return f"{type(data).__name__} of {', '.join(type(part).__name__ for part in data[:5]) or 'nothing'}"
    return type(data).__name__
