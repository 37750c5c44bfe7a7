"""Data sets of image arrays: scikit-learn's digits, `.npz` files, and arrays of a Python program."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.data.image_split import ImageDataset, ImageSplit, make_image_split
from dcp_tf.data.labels import check_same_labels, class_names, label_array, weight_array
from dcp_tf.data.npz import read_npz
from dcp_tf.data.pixel_sources import ArraySource, array_source
from dcp_tf.data.raw_dataset import RawDataset, train_test_split
from dcp_tf.data.structure import checked_parts, flat_parts
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name
from dcp_tf.settings.normalization import Normalization, find_normalization


def raw_digits(*, seed: int, test_fraction: float) -> RawDataset:
    """scikit-learn's 1,797 handwritten digits: 8 x 8, gray, integers of 0..16."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    source = ArraySource(pixels.reshape(-1, 8, 8, 1).astype(np.uint8), white=16.0)
    train, test = train_test_split(source, labels.astype(np.int32), test_fraction, seed)
    return RawDataset("digits", train, test, tuple("0123456789"))


def raw_npz(path: str) -> RawDataset:
    """Reads images, and perhaps labels and weights, from a `.npz` file; see `read_npz`.

    Raises:
        UsageError: the file cannot be read, an array is missing, or the arrays do not fit each other.
    """
    arrays = read_npz(path)
    train, test = (
        _labelled(*(arrays.get(f"{letter}_{part}") for letter in "xyw"), *(f"{x}_{part} of {path}" for x in "xyw"))
        for part in ("train", "test")
    )
    _check_same_kind(train[0], test[0], f"x_train of {path}", f"x_test of {path}")
    check_same_labels(train[1], test[1], f"y_train of {path}", f"y_test of {path}")
    name = readable_name(pathlib.Path(path).stem)
    return RawDataset(name, train, test, class_names(train[1], test[1]), _default_augmentation(train[1]))


def from_arrays(
    images: np.ndarray,
    labels: Any = None,
    *,
    test_images: np.ndarray | None = None,
    test_labels: Any = None,
    name: str = "arrays",
    input_shape: tuple[int | None, ...] | None = None,
    normalization: str | Normalization = "none",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augmentation: str | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
) -> ImageDataset:
    """Makes a data set from arrays.

    Args:
        images: (N, H, W, C) or (N, H, W); integers of 0..255, or floats.
        labels: (N,) class numbers from 0 or numbers, (N, ...) rows or maps of either, or None; of several outputs a
            dict by their names.
        test_images: images to evaluate on; without them `images` is split.
        test_labels: their labels.
        name: what the data set is called.
        input_shape: the (H, W, C) that the model takes; None keeps the images' own.
        normalization: as in `load`.
        mean: as in `load`.
        std: as in `load`.
        augmentation: "none", "shift" (by up to an eighth of the size) or "flip" (shift and mirror randomly); None:
            "shift", and "none" for labels of several outputs.
        seed: of the train-test split.
        test_fraction: the fraction of `images` that becomes the test split.

    Raises:
        UsageError: the arrays do not fit each other or the rest.
    """
    train = _labelled(images, labels, None, "images", "labels")
    if test_images is not None:
        test = _labelled(test_images, test_labels, None, "test_images", "test_labels")
        _check_same_kind(train[0], test[0], "images", "test_images")
        if (labels is None) != (test_labels is None):
            raise UsageError("give labels for both the images and the test images, or for neither")
    elif test_labels is not None:
        raise UsageError("test_labels need test_images")
    else:
        train, test = train_test_split(*train[:2], test_fraction, seed)
    check_same_labels(train[1], test[1], "labels", "test_labels")
    raw = RawDataset(name, train, test, class_names(train[1], test[1]), augmentation or _default_augmentation(labels))
    return assemble(raw, input_shape, find_normalization(normalization, mean, std))


def split_from_arrays(
    images: np.ndarray,
    labels: Any = None,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    normalization: str | Normalization = "none",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augmentation: str | None = None,
) -> ImageSplit:
    """Makes one split from arrays; the arguments are those of `from_arrays`."""
    source, labels, _ = _labelled(images, labels, None, "images", "labels")
    chosen = find_normalization(normalization, mean, std)
    augmentation = augmentation or _default_augmentation(labels)
    return make_image_split(source, labels, input_shape=input_shape, normalization=chosen, augmentation=augmentation)


def assemble(raw: RawDataset, input_shape: tuple[int | None, ...] | None, normalization: Normalization) -> ImageDataset:
    """Adds the preprocessing to a raw data set.

    Raises:
        UsageError: the images do not fit the shape or the normalization.
    """
    settings = {"input_shape": input_shape, "normalization": normalization, "augmentation": raw.augmentation}
    train, test = (make_image_split(*side, **settings) for side in (raw.train, raw.test))
    return ImageDataset(raw.name, train, test, len(raw.class_names), raw.class_names, train.shape, raw.notes)


def _default_augmentation(labels: Any) -> str:
    """Several labels, such as boxes, do not follow an image that moves."""
    return "none" if len(flat_parts(labels)) > 1 else "shift"


def _labelled(
    images: Any, labels: Any, weights: Any, images_name: str, labels_name: str, weights_name: str = ""
) -> tuple[ArraySource, Any, Any]:
    if isinstance(images, dict):
        if len(images) > 1:
            raise UsageError(f"{images_name} has the inputs {', '.join(images)}; give the images alone")
        images = next(iter(images.values()))
    source = array_source(images, images_name)
    if weights is not None and labels is None:
        raise UsageError(f"there is {weights_name}, but no {labels_name.replace('w_', 'y_')}; give both")
    return (
        source,
        checked_parts(label_array, labels, source.size, labels_name),
        checked_parts(weight_array, weights, source.size, weights_name),
    )


def _check_same_kind(train: ArraySource, test: ArraySource, train_name: str, test_name: str) -> None:
    if train.shape != test.shape:
        raise UsageError(
            f"{train_name} holds images of shape {train.shape}, but {test_name} of {test.shape}; they must be equal"
        )
    if train.white != test.white:
        raise UsageError(
            f"{train_name} and {test_name} are on different scales: one holds integers, the other floats; use one type"
        )
