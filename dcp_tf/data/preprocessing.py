"""Vectorized work on batches of images: size, channels, random crops and mirror images."""

import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError

Shape = tuple[int, int, int]


def output_shape(source: Shape, model_shape: tuple[int | None, ...] | None) -> Shape:
    """Returns the (H, W, C) that images of shape `source` get for a model of this input shape.

    None, as a whole or for one dimension, keeps what the images have.

    Raises:
        UsageError: `model_shape` is no image shape, or the channels cannot be converted.
    """
    if model_shape is None:
        return source
    if len(model_shape) != 3:
        raise UsageError(
            f"the model takes no (height, width, channels) images: its input shape is {tuple(model_shape)}"
        )
    height, width, channels = (have if want is None else want for have, want in zip(source, model_shape, strict=True))
    if channels != source[2] and {channels, source[2]} != {1, 3}:
        hint = "; are the channels first? numpy.moveaxis(x, 1, -1) puts them last" if source[0] == channels else ""
        raise UsageError(
            f"images of shape {source} cannot become {tuple(model_shape)}: only 1 and 3 channels are converted to each "
            f"other{hint}"
        )
    return height, width, channels


def decoded_shape(model_shape: tuple[int | None, ...] | None, size: tuple[int, int], gray: bool = False) -> Shape:
    """The (H, W, C) to which image files are decoded: the model's, else `size` (H, W) and 1 or 3 channels."""
    is_image = model_shape is not None and len(model_shape) == 3
    height, width, channels = model_shape if is_image else (None, None, None)
    return height or size[0], width or size[1], channels if channels in (1, 3) else 1 if gray else 3


def to_shape(images: tf.Tensor, shape: Shape) -> tf.Tensor:
    """Converts channels and resizes (bilinear, antialiased when shrinking) where the shape differs.

    Args:
        images: (B, h, w, c) of any number type; c is static.
        shape: the (H, W, C) of the result.

    Returns:
        (B, H, W, C) of float32, on the scale of the input.
    """
    images = tf.cast(images, tf.float32)
    height, width, channels = images.shape[1:]
    if channels == 3 and shape[2] == 1:
        images = tf.image.rgb_to_grayscale(images)
    if (height, width) != shape[:2]:
        # Antialiasing changes nothing where images grow, it only costs time; of unknown sizes any may shrink.
        shrinks = None in (height, width) or shape[0] < height or shape[1] < width
        images = tf.image.resize(images, shape[:2], method="bilinear", antialias=shrinks)
    if channels == 1 and shape[2] == 3:
        images = tf.repeat(images, 3, axis=-1)
    return images


# Mirroring suits only images whose mirror image has the same class: not digits, letters or traffic signs. So images
# of unknown kind are only shifted. Aligned faces are only mirrored: a shift would undo the alignment. "crop" needs the
# uncropped photographs, see `pixel_sources.CroppingSource`.
_SHIFTED, _MIRRORED = ("shift", "flip"), ("flip", "mirror", "crop")


def padding(shape: Shape) -> tuple[int, int]:
    """The largest shift of an image in pixels, vertical and horizontal: an eighth of its size."""
    return max(1, shape[0] // 8), max(1, shape[1] // 8)


def draw_crops(size: int, shape: Shape, augmentation: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the crop position of each of `size` images, and whether it is mirrored.

    Returns:
        The corners, (size, 2) of int32 in the padded image, and the mirror flags, (size,) of bool.
    """
    margins = np.array(padding(shape))
    if augmentation in _SHIFTED:
        corners = rng.integers(0, 2 * margins + 1, size=(size, 2), dtype=np.int32)
    else:
        corners = np.tile(margins.astype(np.int32), (size, 1))
    flips = rng.random(size) < 0.5 if augmentation in _MIRRORED else np.zeros(size, bool)
    return corners, flips


def crop_and_flip(images: tf.Tensor, corners: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
    """Pads with black, crops the original size at `corners`, and mirrors the images that `flips` marks.

    Args:
        images: (B, H, W, C) with static H, W, C.
        corners: (B, 2) of int32: the top and left edge in the padded image.
        flips: (B,) of bool.

    Returns:
        (B, H, W, C).
    """
    height, width, _ = shape = images.shape[1:]
    rows, columns = padding(shape)
    images = tf.pad(images, [[0, 0], [rows, rows], [columns, columns], [0, 0]])
    take_rows = corners[:, :1] + tf.range(height)
    left_to_right = tf.range(width)
    take_columns = corners[:, 1:] + tf.where(flips[:, None], width - 1 - left_to_right, left_to_right)
    images = tf.gather(images, take_rows, axis=1, batch_dims=1)
    return tf.gather(images, take_columns, axis=2, batch_dims=1)
