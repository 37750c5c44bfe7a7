import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import data
from dcp_tf.errors import UsageError


def convert(images, shape):
    split = data.split_from_arrays(images, input_shape=shape)
    assert split.shape == tuple(split.batches(2).element_spec.shape[1:])
    return split.batches(len(images)).as_numpy_iterator().next()


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)


def test_without_an_input_shape_images_keep_their_size(rgb):
    assert convert(rgb, None).shape == (3, 12, 10, 3)
    assert convert(rgb, (None, None, 3)).shape == (3, 12, 10, 3)
    assert data.load("digits").input_shape == (8, 8, 1)


def test_gray_becomes_three_equal_channels(rgb):
    got = convert(rgb[..., :1], (12, 10, 3))
    for channel in range(3):
        np.testing.assert_allclose(got[..., channel], rgb[..., 0] / 255, rtol=1e-6)


def test_color_becomes_luminance(rgb):
    got = convert(rgb, (12, 10, 1))
    np.testing.assert_allclose(got[..., 0], rgb / 255 @ [0.2989, 0.587, 0.114], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 20), (6, 5), (12, 5), (24, 5)])
def test_resizing_is_bilinear_and_antialiased_when_shrinking(rgb, size):
    expected = tf.image.resize(rgb / np.float32(255), size, antialias=True)
    np.testing.assert_allclose(convert(rgb, (*size, 3)), expected, atol=1e-5)


def test_shrinking_keeps_the_mean_of_a_checkerboard():
    board = np.indices((16, 16)).sum(0)[None, ..., None] % 2 * np.uint8(255)
    np.testing.assert_allclose(convert(board, (4, 4, 1))[0, 1:-1, 1:-1], 0.5, atol=0.02)


def test_other_channel_counts_are_refused_with_both_shapes(rgb):
    with pytest.raises(UsageError, match=r"\(12, 10, 3\) cannot become \(12, 10, 4\)"):
        convert(rgb, (12, 10, 4))


def test_a_model_without_image_inputs_is_refused(rgb):
    with pytest.raises(UsageError, match=r"takes no .height, width, channels. images.*\(64,\)"):
        convert(rgb, (64,))


def test_channels_that_come_first_are_suspected():
    images = np.zeros((2, 3, 12, 10), np.uint8)
    with pytest.raises(UsageError, match=r"are the channels first\? numpy\.moveaxis"):
        data.from_arrays(images, test_images=images, input_shape=(12, 10, 3))
