"""Loads the data set that `--dataset` names."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dcp_tf.data.faces.identities import FaceSettings, raw_faces
from dcp_tf.data.folder import raw_folder
from dcp_tf.data.image_arrays import assemble, raw_digits, raw_npz
from dcp_tf.data.image_split import ImageDataset
from dcp_tf.data.tfds_images import raw_tfds
from dcp_tf.data.user_function import load_function
from dcp_tf.errors import UsageError
from dcp_tf.settings.normalization import Normalization, find_normalization

_NAMED = ("npz", "folder", "tfds", "faces", "python")
_KINDS = "digits, npz:FILE, folder:DIR, tfds:NAME, faces:DIR or python:FILE.py:FUNCTION"


def load(
    spec: str,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    normalization: str | Normalization = "none",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    data_dir: str | None = None,
    test_fraction: float = 0.2,
    augmentation: str | None = None,
    faces: FaceSettings | None = None,
) -> ImageDataset:
    """Loads a data set.

    Integer pixels become 0..1 and floats are taken as they are; then the normalization follows:

    | name | what the network gets |
    |---|---|
    | `none` | nothing more |
    | `unit` | 0..1, also from floats of 0..255 |
    | `raw` | 0..255 (for networks that rescale inside); floats must be of 0..255 already |
    | `digits`, `cifar10`, `cifar100`, `imagenet` | (x - mean) / std of that data set, x in 0..1 |
    | `tf` | -1..1 |
    | `face` | (x - 127.5) / 128, x in 0..255 |
    | `caffe` | BGR, 0..255, less ImageNet's mean |

    Args:
        spec: `digits` (scikit-learn's), `npz:FILE` (see `read_npz`), `folder:DIR` (one folder
            per class, or `train` and `test` with such folders), `tfds:NAME` (TensorFlow Datasets) or `faces:DIR` (one
            folder per person, or TFRecord files of aligned crops, see `raw_faces`); or `python:FILE.py:FUNCTION`, a
            function that returns (train, test) as the model takes them, see `load_function`.
        input_shape: the (H, W, C) that the model takes: images are resized to it, and gray becomes RGB or RGB gray.
            None, as a whole or for one dimension, keeps the images' own.
        normalization: see above.
        mean: instead of a normalization, one value or one per channel, for pixels of 0..1.
        std: goes with `mean`.
        seed: of the train-test split, if the data set has none.
        data_dir: where TensorFlow Datasets keeps its files.
        test_fraction: the fraction of images in the test split.
        augmentation: "none", "shift" (by up to an eighth of the size), "flip" (shift and mirror randomly), "mirror" or
            "crop" (random crops of photographs of many sizes, and mirror); None: what suits the data set, "crop" for
            photographs of many sizes of TensorFlow Datasets and "flip" for its others, "mirror" for faces, "shift" for
            all others.
        faces: which people of `faces:DIR` are read, and the landmarks; None: the defaults of `FaceSettings`.

    Returns:
        The data set, its test images never among the train images.

    Raises:
        UsageError: something of this cannot be used.
    """
    chosen = find_normalization(normalization, mean, std)
    kind, _, argument = spec.partition(":")
    if kind not in ("digits", *_NAMED) or (kind == "digits") != (spec == kind):
        raise UsageError(f"unknown data set {spec!r}; give {_KINDS}")
    if kind != "digits" and not argument:
        raise UsageError(f"the data set {spec!r} lacks what comes after the colon; give {_KINDS}")
    if faces is not None and kind != "faces":
        raise UsageError(f"settings for faces go with faces:DIR, received {spec!r}")
    if kind == "python":
        return _of_function(argument, normalization, mean, std, augmentation)
    if kind == "digits":
        raw = raw_digits(seed=seed, test_fraction=test_fraction)
    elif kind == "npz":
        raw = raw_npz(argument)
    elif kind == "folder":
        raw = raw_folder(argument, input_shape=input_shape, seed=seed, test_fraction=test_fraction)
    elif kind == "faces":
        settings = faces or FaceSettings()
        raw = raw_faces(argument, settings=settings, input_shape=input_shape, seed=seed, test_fraction=test_fraction)
    else:
        raw = raw_tfds(argument, data_dir=data_dir, input_shape=input_shape, seed=seed, test_fraction=test_fraction)
    if augmentation is not None:
        raw = dataclasses.replace(raw, augmentation=augmentation)
    return assemble(raw, input_shape, chosen)


def _of_function(spec: str, *preprocessing: Any) -> ImageDataset:
    if any(value not in (None, "none") and value != () for value in preprocessing):
        raise UsageError(f"data of python:{spec} are taken as they are: leave out normalization and augmentation")
    return load_function(spec)
