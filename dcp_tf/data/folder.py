"""Images in folders, one folder per class."""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from dcp_tf import progress
from dcp_tf.data import pixel_sources
from dcp_tf.data.faces.alignment import align_face
from dcp_tf.data.image_files import class_folders, inner_folders, list_images
from dcp_tf.data.preprocessing import Shape, decoded_shape
from dcp_tf.data.raw_dataset import RawDataset, train_test_split
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name

_TEST_FOLDERS = ("test", "val", "validation", "valid")
_GRAY_MODES = {"1", "L", "LA"}
_WIDE_MODES = {"I", "F"}


@dataclasses.dataclass(frozen=True)
class FileDecoder:
    """Reads image files as uint8 pixels of one shape.

    Attributes:
        files: their paths.
        shape: (H, W, C) of the result.
        landmarks: (N, 5, 2) where the images show faces that shall be aligned, see `alignment.align_face`. Without them
            images are resized.
    """

    files: Sequence[pathlib.Path]
    shape: Shape
    landmarks: np.ndarray | None = None

    def __call__(self, position: int) -> np.ndarray:
        """Reads one file, (H, W, C); raises UsageError if it is not an image."""
        height, width, channels = self.shape
        path = self.files[position]
        try:
            with Image.open(path) as image:
                image = image.convert("L" if channels == 1 else "RGB")
                if self.landmarks is not None:
                    image = align_face(image, self.landmarks[position], (height, width))
                elif image.size != (width, height):
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                return np.asarray(image, np.uint8).reshape(self.shape)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _bad_image(path, error) from error

    def stream(self, position: tf.Tensor) -> tf.Tensor:
        """The same inside `tf.data`."""
        return tf.numpy_function(self, [position], tf.uint8)


def raw_folder(
    directory: str, *, input_shape: tuple[int | None, ...] | None, seed: int, test_fraction: float
) -> RawDataset:
    """Reads a folder of class folders, or one with `train` and `test` (or `val`, `validation`, `valid`) inside.

    Files are read in sorted order, including those in subfolders of a class (see `list_images`). A test folder without
    class folders (images without labels) is ignored if there is another one. Pixels are used as stored (the
    orientation tag of photographs is not applied), and resized to the model's height and width without keeping the
    aspect ratio.

    Raises:
        UsageError: there are no classes or images, a file is no image, or the images differ in size and no model size
            is given.
    """
    root = pathlib.Path(directory)
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    test_roots = [root / name for name in _TEST_FOLDERS if (root / name).is_dir()]
    test_root = next((folder for folder in test_roots if inner_folders(folder)), *test_roots[:1] or [None])
    has_train = (root / "train").is_dir()
    train_root = root / "train" if has_train else root
    class_names = class_folders(train_root)
    name, shown = readable_name(root.resolve().name), tuple(map(readable_name, class_names))
    train = list_images(train_root, class_names)
    if not has_train or test_root is None:
        source = open_images(FileDecoder(train.files, common_shape(train.files, input_shape)), len(train.files))
        sides = train_test_split(source, train.labels, test_fraction, seed)
        return RawDataset(name, *sides, shown, notes=(f"folder {name}: {train.describe(shown)}",))
    strangers = sorted(set(class_folders(test_root)) - set(class_names))
    if strangers:
        raise UsageError(f"{test_root} has the class {strangers[0]!r}, which {train_root} has not")
    test = list_images(test_root, class_names)
    shape = common_shape(train.files + test.files, input_shape)
    total = len(train.files) + len(test.files)
    sides = [(open_images(FileDecoder(side.files, shape), total), side.labels) for side in (train, test)]
    notes = [
        f"folder {name}/{readable_name(folder.name)}: {side.describe(shown)}"
        for folder, side in ((train_root, train), (test_root, test))
    ]
    return RawDataset(name, *sides, shown, notes=tuple(notes))


def common_shape(
    files: Sequence[pathlib.Path], input_shape: tuple[int | None, ...] | None, *, resize: bool = True
) -> Shape:
    """Reads every file's header and returns the shape that all files are decoded to.

    Raises:
        UsageError: a file is not an image, their sizes differ and none is given, or, without `resize`, one has
            another size.
    """
    first_size, gray = None, True
    height, width = input_shape[:2] if input_shape is not None and len(input_shape) == 3 else (None, None)
    for path in progress.bar(files, what="looking at the images", unit="image"):
        size, mode = _read_header(path)
        first_size = first_size or size
        if size != first_size and (height is None or width is None):
            raise UsageError(
                f"the images differ in size: {files[0]} is {first_size[0]} x {first_size[1]} and {path} is "
                f"{size[0]} x {size[1]} pixels; give an input size or a model with a fixed one",
                setting="image_size",
            )
        if not resize:
            require_face_size(str(path), size, (height, width), "give landmarks, ")
        gray = gray and mode in _GRAY_MODES
    return decoded_shape(input_shape, first_size[::-1], gray)


def require_face_size(
    what: str, size: tuple[int, int], model_size: tuple[int | None, int | None], advice: str = ""
) -> None:
    """Raises UsageError if an aligned face has another size (W, H) than the model takes (H, W)."""
    if any(required not in (None, actual) for required, actual in zip(model_size, size[::-1], strict=True)):
        raise UsageError(
            f"{what} has {size[1]} x {size[0]} pixels (height x width), but the model takes "
            f"{model_size[0]} x {model_size[1]}: align the faces to that size, {advice}or resize=True to stretch them",
            setting=("landmarks", "resize") if advice else "resize",
        )


def _read_header(path: pathlib.Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _bad_image(path, error) from error
    if mode in _WIDE_MODES or mode.startswith("I;"):
        raise UsageError(f"{path} has more than 8 bits per pixel (mode {mode}); convert it to 8 bits")
    return size, mode


def open_images(decoder: FileDecoder, total: int) -> pixel_sources.Source:
    """Decodes the files now if all `total` images of the data set fit in memory, else on demand."""
    size, shape = len(decoder.files), decoder.shape
    if total * int(np.prod(shape)) > pixel_sources.MEMORY_LIMIT:
        return pixel_sources.StreamSource(decoder.stream, np.arange(size), shape)
    images = np.empty((size, *shape), np.uint8)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decoder, range(size))
        for position, pixels in enumerate(progress.bar(decoded, what="decoding the images", total=size, unit="image")):
            images[position] = pixels
    return pixel_sources.ArraySource(images, white=255.0)


def _bad_image(path: pathlib.Path, error: Exception) -> UsageError:
    return UsageError(f"{path} is no readable image ({error}); repair or remove it")
