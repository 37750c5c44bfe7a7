"""A number by which a resumed run knows the images that it began with."""

import zlib

import numpy as np

from dcp_tf.data.readable import Readable
from dcp_tf.data.stream import DatasetSplit

_IMAGES = 8


def digest(split: Readable) -> int:
    """CRC-32 of the labels, of the first images as the model gets them, and of how they are augmented.

    The order of a `tf.data.Dataset` may change from pass to pass, so of one only the number of images and how often
    each label is there count.

    Args:
        split: the images.
    """
    labels = np.zeros(0) if split.labels is None else np.asarray(split.labels)
    if isinstance(split, DatasetSplit):
        return zlib.crc32(np.sort(labels, axis=0).tobytes(), split.size)
    images = next(iter(split.batches(min(_IMAGES, split.size))))
    images = images[0] if isinstance(images, tuple) else images
    found = zlib.crc32(labels.tobytes(), split.size)
    found = zlib.crc32(np.asarray(images).tobytes(), found)
    return zlib.crc32(str(getattr(split, "augmentation", "")).encode(), found)
