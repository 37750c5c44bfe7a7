"""A checksum of a model's weights."""

import zlib

import keras


def weights_digest(model: keras.Model, start: int = 0) -> int:
    """The CRC-32 of all weights, which identifies the model that a stopped run began with.

    Args:
        model: any Keras model.
        start: the CRC-32 of what else belongs to the digest.
    """
    for weight in model.weights:
        start = zlib.crc32(keras.ops.convert_to_numpy(weight).tobytes(), start)
    return start
