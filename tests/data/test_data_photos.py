"""Photographs of many sizes: central crops to measure on, random ones to learn from, and whole data sets of them."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tfds_mock_sets import write_mock_set

from dcp_tf import data
from dcp_tf.data import pixel_sources
from dcp_tf.data.photos import central_crop, random_crop
from dcp_tf.errors import UsageError


def encode(pixels, kind):
    buffer = io.BytesIO()
    # Full color resolution: TensorFlow blurs coarser colors a little otherwise where it decodes a window alone.
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 100, "subsampling": 0} if kind == "jpeg" else {}))
    return tf.constant(buffer.getvalue())


def ramp(height, width):
    """An image whose red and green say where a pixel lies: column and row."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)


def edges(crop):
    """Top, left, bottom, right of the window that a crop of a ramp shows."""
    return crop[0, 0, 1], crop[0, 0, 0], crop[-1, -1, 1] + 1.0, crop[-1, -1, 0] + 1.0


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp"])
@pytest.mark.parametrize(("height", "width"), [(160, 240), (240, 160), (64, 64), (9, 200)])
def test_the_central_crop_is_seven_eighths_of_the_shorter_side(kind, height, width):
    encoded = encode(ramp(height, width), kind)
    pixels = tf.io.decode_image(encoded, 3).numpy()
    side = round(min(height, width) * 7 / 8)
    top, left = (height - side) // 2, (width - side) // 2
    window = pixels[top : top + side, left : left + side]
    expected = np.round(tf.image.resize(window, (32, 32), antialias=True))
    np.testing.assert_allclose(central_crop(encoded, (32, 32), 3), expected, atol=1)


def test_the_central_crop_has_the_proportions_of_what_is_wanted():
    top, left, bottom, right = edges(central_crop(encode(ramp(200, 200), "png"), (56, 28), 3).numpy().astype(float))
    assert bottom - top == pytest.approx(175, abs=3)
    assert right - left == pytest.approx(87.5, abs=4)
    assert (top + bottom) / 2 == pytest.approx(100, abs=1)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_random_crops_stay_within_the_limits_and_differ(kind):
    height, width, encoded = 200, 250, encode(ramp(200, 250), kind)
    crops = [random_crop(encoded, (3, number), (64, 64), 3).numpy().astype(float) for number in range(60)]
    windows = np.array([edges(crop) for crop in crops])
    heights, widths = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    area, stretch = heights * widths / (height * width), widths / heights
    slack = 0.12  # the outermost pixels of the crop show the middle of what they cover; JPEG adds some noise
    assert area.min() > 0.08 * (1 - slack)
    assert area.min() < 0.3
    assert area.max() > 0.6
    assert stretch.min() > 3 / 4 * (1 - slack)
    assert stretch.max() < 4 / 3 * (1 + slack)
    assert stretch.min() < 0.9 < 1.1 < stretch.max()
    assert windows[:, 0].min() < 10
    assert windows[:, 3].max() > width - 10


def test_the_same_seed_gives_the_same_crop():
    encoded = encode(ramp(60, 80), "jpeg")
    first, again = (random_crop(encoded, (1, 2), (16, 16), 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    for other in ((1, 3), (2, 2)):
        assert (random_crop(encoded, other, (16, 16), 3) != first).numpy().any()


def test_where_no_window_fits_the_middle_is_taken():
    top, left, bottom, right = edges(random_crop(encode(ramp(4, 250), "png"), (0, 0), (4, 4), 3).numpy().astype(float))
    assert (top, bottom) == (0, 4)
    assert right - left <= 4 * 4 / 3 + 1
    assert (left + right) / 2 == pytest.approx(125, abs=1.5)


def test_gray_and_colored_photographs_become_what_the_network_takes():
    color, gray = encode(ramp(20, 30), "png"), encode(ramp(20, 30)[..., 0], "jpeg")
    assert central_crop(color, (8, 8), 1).shape == (8, 8, 1)
    assert random_crop(gray, (0, 0), (8, 8), 3).shape == (8, 8, 3)


@pytest.fixture(scope="module")
def mock_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    write_mock_set(root, "imagenet2012", {"train": 8, "validation": 4})
    write_mock_set(root, "cifar100", {"train": 8, "test": 4})
    return str(root)


def read(split, **kwargs):
    images, labels = zip(*split.batches(3, **kwargs).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_imagenet_is_read_as_the_papers_do(mock_root, monkeypatch):
    arguments = {"data_dir": mock_root, "input_shape": (32, 32, 3), "normalization": "imagenet"}
    loaded = data.load("tfds:imagenet2012", **arguments)
    assert (loaded.train.size, loaded.test.size, loaded.num_classes) == (8, 4, 1000)
    assert loaded.train.augmentation == "crop"
    plain, labels = read(loaded.train)
    assert plain.shape == (8, 32, 32, 3)
    augmented, same_labels = read(loaded.train, augment=True, seed=1, epoch=2)
    np.testing.assert_array_equal(labels, same_labels)
    assert all((a != b).any() for a, b in zip(plain, augmented, strict=True))
    # A photograph is cut alike in every batch of one epoch, streamed or not, and otherwise in the next epoch.
    part, _ = read(loaded.train, indices=[5, 1], augment=True, seed=1, epoch=2)
    np.testing.assert_array_equal(part, augmented[[5, 1]])
    assert (read(loaded.train, augment=True, seed=1, epoch=3)[0] != augmented).any()
    monkeypatch.setattr(pixel_sources, "MEMORY_LIMIT", 10)
    streamed = data.load("tfds:imagenet2012", **arguments)
    np.testing.assert_array_equal(read(streamed.train)[0], plain)
    np.testing.assert_array_equal(read(streamed.train, augment=True, seed=1, epoch=2)[0], augmented)
    subset = loaded.train.take([2, 7])
    np.testing.assert_array_equal(read(subset)[0], plain[[2, 7]])


def test_cifar100_is_padded_cropped_and_flipped(mock_root):
    loaded = data.load("tfds:cifar100", data_dir=mock_root, normalization="cifar100")
    assert (loaded.input_shape, loaded.num_classes, loaded.train.augmentation) == ((32, 32, 3), 100, "flip")
    with pytest.raises(UsageError, match=r"'crop' cuts photographs of many sizes.*tfds:imagenet2012"):
        data.load("tfds:cifar100", data_dir=mock_root, augmentation="crop")


def test_sets_that_must_be_fetched_by_hand_say_how(tmp_path):
    with pytest.raises(UsageError, match=r"downloads/manual should contain two files: ILSVRC2012_img_train\.tar") as e:
        data.load("tfds:imagenet2012", data_dir=str(tmp_path), input_shape=(32, 32, 3))
    assert "register on https://image-net.org" in str(e.value)
    assert "data_dir" in str(e.value)
    assert "\n" not in str(e.value)
