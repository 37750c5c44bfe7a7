"""The selection set: the same images with their labels, in whatever order batches are asked for, and little memory."""

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import data
from dcp_tf.data.image_split import make_image_split
from dcp_tf.data.pixel_sources import StreamSource
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.selection_images import SelectionImages

COUNT, SHAPE = 23, (4, 4, 1)
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
LABELS = (np.arange(COUNT) % 3).astype(np.int32)
BYTES = 4 * 4 * 4


def streamed(counted):
    def read(key):
        def one(k):
            counted.append(int(k))
            return PIXELS[k]

        return tf.numpy_function(one, [key], tf.uint8)

    source = StreamSource(read, np.arange(COUNT), SHAPE)
    raw = data.find_normalization("raw")
    return make_image_split(source, LABELS, input_shape=None, normalization=raw, augmentation="none")


def pipeline():
    return data.as_split(tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).batch(5))


SPLITS = {
    "plain": lambda: data.make_array_split(PIXELS, LABELS),
    "images": lambda: data.split_from_arrays(PIXELS, LABELS, normalization="raw"),
    "streamed": lambda: streamed([]),
    "pipeline": pipeline,
}


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize(("memory", "disk"), [(2**20, 0), (0, 2**20), (0, 0)])
def test_batches_are_the_same_whenever_they_are_asked_for(kind, memory, disk, tmp_path):
    cache = Cache(memory, disk, tmp_path)
    images = SelectionImages(SPLITS[kind](), 14, 4, 0, None, cache)
    assert (len(images), images.total) == (4, 14)
    first = [images[i][0].numpy() for i in range(4)]
    for index in (2, 3, 0, 3, 3, 1):
        np.testing.assert_array_equal(images[index][0], first[index])
    seen, labels = np.concatenate(first), np.concatenate(images.labels)
    assert sorted(np.bincount(labels)) == [4, 5, 5]
    for image, label in zip(seen, labels, strict=True):
        assert LABELS[(image == PIXELS).all((1, 2, 3))].tolist() == [label]
    with pytest.raises(IndexError):
        images[4]
    images.close()
    assert cache.memory.used == cache.disk.used == 0


def test_what_lies_in_memory_is_not_kept_again():
    cache = Cache(2**20, 2**20)
    for kind in ("plain", "images"):
        SelectionImages(SPLITS[kind](), 14, 4, 0, None, cache)
        assert cache.memory.used == cache.disk.used == 0


@pytest.mark.parametrize(("memory", "disk", "times"), [(0, 2**20, 1), (2 * 14 * BYTES, 0, 1), (14 * BYTES, 0, 3)])
def test_what_is_decoded_is_decoded_once_where_there_is_room(memory, disk, times, tmp_path):
    counted = []
    images = SelectionImages(streamed(counted), 14, 14, 0, None, Cache(memory, disk, tmp_path))
    for _ in range(2):
        images._last = (-1, [])
        images[0]
    assert len(counted) == times * 14


def test_labels_that_are_missing_come_from_the_teacher():
    images = SelectionImages(data.make_array_split(PIXELS), 10, 4, 0, lambda x: x[:, 0, 0, 0], Cache(0))
    for index, labels in enumerate(images.labels):
        np.testing.assert_array_equal(labels, images[index][0][:, 0, 0, 0])
