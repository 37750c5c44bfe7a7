"""Image classification sets of TensorFlow Datasets, which is imported only when needed."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from dcp_tf import progress
from dcp_tf.data import pixel_sources
from dcp_tf.data.photos import central_crop, random_crop
from dcp_tf.data.preprocessing import Shape
from dcp_tf.data.raw_dataset import RawDataset, train_test_split
from dcp_tf.data.tfrecords import RecordIndex, index_records
from dcp_tf.errors import UsageError, first_line

# Names of test splits; the first one with labels is used.
_TEST_SPLITS = ("test", "validation", "val", "valid")
# Digits and letters, whose mirror images mean something else.
_NO_FLIP = {
    "binary_alpha_digits",
    "emnist",
    "kmnist",
    "mnist",
    "mnist_corrupted",
    "omniglot",
    "quickdraw_bitmap",
    "svhn_cropped",
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Records:
    """The records of one split, and how to read an image and its label from them."""

    name: str  # of the data set
    builder: Any
    keys: tuple[str, str]  # of the image and its label
    index: RecordIndex
    shape: Shape  # of the decoded images
    many_sizes: bool  # whether they are photographs of many sizes, which are cropped

    def image(self, number: tf.Tensor) -> tf.Tensor:
        return self.image_and_label(self.index.read(number))[0]

    def crop(self, number: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The image cut at random; `seed` (2,) says where."""
        encoded, _ = self._encoded_and_label(self.index.read(number))
        return random_crop(encoded, seed, self.shape[:2], self.shape[2])

    def image_and_label(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if self.many_sizes:
            encoded, label = self._encoded_and_label(record)
            return central_crop(encoded, self.shape[:2], self.shape[2]), label
        image_key, label_key = self.keys
        example = self.builder.info.features.deserialize_example(record)
        return tf.ensure_shape(example[image_key], self.shape), example[label_key]

    def label(self, record: tf.Tensor) -> tf.Tensor:
        return self._encoded_and_label(record)[1]

    def _encoded_and_label(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow_datasets as tfds

        image_key, label_key = self.keys
        skip = {image_key: tfds.decode.SkipDecoding()}
        example = self.builder.info.features.deserialize_example(record, decoders=skip)
        return example[image_key], example[label_key]


def raw_tfds(
    name: str, *, data_dir: str | None, input_shape: tuple[int | None, ...] | None, seed: int, test_fraction: float
) -> RawDataset:
    """Reads an image classification set of TensorFlow Datasets, such as `cifar10`.

    The test split is `test`, or `validation` (`val`, `valid`) if that is missing, empty or without labels, or a
    fraction of `train` if there is neither. Images keep the order of the files. They are downloaded
    if they are not in `data_dir`. Photographs of many sizes (`imagenet2012`) are cut to shape as `dcp_tf.data.photos`
    does it. Sets that do not say what of them is image and label may have one of each.

    Raises:
        UsageError: there is no such set, it cannot be downloaded or read, or it is no image classification set.
    """
    builder = _open(name, data_dir)
    keys = _image_and_label(name, builder)
    shape, many_sizes, class_names = _describe(name, builder, keys, input_shape)
    with _without_warnings():  # about a missing folder, which is reported below
        is_prepared = builder.is_prepared()
    if not is_prepared:
        _prepare(name, builder, data_dir)
    _check_format(name, builder)

    def records(split: str) -> _Records:
        files = [str(path) for path in builder.info.splits[split].filepaths]
        try:
            return _Records(name, builder, keys, index_records(files), shape, many_sizes)
        except OSError as error:
            raise UsageError(f"tfds:{name} lacks {error.filename}; {_again(name)}") from error

    if "train" not in builder.info.splits:
        raise UsageError(f"tfds:{name} has no split 'train', only {', '.join(builder.info.splits)}")
    train = records("train")
    if not len(train.index):
        raise UsageError(f"the split 'train' of tfds:{name} in {builder.data_path} is empty; {_again(name)}")
    candidates = (records(split) for split in _TEST_SPLITS if split in builder.info.splits)
    test = next((candidate for candidate in candidates if _has_labels(candidate)), None)
    total = (len(train.index) + (len(test.index) if test else 0)) * int(np.prod(shape))
    in_memory = total <= pixel_sources.MEMORY_LIMIT
    sides = [_load(part, in_memory) for part in (train, test) if part is not None]
    if len(sides) == 1:
        sides = train_test_split(*sides[0], test_fraction, seed)
    photographs = "crop" if many_sizes else "flip"
    augmentation = "shift" if builder.name in _NO_FLIP else photographs
    return RawDataset(builder.name, *sides, class_names, augmentation)


def _has_labels(records: _Records) -> bool:
    """Whether there are examples, and their labels are not hidden."""
    return any(classes.min() >= 0 for _, classes in _read_all(records, records.label, "looking for labels", limit=1))


def _again(name: str) -> str:
    return f"prepare it again: tfds build {name} --overwrite --data_dir=DIR"


def _open(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(f"tfds:{name} needs TensorFlow Datasets: pip install tensorflow-datasets ({error})") from error
    _check_data_dir(name, data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        folder = root / re.split("[:/]", name)[0]
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        contents = f"{folder} holds {', '.join(names)}" if names else f"there is none in {root} either"
        raise UsageError(
            f"TensorFlow Datasets knows no data set {name!r}, {contents}; check data_dir and the name (NAME, "
            "NAME/CONFIG or NAME:VERSION)",
            setting="data_dir",
        ) from error
    except Exception as error:
        raise UsageError(f"TensorFlow Datasets cannot open {name!r}: {first_line(error)}") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check_data_dir(name: str, data_dir: str | None) -> None:
    """Raises UsageError if the folder is that of the set itself, into which it would be downloaded again."""
    folder = None if data_dir is None else pathlib.Path(data_dir).expanduser().resolve()
    if folder is None or folder.name != re.split("[:/]", name)[0] or (folder / folder.name).is_dir():
        return
    if any(next(folder.glob(f"{depth}dataset_info.json"), None) for depth in ("*/", "*/*/")):
        raise UsageError(f"give the folder that holds {folder.name}, data_dir={folder.parent}", setting="data_dir")


def _prepare(name: str, builder: Any, data_dir: str | None) -> None:
    """Downloads the data set."""
    where = builder.data_path.parent
    advice = (
        f"give the data_dir that holds it, or prepare it where there is a network: tfds build {name} --data_dir=DIR"
    )
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        _check_manual_files(name, builder, data_dir, advice)
    progress.say(f"{name} is not in {where}: preparing it")
    try:
        builder.download_and_prepare(file_format="tfrecord")
    except ImportError as error:
        raise UsageError(
            f"{name} is not in {where}, and to download it TensorFlow Datasets needs a package "
            f"that is not installed ({first_line(error)}); install that, or give the data_dir that holds {name}",
            setting="data_dir",
        ) from error
    except Exception as error:  # anything from no network to a changed web page
        raise UsageError(
            f"{name} is not in {where} and cannot be downloaded ({first_line(error)}); {advice}", setting="data_dir"
        ) from error


def _check_manual_files(name: str, builder: Any, data_dir: str | None, advice: str) -> None:
    """Some sets, such as ImageNet, must be downloaded by hand, because they require registration."""
    import tensorflow_datasets as tfds

    manual = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "downloads" / "manual"
    if not manual.is_dir() or not any(manual.iterdir()):
        steps = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.replace("manual_dir", str(manual)).split())
        raise UsageError(
            f"{name} is not in {builder.data_path.parent} and must be downloaded by hand: {steps} Or {advice}",
            setting="data_dir",
        )


def _check_format(name: str, builder: Any) -> None:
    file_format = builder.info.file_format.value
    if file_format != "tfrecord":
        raise UsageError(f"tfds:{name} is stored as {file_format}; prepare it with --file_format=tfrecord")


def _image_and_label(name: str, builder: Any) -> tuple[str, str]:
    """The keys of the image and its label: those that the set names, or the only ones of their kinds."""
    import tensorflow_datasets as tfds

    features, named = builder.info.features, builder.info.supervised_keys

    def candidates(kind: type, keys: Iterable[Any]) -> list[str]:
        return [key for key in keys if isinstance(key, str) and key in features and isinstance(features[key], kind)]

    images, labels = (features, features) if named is None else (named[:1], named[1:])
    key_lists = candidates(tfds.features.Image, images), candidates(tfds.features.ClassLabel, labels)
    if any(len(keys) != 1 for keys in key_lists):
        shown = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise UsageError(
            f"tfds:{name} is no image classification set: expected one Image and one ClassLabel"
            f"{'' if named is None else f' as its supervised keys {named}'}, its features are {shown}"
        )
    return key_lists[0][0], key_lists[1][0]


def _describe(
    name: str, builder: Any, keys: tuple[str, str], input_shape: tuple[int | None, ...] | None
) -> tuple[Shape, bool, tuple[str, ...]]:
    """Returns the shape to decode to, whether images come in many sizes, and the names of the classes."""
    image, label = (builder.info.features[key] for key in keys)
    if np.dtype(image.np_dtype) != np.uint8:
        raise UsageError(f"tfds:{name} has {np.dtype(image.np_dtype)} pixels; only 8-bit images are read")
    height, width, channels = image.shape
    channels = channels or 3
    if height is not None and width is not None:
        return (height, width, channels), False, tuple(label.names)
    if input_shape is None or len(input_shape) != 3 or None in input_shape[:2]:
        raise UsageError(
            f"the images of tfds:{name} differ in size; give an input size or a model with a fixed one",
            setting="image_size",
        )
    return (input_shape[0], input_shape[1], channels), True, tuple(label.names)


def _load(records: _Records, in_memory: bool) -> tuple[pixel_sources.Source, np.ndarray]:
    size = len(records.index)
    labels = np.empty(size, np.int32)
    if in_memory:
        images = np.empty((size, *records.shape), np.uint8)
        for part, (pixels, classes) in _read_all(records, records.image_and_label, "decoding the images"):
            images[part], labels[part] = pixels, classes
        source = pixel_sources.ArraySource(images, white=255.0)
    else:
        for part, classes in _read_all(records, records.label, "reading the labels"):
            labels[part] = classes
        source = pixel_sources.StreamSource(records.image, np.arange(size), records.shape)
    if records.many_sizes:
        source = pixel_sources.CroppingSource(source, records.crop, np.arange(size))
    if labels.min() < 0:
        raise UsageError(f"the labels of {records.index.files[0]} are hidden; this split cannot be used")
    return source, labels


def _read_all(
    records: _Records, parse: Callable[[tf.Tensor], Any], what: str, limit: int | None = None, chunk: int = 256
) -> Iterator[tuple[slice, Any]]:
    """Yields what `parse` returns for all records, or the first `limit`, in chunks with their slice of positions."""
    done, size = 0, len(records.index) if limit is None else min(limit, len(records.index))
    payloads = tf.data.TFRecordDataset(list(records.index.files)).take(size)
    chunks = payloads.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(chunk)
    with progress.bar(what=what, total=size, unit="image") as bar:
        try:
            for values in chunks.as_numpy_iterator():
                count = min(chunk, size - done)
                yield slice(done, done + count), values
                done += count
                bar.update(count)
        except tf.errors.OpError as error:
            raise UsageError(
                f"tfds:{records.name} in {records.builder.data_path} cannot be read: {first_line(error)} (from example "
                f"{done} on); {_again(records.name)}"
            ) from error
