"""Photographs of many sizes, read as in the ILSVRC-12 papers: random crops for training, central crops for tests."""

import tensorflow as tf

# The part of the shorter side that remains: 224 pixels after a resize to 256 (Krizhevsky et al. 2012, He et al. 2016).
_CENTRAL_SHARE = 224 / 256
# Random crops as in Szegedy et al. 2015: the fraction of the area that they keep, and the range of aspect ratios.
_AREA = (0.08, 1.0)
_STRETCH = 4 / 3
_TRIES = 10


def central_crop(encoded: tf.Tensor, size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes the middle of an image: 7/8 of the largest window that has the proportions of `size`.

    Args:
        encoded: a JPEG, PNG, GIF or BMP file, a scalar string.
        size: (H, W) of the result, to which the window is resized.
        channels: 1 or 3.

    Returns:
        (H, W, channels) of uint8.
    """
    height, width = _image_size(encoded)
    scale = _CENTRAL_SHARE * tf.minimum(height / size[0], width / size[1])
    window = tf.minimum(_rounded(scale * size[0]), _whole(height)), tf.minimum(_rounded(scale * size[1]), _whole(width))
    corner = (_whole(height) - window[0]) // 2, (_whole(width) - window[1]) // 2
    return _cut(encoded, corner, window, size, channels)


def random_crop(encoded: tf.Tensor, seed: tf.Tensor, size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes a random window of an image: 8 to 100% of its area, stretched by up to 4/3 (Szegedy et al. 2015).

    Takes the first of ten random windows that fits into the image; if none fits, the largest central window within the
    limits of stretching.

    Args:
        encoded: as in `central_crop`.
        seed: (2,) integers; the same seed gives the same window.
        size: as in `central_crop`.
        channels: as in `central_crop`.

    Returns:
        (H, W, channels) of uint8.
    """
    height, width = _image_size(encoded)
    area, stretch, *position = tf.unstack(tf.random.stateless_uniform((_TRIES, 4), seed), axis=1)
    area = (_AREA[0] + area * (_AREA[1] - _AREA[0])) * height * width
    proportion = size[1] / size[0] * tf.pow(_STRETCH, 2.0 * stretch - 1.0)
    heights, widths = _rounded(tf.sqrt(area / proportion)), _rounded(tf.sqrt(area * proportion))
    fits = (heights <= _whole(height)) & (widths <= _whole(width))
    first = tf.argmax(fits)
    room = _whole(height) - heights[first], _whole(width) - widths[first]
    drawn = [tf.cast(p[first] * tf.cast(r + 1, tf.float32), tf.int32) for p, r in zip(position, room, strict=True)]

    limit = size[1] / size[0] * _STRETCH, size[1] / size[0] / _STRETCH
    widest, highest = _rounded(tf.minimum(width, height * limit[0])), _rounded(tf.minimum(height, width / limit[1]))
    middle = (_whole(height) - highest) // 2, (_whole(width) - widest) // 2

    any_fits = tf.reduce_any(fits)
    window = tf.where(any_fits, heights[first], highest), tf.where(any_fits, widths[first], widest)
    corner = tf.where(any_fits, drawn[0], middle[0]), tf.where(any_fits, drawn[1], middle[1])
    return _cut(encoded, corner, window, size, channels)


def _image_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width as floats; of a JPEG only the header is read."""
    shape = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded),
        lambda: tf.shape(tf.io.decode_image(encoded, expand_animations=False)),
    )
    return tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)


def _cut(encoded: tf.Tensor, corner, window, size: tuple[int, int], channels: int) -> tf.Tensor:
    """Decodes one window; of a JPEG only the blocks inside it."""

    def from_any() -> tf.Tensor:
        pixels = tf.io.decode_image(encoded, channels, expand_animations=False)
        return pixels[corner[0] : corner[0] + window[0], corner[1] : corner[1] + window[1]]

    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_and_crop_jpeg(encoded, tf.stack([*corner, *window]), channels),
        from_any,
    )
    resized = tf.image.resize(pixels, size, method="bilinear", antialias=True)
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8), (*size, channels))


def _rounded(values: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1, tf.cast(tf.round(values), tf.int32))


def _whole(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)
