"""Pairs of faces, same person or not, as the benchmarks of face verification list them."""

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np

from dcp_tf.data.faces.alignment import absolute, read_landmarks
from dcp_tf.data.faces.identities import face_decoder
from dcp_tf.data.faces.pair_lists import PROTOCOLS, find_images, list_pairs
from dcp_tf.data.folder import open_images
from dcp_tf.data.image_split import ImageSplit, make_image_split
from dcp_tf.errors import UsageError
from dcp_tf.settings.normalization import Normalization, find_normalization


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images in folds.

    Attributes:
        files: the images, each once, sorted.
        left: (P,) of int64, positions in `files`.
        right: (P,) of int64.
        same: (P,) of bool, whether both show the same person.
        fold: (P,) of int64, from 1.
        identities: who each file shows, or None if the list does not say.
        name: of the benchmark.
    """

    files: tuple[str, ...]
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    identities: tuple[str, ...] | None = None
    name: str = "pairs"

    @property
    def size(self) -> int:
        """How many pairs there are."""
        return len(self.same)

    def people(self, folds: Iterable[int]) -> frozenset[str]:
        """Who is shown in some folds, for `FaceSettings.keep` and `leave_out`.

        Raises:
            UsageError: there is no such fold, or the list does not name people.
        """
        if self.identities is None:
            raise UsageError(f"the list of {self.name} does not say whom the images show")
        chosen = self._in_folds(folds)
        return frozenset(self.identities[i] for i in np.concatenate([self.left[chosen], self.right[chosen]]))

    def take_folds(self, folds: Iterable[int]) -> "Pairs":
        """Returns the pairs of some folds alone, with the files that they need."""
        chosen = self._in_folds(folds)
        used, positions = np.unique(np.concatenate([self.left[chosen], self.right[chosen]]), return_inverse=True)
        left, right = np.split(positions, 2)
        return dataclasses.replace(
            self,
            files=tuple(self.files[i] for i in used),
            left=left,
            right=right,
            same=self.same[chosen],
            fold=self.fold[chosen],
            identities=None if self.identities is None else tuple(self.identities[i] for i in used),
        )

    def _in_folds(self, folds: Iterable[int]) -> np.ndarray:
        folds = sorted(set(folds))
        unknown = sorted(set(folds) - set(self.fold.tolist()))
        if unknown or not folds:
            raise UsageError(f"{self.name} has the folds {self.fold.min()} to {self.fold.max()}, received {folds}")
        return np.isin(self.fold, folds)


def read_pairs(path: str, root: str, protocol: str = "lfw") -> Pairs:
    """Reads the list of pairs of a benchmark.

    | protocol | list | images |
    |---|---|---|
    | `lfw` | `pairs.txt` of Labeled Faces in the Wild (Huang et al. 2007) | `ROOT/NAME/NAME_0001.jpg` |
    | `cfp_fp` | the folder `Protocol` of CFP (Sengupta et al. 2016), or a list as below | `ROOT/001/frontal/01.jpg` |
    | `agedb_30` | lines `IMAGE1 IMAGE2 1` (else `0`, `-1`), ten equal folds (Moschoglou et al. 2017) | `ROOT/IMAGE1` |

    Args:
        path: of the list.
        root: the folder of the images, which may have another suffix than the list says (aligned copies often do).
        protocol: see above.

    Raises:
        UsageError: list or images are missing or have another form; it names the benchmark and says how to get it.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol of pairs {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    listed, names_people = list_pairs(path, protocol)
    images = sorted({image for pair in listed for image in (pair.left, pair.right)})
    number = {image: position for position, image in enumerate(images)}
    return Pairs(
        find_images(root, images, protocol),
        np.array([number[pair.left] for pair in listed]),
        np.array([number[pair.right] for pair in listed]),
        np.array([pair.same for pair in listed]),
        np.array([pair.fold for pair in listed]),
        tuple(pathlib.PurePosixPath(image).parts[0] for image in images) if names_people else None,
        protocol,
    )


def pairs_split(
    pairs: Pairs,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    normalization: str | Normalization = "face",
    landmarks: str | None = None,
    resize: bool = True,
) -> ImageSplit:
    """The images of `pairs.files`, in that order, without labels: what is embedded for verification.

    Args:
        pairs: whose images.
        input_shape: the (H, W, C) that the model takes.
        normalization: as in `load`.
        landmarks: a file that names all of the images, see `read_landmarks`; None if they are aligned.
        resize: whether aligned images of another size are stretched; else they are an error.

    Raises:
        UsageError: an image cannot be read, has no landmarks, or without `resize` another size.
    """
    points = None if landmarks is None else read_landmarks(landmarks)
    files = [pathlib.Path(file) for file in pairs.files]
    if points is not None:
        missing = [file for file in files if absolute(file) not in points]
        if missing:
            raise UsageError(f"{landmarks} names no landmarks of {missing[0]} and {len(missing) - 1} more images")
    source = open_images(face_decoder(files, points, input_shape, resize), len(files))
    chosen = find_normalization(normalization)
    return make_image_split(source, None, input_shape=input_shape, normalization=chosen, augmentation="mirror")
