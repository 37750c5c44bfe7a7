import numpy as np
import tensorflow as tf

from dcp_tf.data import as_split, digest

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.random((20, 4, 4, 3)).astype("float32"), np.arange(20) % 3


def test_equal_data_have_equal_digests_and_other_data_others():
    first = digest(as_split((IMAGES, LABELS)))
    assert first == digest(as_split((IMAGES.copy(), LABELS.copy())))
    assert first != digest(as_split((1 - IMAGES, LABELS)))
    assert first != digest(as_split((IMAGES, 2 - LABELS)))
    assert first != digest(as_split((IMAGES[:19], LABELS[:19])))


def test_data_without_labels_and_images_of_other_shapes_have_one():
    assert digest(as_split(IMAGES)) != digest(as_split(IMAGES * 0.5))
    rows = RNG.random((9, 7)).astype("float32")
    assert digest(as_split((rows, np.arange(9) % 2))) != digest(as_split((rows + 1, np.arange(9) % 2)))


def test_a_pipeline_that_shuffles_keeps_its_digest():
    pipeline = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(20).batch(5)
    assert digest(as_split(pipeline)) == digest(as_split(pipeline))
