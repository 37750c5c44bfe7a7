"""Data of a Python program: `tf.data` pipelines, and arrays, used unchanged."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.array_split import ArraySplit, make_array_split
from dcp_tf.data.data_split import DataSplit
from dcp_tf.data.image_split import ImageDataset, ImageSplit, balanced_order
from dcp_tf.data.labels import class_numbers
from dcp_tf.data.tf_data_order import note_sorted, read_labels, shuffle_buffer
from dcp_tf.errors import UsageError


def as_split(data: Any) -> DataSplit:
    """Converts the data of a Python program to the form that training and selection read.

    Args:
        data: a `DataSplit` (returned as it is), an `ImageDataset` (its train images), an array of inputs, a pair
            (inputs, labels), or a finite `tf.data.Dataset` of (image, label) or image batches. Values stay unchanged.

    Raises:
        UsageError: it is of another type, or empty.
    """
    if isinstance(data, ImageSplit | ArraySplit | TfDataSplit):
        return data
    if isinstance(data, ImageDataset):
        return data.train
    if isinstance(data, tf.data.Dataset):
        return TfDataSplit(data)
    images, labels = data if isinstance(data, tuple | list) and len(data) == 2 else (data, None)
    if isinstance(images, list) and images and all(hasattr(image, "__array__") for image in images):
        images = _stacked(images)
    if hasattr(images, "__array__"):
        return make_array_split(images, labels)
    raise UsageError(
        "data must be a tf.data.Dataset of batches, an array, a pair (images, labels) or a dcp_tf data set, received "
        f"{_kind(data)}"
    )


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


class TfDataSplit:
    """A `DataSplit` of a `tf.data.Dataset` of batches.

    The pipeline itself decides the order and the augmentation of its images.

    Attributes:
        size: number of images.
        labels: of all images, (N, ...), or None.
        shape: of one image.
    """

    order_may_change = True

    def __init__(self, dataset: tf.data.Dataset):
        """Reads the pipeline once for its labels.

        Raises:
            UsageError: it yields no batches of images, is empty, or does not end.
        """
        self._labelled, images = _check_spec(dataset.element_spec)
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise UsageError("the tf.data.Dataset never ends; leave out .repeat()")
        self._dataset = dataset
        self.shape = tuple(images.shape[1:])
        labels = read_labels(dataset, self._labelled)
        self.size = len(labels)
        self.labels = labels if self._labelled else None
        self._buffer = shuffle_buffer(self.size, images)
        note_sorted(class_numbers(self.labels), self._buffer)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """See `DataSplit`."""
        return balanced_order(self.size, class_numbers(self.labels), n, seed)

    def split_off(self, indices: np.ndarray) -> tuple["TfDataSplit", ArraySplit]:
        """The pipeline without the inputs that are now at some positions, and these inputs, read once.

        Inputs are recognized by their values, so that a pipeline that shuffles never yields them either.
        """
        chosen = np.zeros(self.size, bool)
        chosen[indices] = True
        dataset = self._dataset.unbatch()
        held_out = list(dataset.enumerate().filter(lambda i, _: tf.constant(chosen)[i]).map(lambda _, x: x))
        first = (lambda *x: x[0]) if self._labelled else (lambda x: x)
        images = np.stack([(x[0] if self._labelled else x).numpy() for x in held_out])
        fingerprints = tf.constant([int(_fingerprint(tf.constant(image))) for image in images], tf.int64)
        rest = copy.copy(self)
        kept = dataset.filter(lambda *x: tf.reduce_all(fingerprints != _fingerprint(first(*x))))
        rest._dataset, rest.size = kept.batch(64), self.size - len(held_out)
        if not self._labelled:
            return rest, make_array_split(images)
        rest.labels = np.delete(self.labels, indices, axis=0)
        return rest, make_array_split(images, np.stack([x[1].numpy() for x in held_out]))

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        epoch: int = 0,
    ) -> tf.data.Dataset:
        """See `DataSplit`; `indices` need a pipeline with a fixed order; `augment` is ignored."""
        dataset = self._dataset
        if indices is not None:
            chosen = np.zeros(self.size, bool)
            chosen[np.asarray(indices)] = True
            chosen = tf.constant(chosen)
            dataset = dataset.unbatch().enumerate().filter(lambda i, _: chosen[i]).map(lambda _, x: x)
        elif shuffle:
            buffer = min(max(self._buffer, 16 * batch_size), self.size)
            dataset = dataset.unbatch().shuffle(buffer, seed=(seed * 7919 + epoch) % 2**31)
        else:
            dataset = dataset.unbatch()
        cast = _as_floats if self._labelled else lambda x: tf.cast(x, tf.float32)
        return dataset.batch(batch_size).map(cast).prefetch(2)


def _check_spec(spec: Any) -> tuple[bool, tf.TensorSpec]:
    """Whether a pipeline yields labels, and the form of its images.

    Raises:
        UsageError: it yields anything but batches of images, or of images and labels.
    """
    labelled = isinstance(spec, tuple)
    parts = spec if labelled else (spec,)
    if not all(isinstance(part, tf.TensorSpec) for part in parts) or (labelled and len(spec) != 2):
        hint = "; .map(lambda batch: (batch[IMAGES], batch[LABELS])) picks them" if isinstance(spec, dict) else ""
        raise UsageError(f"the tf.data.Dataset must yield images or (images, labels), it yields {spec}{hint}")
    if any(part.shape.rank in (0, *(1,) * (part is parts[0])) for part in parts) and parts[0].dtype != tf.string:
        raise UsageError("the tf.data.Dataset must yield batches; add .batch(128)")
    if parts[0].shape.rank is None:
        raise UsageError("the tf.data.Dataset does not say the shape of its images; give an output_signature that does")
    if not (parts[0].dtype.is_floating or parts[0].dtype.is_integer or parts[0].dtype.is_bool):
        raise UsageError(f"the images of the tf.data.Dataset must be numbers, received {parts[0].dtype.name}")
    return labelled, parts[0]


def _fingerprint(image: tf.Tensor) -> tf.Tensor:
    """A hash of an image."""
    return tf.strings.to_hash_bucket_fast(tf.io.serialize_tensor(image), 2**62)


def _as_floats(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32), labels
