"""The image files in class folders, and the other files there."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name

_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif"),
    *(".tiff", ".webp"),
)
# What the installed Pillow can decode of them; AVIF and JPEG 2000 depend on how it was built.
IMAGE_SUFFIXES = {suffix for suffix in _SUFFIXES if Image.registered_extensions().get(suffix) in Image.OPEN}
_CLASSES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The images below the folders of the classes.

    Attributes:
        files: their paths, class by class in sorted order.
        labels: of each, (N,).
        nested: how many of them are in subfolders of a class folder.
        skipped: suffix -> how many visible files were left out.
    """

    files: list[pathlib.Path]
    labels: np.ndarray
    nested: int
    skipped: collections.Counter

    def describe(self, class_names: Sequence[str]) -> str:
        """How many images of which classes there are, and what was left out, in one line."""
        counts = np.bincount(self.labels, minlength=len(class_names))
        first = list(zip(class_names, counts, strict=True))[:_CLASSES_SHOWN]
        shown = ", ".join(f"{name} {count}" for name, count in first)
        if len(class_names) > _CLASSES_SHOWN:
            shown += f" and {len(class_names) - _CLASSES_SHOWN} more of {counts.min()} to {counts.max()} images"
        line = f"{len(self.files):,} images of {len(class_names)} classes ({shown})"
        if self.nested:
            line += f"; {self.nested:,} of them are in subfolders of the class folders"
        if self.skipped:
            kinds = sorted(self.skipped.items())
            left_out = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in kinds)
            line += f"; files that were left out: {left_out}"
        return line


def class_folders(root: pathlib.Path) -> tuple[str, ...]:
    """The names of the folders in `root`, sorted; raises UsageError if there are fewer than two."""
    names = inner_folders(root)
    if len(names) < 2:
        raise UsageError(f"{root} must hold at least two folders, one per class; it holds {len(names)}")
    return tuple(names)


def inner_folders(root: pathlib.Path) -> list[str]:
    """The names of the visible folders in `root`, sorted."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def list_images(root: pathlib.Path, class_names: Sequence[str], *, some_empty: bool = False) -> ImageFiles:
    """The images of all classes, including those in subfolders.

    Hidden files and folders are left out, and so are files without an image suffix.

    Raises:
        UsageError: a class has no images, which only `some_empty` allows, or only folders with images.
    """
    files: list[pathlib.Path] = []
    labels: list[int] = []
    nested, skipped = 0, collections.Counter()
    for label, name in enumerate(class_names):
        folder = root / name
        if not folder.is_dir():
            continue
        visible = list(_visible_files(folder))
        images = sorted(path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES)
        skipped.update(readable_name(p.suffix.lower()) for p in visible if p.suffix.lower() not in IMAGE_SUFFIXES)
        inside = sum(path.parent != folder for path in images)
        # If a class holds only folders, they are probably the classes: training/cats/1.png.
        if not some_empty and inside == len(images):
            hint = "".join(f", only folders such as {inner}" for inner in inner_folders(folder)[:1])
            hint += ": put them there, or call the outer folders train and test" if hint else ""
            raise UsageError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}){hint}")
        files += images
        labels += [label] * len(images)
        nested += inside
    return ImageFiles(files, np.asarray(labels, np.int32), nested, skipped)


def _visible_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below a folder except hidden ones: macOS puts ._1.png beside 1.png."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (pathlib.Path(parent, name) for name in names if not name.startswith("."))
