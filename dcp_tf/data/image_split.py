"""Images with labels, read in batches; a data set is two such splits."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.data.gather import gathered
from dcp_tf.data.labels import class_numbers, label_array, rank_in_class
from dcp_tf.data.pixel_sources import ArraySource, CroppingSource, Source
from dcp_tf.data.preprocessing import Shape, crop_and_flip, draw_crops, output_shape, to_shape
from dcp_tf.errors import UsageError
from dcp_tf.settings.data import AUGMENTATIONS
from dcp_tf.settings.normalization import Normalization

# The random streams that are drawn from one seed.
_ORDER, _CROPS, _SUBSET, _SPLIT = range(4)
_WORKERS = 2  # that finish batches: each holds one of them in memory


def _generator(seed: int, *stream: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"a seed must be 0 or more, received {seed}")
    return np.random.default_rng((seed, *stream))


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSplit:
    """A `DataSplit` of images of one shape.

    Attributes:
        source: of the pixels.
        labels: of int32 or float32, (N,) with one number for each image, or rows or maps of them, (N, ...); None if
            there are none.
        shape: (H, W, C) of the images in a batch.
        normalization: of the pixels.
        augmentation: what `augment` does to the images, one of `preprocessing.AUGMENTATIONS`. Images with label
            maps are not augmented, since their labels would not follow.
    """

    source: Source
    labels: np.ndarray | None = dataclasses.field(repr=False)
    shape: Shape
    normalization: Normalization
    augmentation: str = "shift"

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
        labels = None if self.labels is None else self.labels[positions]
        return dataclasses.replace(self, source=self.source.take(positions), labels=labels)

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
        batch = next(iter(self.batches(len(indices), indices=indices)))
        return batch if self.labels is None else batch[0]

    def batches(
        self,
        batch_size: int,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        shuffle: bool = False,
        augment: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_remainder: bool = False,
    ) -> tf.data.Dataset:
        """One pass over the images. The same arguments give bitwise the same batches.

        Args:
            batch_size: images per batch; the last batch may be smaller.
            indices: which images, in this order; None for all.
            shuffle: whether their order is drawn from (seed, epoch).
            augment: whether each image is changed randomly as `augmentation` says: shifted by up to an eighth of its
                size ("shift", "flip"), mirrored ("flip", "mirror", "crop"), cropped ("crop"); drawn from (seed, epoch)
                for each image, whatever batch it is in.
            seed: 0 or more.
            epoch: the number of the pass, 0 or more.
            drop_remainder: whether a smaller last batch is left out.

        Returns:
            Pairs of float32 images (B, H, W, C) and labels (B, ...); only images where there are no labels.

        Raises:
            UsageError: the batch size or an index is invalid.
        """
        if batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, received {batch_size}")
        order = self._positions(indices)
        if shuffle:
            order = _generator(seed, epoch, _ORDER).permutation(order)
        crops = None
        augment = augment and (self.labels is None or self.labels.ndim < 3)
        if augment and self.augmentation != "none":
            rng = _generator(seed, epoch, _CROPS)
            crops = draw_crops(self.size, self.shape, self.augmentation, rng)
        if augment and self.augmentation == "crop":
            images = self.source.crops(order, batch_size, drop_remainder, int(rng.integers(2**31)))
        else:
            images = self.source.batches(order, batch_size, drop_remainder)

        # Crops and labels are also read batch by batch: labels may be maps as large as the images.
        beside = [*(crops or []), *([] if self.labels is None else [self.labels])]
        details = gathered(order, batch_size, drop_remainder, beside)

        def finish(image: tuple, detail: tuple):
            pixels = to_shape(image[1], self.shape)
            if crops is not None:
                pixels = crop_and_flip(pixels, *detail[1:3])
            pixels = self.normalization.apply(pixels, self.source.white)
            return pixels if self.labels is None else (pixels, detail[-1])

        finished = tf.data.Dataset.zip(images, details).map(finish, num_parallel_calls=_WORKERS, deterministic=True)
        return finished.prefetch(1)

    def balanced_subset(self, n: int, seed: int = 0) -> np.ndarray:
        """Picks `n` images with classes as even as the labels allow; all images where there are no more than `n`.

        Returns:
            Sorted positions, int64. With one seed, every larger subset contains the smaller ones.
        """
        return balanced_order(self.size, class_numbers(self.labels), n, seed)

    def representative(self, n: int, seed: int = 0) -> np.ndarray:
        """Returns a balanced subset of at most `n` images as one float32 array (n, H, W, C), for calibration."""
        batches = self.batches(64, indices=self.balanced_subset(n, seed))
        return np.concatenate([batch if self.labels is None else batch[0] for batch in batches.as_numpy_iterator()])

    def _positions(self, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if indices is None:
            return np.arange(self.size, dtype=np.int64)
        positions = np.asarray(indices)
        if positions.ndim != 1 or not len(positions) or not np.issubdtype(positions.dtype, np.integer):
            raise UsageError(f"indices must be a list of at least one integer, received {indices!r}")
        if positions.min() < 0 or positions.max() >= self.size:
            raise UsageError(f"indices must lie in 0..{self.size - 1}, received {positions.min()}..{positions.max()}")
        return positions.astype(np.int64)


def balanced_order(size: int, labels: np.ndarray | None, n: int, seed: int) -> np.ndarray:
    """Positions of `n` of `size` images, sorted, with classes as even as `class_numbers` allow; see `ImageSplit`."""
    if n < 1:
        raise UsageError(f"a subset needs at least 1 image, received {n}")
    rng = _generator(seed, _SUBSET)
    drawn = rng.permutation(size)
    if labels is not None:
        names, labels = np.unique(labels, return_inverse=True)
        # Take the classes in rounds: one image of each, in an order of classes drawn once.
        classes = labels[drawn]
        order_in_round = rng.permutation(len(names))[classes]
        drawn = drawn[np.lexsort((order_in_round, rank_in_class(classes)))]
    return np.sort(drawn[:n])


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """A training and a test split.

    Attributes:
        name: in tables and reports.
        train: the training images.
        test: the test images.
        num_classes: how many classes there are (0 where there are no labels).
        class_names: their names, by label.
        input_shape: (H, W, C) of the images in a batch.
        notes: what the user should know about how the images were read.
    """

    name: str
    train: ImageSplit
    test: ImageSplit
    num_classes: int
    class_names: tuple[str, ...] = dataclasses.field(repr=False)
    input_shape: Shape
    notes: tuple[str, ...] = ()


def make_image_split(
    source: Source,
    labels: np.ndarray | None,
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
    return ImageSplit(source, labels, shape, normalization, augmentation)


def stratified_split(labels: np.ndarray | None, size: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws a train-test split with the same fraction of every class.

    A class keeps at least one training image, and gives one to the test if it has two or more. Labels that are nearly
    all different are not classes.

    Returns:
        The positions of the train and of the test images, sorted.

    Raises:
        UsageError: the fraction is not between 0 and 1, or it leaves one split empty.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the test fraction must lie between 0 and 1, received {fraction}")
    rng = _generator(seed, _SPLIT)
    is_test = np.zeros(size, bool)
    names, labels = (None, None) if (known := class_numbers(labels)) is None else np.unique(known, return_inverse=True)
    is_number = names is None or len(names) > size // 2
    classes = [np.arange(size)] if is_number else [np.flatnonzero(labels == label) for label in range(len(names))]
    for members in classes:
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        is_test[rng.permutation(members)[:count]] = True
    if not is_test.any():
        raise UsageError(f"{size} images are too few for a train-test split; give separate test images")
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
