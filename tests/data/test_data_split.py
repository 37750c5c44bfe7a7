"""Images, arrays of any shape and pipelines are read alike: what works with one of them works with all."""

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import data
from dcp_tf.data.data_split import DataSplit
from dcp_tf.errors import UsageError

INPUTS = np.random.default_rng(0).random((10, 4, 4, 1)).astype("float32")
LABELS = (np.arange(10) % 2).astype("int32")
SPLITS = {
    "images": data.split_from_arrays(INPUTS, LABELS),
    "arrays": data.make_array_split(INPUTS, LABELS),
    "pipeline": data.as_split(tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(3)),
}


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_all_have_the_one_way_to_read_batches(split):
    assert isinstance(split, DataSplit)
    assert type(split).batches is DataSplit.batches
    with pytest.raises(UsageError, match="batch size must be at least 1"):
        split.batches(0)


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_all_give_the_same_inputs_and_labels(split):
    assert split.size == 10
    assert split.shape == (4, 4, 1)
    np.testing.assert_array_equal(split.labels, LABELS)
    images, labels = (np.concatenate(part) for part in zip(*split.batches(4).as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(images, INPUTS)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(split.balanced_subset(4, 1), SPLITS["images"].balanced_subset(4, 1))


@pytest.mark.parametrize(
    ("shape", "images"),
    [((32, 32, 3), 256), ((7,), 256), ((224, 224, 3), 27), ((None, None, 3), 256), ((4096, 4096), 8)],
)
def test_large_images_are_measured_a_few_at_a_time(shape, images):
    assert data.images_per_measurement(shape) == images


PHOTOS, CLASSES = np.random.default_rng(0).random((20, 4, 4, 3)).astype("float32"), np.arange(20) % 3


def test_equal_data_have_equal_digests_and_other_data_others():
    first = data.digest(data.as_split((PHOTOS, CLASSES)))
    assert first == data.digest(data.as_split((PHOTOS.copy(), CLASSES.copy())))
    assert first != data.digest(data.as_split((1 - PHOTOS, CLASSES)))
    assert first != data.digest(data.as_split((PHOTOS, 2 - CLASSES)))
    assert first != data.digest(data.as_split((PHOTOS[:19], CLASSES[:19])))


def test_data_without_labels_and_images_of_other_shapes_have_one():
    assert data.digest(data.as_split(PHOTOS)) != data.digest(data.as_split(PHOTOS * 0.5))
    rows = np.random.default_rng(0).random((9, 7)).astype("float32")
    digests = [data.digest(data.as_split((x, np.arange(9) % 2))) for x in (rows, rows + 1)]
    assert digests[0] != digests[1]


def test_a_pipeline_that_shuffles_keeps_its_digest():
    pipeline = tf.data.Dataset.from_tensor_slices((PHOTOS, CLASSES)).shuffle(20).batch(5)
    assert data.digest(data.as_split(pipeline)) == data.digest(data.as_split(pipeline))
