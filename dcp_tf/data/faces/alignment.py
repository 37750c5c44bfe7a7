"""Faces in a standard pose: five landmarks are moved to where face networks expect them."""

import os
import pathlib
import re

import numpy as np
from PIL import Image

from dcp_tf.errors import UsageError

FACE_SIZE = (112, 112)
_IMAGE_AND_TEN_VALUES = re.compile(r"(.+?)((?:[\s,]+[^\s,]+){10})")  # from the right: a path may hold spaces
# The positions of eyes, nose tip and mouth corners in an image of 112 x 112 (Deng et al. 2019,
# "ArcFace"); the template of 112 x 96 (Liu et al. 2017, "SphereFace") is the same less 8 columns on each side.
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def face_template(size: tuple[int, int] = FACE_SIZE) -> np.ndarray:
    """Returns the landmark positions of an aligned face: (5, 2) of (x, y), in pixels, for an image of `size` (H, W).

    The order is: the eye on the left side of the image, the eye on the right, the tip of the nose, the left corner of
    the mouth, the right corner. The center of the first pixel is (0, 0). The face grows with the height of the image
    and keeps to the middle of its width.
    """
    height, width = size
    scale = height / FACE_SIZE[0]
    return (_TEMPLATE - [FACE_SIZE[1] / 2, 0.0]) * scale + [width / 2, 0.0]


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Finds the rotation, scale and shift (no mirroring) that bring points closest to others (Umeyama 1991, eq. 40-43).

    Args:
        source: (N, 2).
        target: (N, 2); the sum of squared distances to these becomes as small as it can.

    Returns:
        (2, 3): a source point p goes to `matrix[:, :2] @ p + matrix[:, 2]`.

    Raises:
        UsageError: all source points are the same.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    variance = ((source - source_mean) ** 2).sum(1).mean()
    if not variance > 0:
        raise UsageError(f"landmarks that all have one position give no pose, received {source.tolist()}")
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    left, strengths, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    scale = strengths @ signs / variance
    rotation = scale * (left * signs) @ right
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def align_face(image: Image.Image, landmarks: np.ndarray, size: tuple[int, int] = FACE_SIZE) -> Image.Image:
    """Crops the face from an image, rotated and scaled so that its landmarks are at `face_template(size)`.

    Args:
        image: of any size, gray or RGB.
        landmarks: (5, 2), their positions in the image, in the order and units of `face_template`.
        size: (H, W) of the result; pixels outside `image` are black.
    """
    # In Pillow the center of a pixel is at (.5, .5).
    target, source = face_template(size) + 0.5, np.asarray(landmarks, np.float64) + 0.5
    # Bilinear sampling sees four pixels only: a face that shrinks by 2 or more is first averaged over whole blocks.
    shrinks_by = int(np.sqrt(np.abs(np.linalg.det(similarity_transform(target, source)[:, :2]))))
    if shrinks_by >= 2:
        image, source = image.reduce(shrinks_by), source / shrinks_by
    to_target = similarity_transform(source, target)
    inverse = np.linalg.inv(np.vstack([to_target, [0.0, 0.0, 1.0]]))
    coefficients = tuple(inverse[:2].ravel())
    return image.transform((size[1], size[0]), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def read_landmarks(path: str) -> dict[pathlib.Path, np.ndarray]:
    """Reads the landmark positions of images.

    The file is text with one line per image, `IMAGE x1 y1 x2 y2 x3 y3 x4 y4 x5 y5`, the values separated by white
    space or by commas, the points in the order and units of `face_template`. IMAGE is a path relative to the folder of
    the file, in which there may be spaces. Empty lines and lines that begin with `#` are left out.

    Returns:
        Arrays (5, 2) by absolute path.

    Raises:
        UsageError: the file cannot be read, or a line has another form.
    """
    file = pathlib.Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no readable file of landmarks: {error}") from error
    landmarks = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, points = _landmarks_of(line.strip())
        if not name or not np.isfinite(points).all() or not np.any(points != points[:1]):
            raise UsageError(
                f"line {number} of {file} is {line!r}, expected the path of an image and ten numbers: x and y of the "
                "left eye, the right eye, the nose, the left and the right corner of the mouth"
            )
        landmarks[absolute(file.parent / name)] = points
    if not landmarks:
        raise UsageError(f"{file} holds no landmarks")
    return landmarks


def _landmarks_of(line: str) -> tuple[str, np.ndarray]:
    """The image and the points (5, 2) of a line; an empty name if the line has another form."""
    parts = _IMAGE_AND_TEN_VALUES.fullmatch(line)
    if parts is None:
        return "", np.empty((0, 2))
    try:
        return parts[1], np.array(parts[2].replace(",", " ").split(), np.float64).reshape(5, 2)
    except ValueError:
        return "", np.empty((0, 2))


def absolute(path: str | os.PathLike) -> pathlib.Path:
    """The spelling of a path by which its landmarks are looked up."""
    return pathlib.Path(os.path.abspath(path))
