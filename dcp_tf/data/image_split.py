"""Images with labels, read in batches; a data set is two such splits."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.data.balance import CROPS, ORDER, generator
from dcp_tf.data.data_split import DataSplit, Pass, array_specs
from dcp_tf.data.gather import gathered
from dcp_tf.data.labels import check_same_labels, class_names, label_array
from dcp_tf.data.pixel_sources import ArraySource, CroppingSource, Source
from dcp_tf.data.preprocessing import Shape, crop_and_flip, draw_crops, output_shape, to_shape
from dcp_tf.data.structure import flat_parts, join_batch, map_parts, named_parts, pack_parts, split_batch
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name
from dcp_tf.settings.data import AUGMENTATIONS
from dcp_tf.settings.normalization import Normalization

_WORKERS = 2  # that finish batches: each holds one of them in memory


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSplit(DataSplit):
    """A `DataSplit` of images of one shape.

    Attributes:
        source: of the pixels.
        labels: of int32 or float32, (N,) with one number for each image, or rows or maps of them, (N, ...); None if
            there are none; or several of these in a dict.
        shape: (H, W, C) of the images in a batch.
        normalization: of the pixels.
        augmentation: what `augment` does to the images, one of `preprocessing.AUGMENTATIONS`. Images with label
            maps are not augmented, since their labels would not follow.
        weights: of the images in losses and metrics, nested as the labels; None: all count alike.
    """

    source: Source
    labels: Any = dataclasses.field(repr=False)
    shape: Shape
    normalization: Normalization
    augmentation: str = "shift"
    weights: Any = dataclasses.field(default=None, repr=False)

    @property
    def size(self) -> int:
        """How many images there are."""
        return self.source.size

    @property
    def in_memory(self) -> bool:
        """Whether the pixels are in memory, so that reading them again is cheap."""
        return isinstance(getattr(self.source, "steady", self.source), ArraySource)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSplit":
        """Returns some of the images, such as a `balanced_subset`, as a split of their own."""
        positions = self._positions(indices)
        labels, weights = map_parts(lambda part: part[positions], (self.labels, self.weights))
        return dataclasses.replace(self, source=self.source.take(positions), labels=labels, weights=weights)

    def with_labels(self, labels: np.ndarray) -> "ImageSplit":
        """Returns the same images with other labels, such as the predictions of a network."""
        return dataclasses.replace(self, labels=label_array(labels, self.size, "labels"))

    def read(self, indices: np.ndarray) -> tf.Tensor:
        """Some images as one batch, without augmentation; fast if they are `in_memory`."""
        source = getattr(self.source, "steady", self.source)
        if isinstance(source, ArraySource):
            rows = indices if source.chosen is None else source.chosen[indices]
            return self.normalization.apply(
                to_shape(tf.convert_to_tensor(source.pixels[rows]), self.shape), source.white
            )
        return split_batch(next(iter(self.batches(len(indices), indices=indices))))[0]

    def _batches(self, order: Pass) -> tf.data.Dataset:
        """One pass; the same arguments give bitwise the same batches.

        `augment` changes each image as `augmentation` says: shifted by up to an eighth of its size ("shift", "flip"),
        mirrored ("flip", "mirror", "crop"), cropped ("crop"); drawn from (seed, epoch) for each image, whatever batch
        it is in.
        """
        rows = self._positions(order.indices)
        if order.shuffle:
            rows = generator(order.seed, order.epoch, ORDER).permutation(rows)
        crops = None
        augment = order.augment and all(part.ndim < 3 for part in flat_parts(self.labels))
        if augment and self.augmentation != "none":
            rng = generator(order.seed, order.epoch, CROPS)
            crops = draw_crops(self.size, self.shape, self.augmentation, rng)
        sizes = order.batch_size, order.drop_remainder
        if augment and self.augmentation == "crop":
            images = self.source.crops(rows, *sizes, int(rng.integers(2**31)))
        else:
            images = self.source.batches(rows, *sizes)

        # Crops and labels are also read batch by batch: labels may be maps as large as the images.
        crops = crops or []
        details = gathered(rows, *sizes, [*crops, *flat_parts((self.labels, self.weights))])

        def finish(image: tuple, detail: tuple):
            pixels = to_shape(image[1], self.shape)
            if crops:
                pixels = crop_and_flip(pixels, *detail[1:3])
            pixels = self.normalization.apply(pixels, self.source.white)
            return join_batch(pixels, *pack_parts((self.labels, self.weights), detail[1 + len(crops) :]))

        finished = tf.data.Dataset.zip(images, details).map(finish, num_parallel_calls=_WORKERS, deterministic=True)
        return finished.prefetch(1)

    def _spec(self) -> tuple[Any, Any, Any]:
        return tf.TensorSpec([None, *self.shape]), *array_specs((self.labels, self.weights))

    def converted(self, function: Callable) -> "ImageSplit":
        """See `DataSplit`; the function must leave the images alone."""
        _, labels, weights = function(None, self.labels, self.weights)
        return dataclasses.replace(self, labels=labels, weights=weights)

    def _positions(self, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if indices is None:
            return np.arange(self.size, dtype=np.int64)
        positions = np.asarray(indices)
        if positions.ndim != 1 or not len(positions) or not np.issubdtype(positions.dtype, np.integer):
            raise UsageError(f"indices must be a list of at least one integer, received {indices!r}")
        if positions.min() < 0 or positions.max() >= self.size:
            raise UsageError(f"indices must lie in 0..{self.size - 1}, received {positions.min()}..{positions.max()}")
        return positions.astype(np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """A training and a test split.

    Attributes:
        name: in tables and reports.
        train: the training images.
        test: the test images.
        num_classes: how many classes there are (0 where there are no labels).
        class_names: their names, by label.
        input_shape: (H, W, C) of the images in a batch; of several inputs the tuple of their shapes.
        notes: what the user should know about how the images were read.
    """

    name: str
    train: DataSplit
    test: DataSplit
    num_classes: int
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    input_shape: Shape
    notes: tuple[str, ...] = ()

    def bound_to(self, model: Any) -> "ImageDataset":
        """Both splits as `DataSplit.bound_to` gives them."""
        train = self.train.bound_to(model, "the training data")
        test = self.test.bound_to(model, "the test data")
        return dataclasses.replace(self, train=train, test=test, input_shape=train.shape)


def make_dataset(name: str, train: DataSplit, test: DataSplit, train_name: str, test_name: str) -> ImageDataset:
    """A data set of two splits of any kind.

    Args:
        name: of the data set.
        train: to train on.
        test: to measure on.
        train_name: of the training data, for error messages.
        test_name: of the test data.

    Raises:
        UsageError: they differ in form.
    """
    inputs = [[where for where, _ in named_parts(split._spec()[0], "")] for split in (train, test)]
    if inputs[0] != inputs[1] and max(map(len, inputs)) > 1:
        has = [", ".join(where.strip("[]") or "one input" for where in own) for own in inputs]
        raise UsageError(f"{train_name} has the inputs {has[0]}, but {test_name} {has[1]}")
    if train.shape != test.shape:
        raise UsageError(f"{train_name} holds inputs of shape {train.shape}, but {test_name} of {test.shape}")
    check_same_labels(train.labels, test.labels, f"labels of {train_name}", f"labels of {test_name}")
    classes = class_names(train.labels, test.labels)
    return ImageDataset(readable_name(name), train, test, len(classes), classes, train.shape)


def make_image_split(
    source: Source,
    labels: Any,
    weights: Any = None,
    *,
    input_shape: tuple[int | None, ...] | None,
    normalization: Normalization,
    augmentation: str,
) -> ImageSplit:
    """Puts a source, its labels and the preprocessing together.

    Raises:
        UsageError: they do not fit each other.
    """
    if augmentation not in AUGMENTATIONS:
        raise UsageError(f"the augmentation must be one of {', '.join(AUGMENTATIONS)}, received {augmentation!r}")
    if augmentation == "crop" and not isinstance(source, CroppingSource):
        raise UsageError(
            "the augmentation 'crop' cuts photographs of many sizes, as tfds:imagenet2012 has them; these images have "
            f"one size, {source.shape}: choose one of {', '.join(name for name in AUGMENTATIONS if name != 'crop')}"
        )
    shape = output_shape(source.shape, input_shape)
    normalization.check_channels(shape[2])
    if isinstance(source, ArraySource) and source.white is None:
        normalization.check_floats(source.images)
    return ImageSplit(source, labels, shape, normalization, augmentation, weights)
