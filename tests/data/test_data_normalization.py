import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
UNIT = PIXELS / 255.0

# What each name means, written down once more in NumPy.
EXPECTED = {
    "none": UNIT,
    "unit": UNIT,
    "raw": PIXELS.astype(np.float64),
    "digits": (UNIT - 0.3053) / 0.3761,
    "cifar10": (UNIT - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616],
    "cifar100": (UNIT - [0.5071, 0.4865, 0.4409]) / [0.2673, 0.2564, 0.2762],
    "face": (PIXELS - 127.5) / 128.0,
    "imagenet": (UNIT - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "tf": PIXELS / 127.5 - 1.0,
    "caffe": PIXELS[..., ::-1] - np.array([103.939, 116.779, 123.68]),
}


def batch(images, **kwargs):
    return data.split_from_arrays(images, **kwargs).batches(len(images)).as_numpy_iterator().next()


def test_every_normalization_has_an_expectation():
    assert set(EXPECTED) == set(data.NORMALIZATIONS)


@pytest.mark.parametrize("name", EXPECTED)
def test_integer_pixels_are_normalized_as_numpy_does(name):
    np.testing.assert_allclose(batch(PIXELS, normalization=name), EXPECTED[name], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_floats_give_the_same_where_their_scale_is_the_expected_one(name):
    floats = (PIXELS if name in ("unit", "raw") else UNIT).astype(np.float32)
    np.testing.assert_allclose(batch(floats, normalization=name), EXPECTED[name], rtol=1e-5, atol=2e-5)


def test_raw_pixels_stay_whole_numbers():
    np.testing.assert_array_equal(batch(PIXELS, normalization="raw"), PIXELS)


def test_none_leaves_floats_alone():
    floats = np.random.default_rng(1).normal(0, 50, (3, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(batch(floats), floats)


def test_mean_and_std_hold_for_pixels_of_0_to_1():
    got = batch(PIXELS, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    np.testing.assert_allclose(got, (UNIT - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batch(PIXELS, mean=[0.5], std=[0.25]), (UNIT - 0.5) / 0.25, rtol=1e-5, atol=1e-6)


def test_caffe_agrees_with_keras():
    import keras

    expected = keras.applications.imagenet_utils.preprocess_input(PIXELS.astype(np.float32), mode="caffe")
    np.testing.assert_allclose(batch(PIXELS, normalization="caffe"), expected, rtol=1e-5, atol=2e-5)


def test_digits_become_zero_mean_unit_variance():
    train = data.load("digits", normalization="digits").train
    images = train.representative(train.size)
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02
    plain = data.load("digits").train.representative(train.size)
    assert (plain.min(), plain.max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"normalization": "imagnet"}, "unknown normalization 'imagnet'.*imagenet"),
        ({"normalization": "tf", "mean": [0.5], "std": [0.5]}, "not both"),
        ({"mean": [0.5]}, "go together"),
        ({"mean": [0.1, 0.2], "std": [1, 1, 1]}, "one per channel"),
        ({"mean": [0.5], "std": [0.0]}, "above 0"),
        ({"mean": [float("nan")], "std": [1.0]}, "finite"),
        ({"mean": [0.1, 0.2], "std": [1.0, 1.0]}, "values for 2 channels, but the images have 3"),
    ],
)
def test_what_is_no_normalization_is_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        data.split_from_arrays(PIXELS, **kwargs)


@pytest.mark.parametrize("name", ["imagenet", "caffe", "cifar10"])
def test_color_values_are_refused_for_gray_images(name):
    with pytest.raises(UsageError, match="3 channels, but the images have 1"):
        data.load("digits", normalization=name)


@pytest.mark.parametrize("name", ["tf", "imagenet", "caffe", "cifar10", "digits"])
def test_floats_of_0_to_255_are_refused_where_0_to_1_is_meant(name):
    with pytest.raises(UsageError, match="between 0 and 1, received 0 to 255"):
        data.split_from_arrays(PIXELS.astype(np.float32), normalization=name)


@pytest.mark.parametrize("name", ["unit", "raw"])
def test_floats_of_0_to_1_are_refused_where_0_to_255_is_meant(name):
    with pytest.raises(UsageError, match="none is above 1"):
        data.split_from_arrays(UNIT, normalization=name)
