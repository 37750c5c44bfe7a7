"""Faces, one folder per identity or TFRecord files of aligned crops, as a data set whose classes are the identities."""

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from dcp_tf import progress
from dcp_tf.data.faces.alignment import FACE_SIZE, absolute, read_landmarks
from dcp_tf.data.faces.records import open_face_records, record_files
from dcp_tf.data.folder import FileDecoder, common_shape, open_images
from dcp_tf.data.image_files import class_folders, list_images
from dcp_tf.data.preprocessing import decoded_shape
from dcp_tf.data.raw_dataset import RawDataset, train_test_split
from dcp_tf.errors import UsageError
from dcp_tf.files import readable_name

LANDMARKS_FILE = "landmarks.txt"


@dataclasses.dataclass(frozen=True)
class FaceSettings:
    """Which faces are read, and how.

    Attributes:
        min_images: people with fewer images are left out; at least 2, one to learn from and one to measure on.
        keep: names of the only identities to read; None for all.
        leave_out: names of identities that are not read, such as those that are verified later (`Pairs.people`).
        landmarks: a file as `alignment.read_landmarks` describes it. None: `landmarks.txt` in the folder of the faces
            if there is one, else the images are taken to be aligned.
        resize: whether aligned faces of another size than the model takes are stretched; else they are an error.
    """

    min_images: int = 2
    keep: Collection[str] | None = None
    leave_out: Collection[str] = ()
    landmarks: str | None = None
    resize: bool = True

    def __post_init__(self):
        if self.min_images < 2:
            raise UsageError(f"min_images must be at least 2, received {self.min_images}")


def raw_faces(
    directory: str,
    *,
    settings: FaceSettings,
    input_shape: tuple[int | None, ...] | None,
    seed: int,
    test_fraction: float,
) -> RawDataset:
    """Reads faces: a folder with one folder of images per identity, or with TFRecord files of aligned crops.

    A record is a `tf.train.Example` with the features `image` (bytes: a JPEG or PNG file) and `identity` (a name as
    bytes, or a number as int64); `directory` may also be one such file.

    Images with landmarks are aligned to the model's height and width, or to 112 x 112 if it takes any. Images without
    landmarks in the file are left out. Faces are mirrored randomly in training, not shifted.

    Raises:
        UsageError: there are no faces, fewer than two identities remain, or a file cannot be read.
    """
    root = pathlib.Path(directory)
    files = record_files(root) if root.exists() else []
    if files:
        if settings.landmarks is not None:
            raise UsageError(f"faces:{root} holds TFRecord files, whose crops are aligned; leave out the landmarks")
        records = open_face_records(files)
        chosen, labels, people = _choose(records.identities, settings, root)
        source = records.take(chosen).source(input_shape, resize=settings.resize)
    else:
        source, labels, people = _images(root, settings, input_shape)
    train, test = train_test_split(source, labels, test_fraction, seed)
    return RawDataset(readable_name(root.name), train, test, people, augmentation="mirror")


def read_identities(path: str) -> tuple[str, ...]:
    """Reads names of identities, one per line, for `FaceSettings`; empty lines and lines with `#` are left out."""
    try:
        lines = pathlib.Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no readable list of identities, one name per line: {error}") from error
    return tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def face_decoder(
    files: Sequence[pathlib.Path],
    landmarks: dict[pathlib.Path, np.ndarray] | None,
    input_shape: tuple[int | None, ...] | None,
    resize: bool = True,
) -> FileDecoder:
    """A decoder for image files of faces: it aligns them if there are `landmarks`, for all of them."""
    if landmarks is None:
        return FileDecoder(files, common_shape(files, input_shape, resize=resize))
    return FileDecoder(
        files, decoded_shape(input_shape, FACE_SIZE), np.stack([landmarks[absolute(file)] for file in files])
    )


def _images(root: pathlib.Path, settings: FaceSettings, input_shape: tuple[int | None, ...] | None):
    """The images of a folder of folders: their source, labels, and the names of the people."""
    names = _people(root)
    listed = list_images(root, names, some_empty=True)  # empty folders have too few images, like others
    files, numbers = listed.files, listed.labels
    if not files:
        raise _no_faces(root, "there are no images in its folders")
    landmarks = settings.landmarks or (str(root / LANDMARKS_FILE) if (root / LANDMARKS_FILE).is_file() else None)
    points = None if landmarks is None else read_landmarks(landmarks)
    if points is not None:
        named = np.array([absolute(file) in points for file in files])
        if not named.any():
            raise UsageError(
                f"{landmarks} has landmarks of none of the {len(files)} images of faces:{root}: {absolute(files[0])} "
                f"was looked for, but its first line means {next(iter(points))}; write the paths in it relative to its "
                f"own folder, {absolute(landmarks).parent}"
            )
        if not named.all():
            progress.say(f"{(~named).sum()} of {len(files)} images have no landmarks in {landmarks}; they are left out")
        files, numbers = [file for file, there in zip(files, named, strict=True) if there], numbers[named]
    chosen, labels, people = _choose(np.array([readable_name(name) for name in names])[numbers], settings, root)
    files = [files[position] for position in chosen]
    return open_images(face_decoder(files, points, input_shape, settings.resize), len(files)), labels, people


def _people(root: pathlib.Path) -> tuple[str, ...]:
    """The names of the folders in `root`."""
    if not root.is_dir():
        raise _no_faces(root, "it is no folder" if root.exists() else "there is no such folder")
    try:
        return class_folders(root)
    except UsageError as error:
        raise _no_faces(root, "it holds fewer than two folders") from error


def _no_faces(root: pathlib.Path, problem: str) -> UsageError:
    return UsageError(
        f"faces:{root}: {problem}; expected {root}/NAME/IMAGE.jpg, one folder per person, or *.tfrecord files of "
        "aligned crops (unpack other archives, such as .rec or .zip, into such folders)"
    )


def _choose(
    identities: np.ndarray, settings: FaceSettings, root: pathlib.Path
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Returns the positions of the images to read, their labels, and the names of the people by label."""
    names, numbers, counts = np.unique(identities, return_inverse=True, return_counts=True)
    selected = counts >= settings.min_images
    if settings.keep is not None:
        selected &= np.isin(names, list(settings.keep))
    selected &= ~np.isin(names, list(settings.leave_out))
    if selected.sum() < 2:
        raise UsageError(
            f"faces:{root} has {len(names)} people, but {selected.sum()} of them remain with at least "
            f"{settings.min_images} images each and among those to keep; two are needed"
        )
    if not selected.all():
        progress.say(f"faces:{root}: {selected.sum()} of {len(names)} people, {counts[selected].sum()} images")
    positions = np.flatnonzero(selected[numbers])
    labels = (np.cumsum(selected) - 1)[numbers[positions]]
    return positions, labels.astype(np.int32), tuple(str(name) for name in names[selected])
