"""Several views of few images: the image itself, crops of it, and a held-out part that shares no image."""

import numpy as np
import pytest
import tensorflow as tf

from dcp_tf import data
from dcp_tf.data.cropped_split import views_per_image, with_crops

SIZE, VIEWS = 30, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE, 40, 48, 3), dtype=np.uint8)
LABELS = (np.arange(SIZE) % 5).astype(np.int32)


def decoded():
    return data.as_split(tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).batch(7))


@pytest.fixture(scope="module")
def views():
    return with_crops(data.make_array_split(PIXELS, LABELS), VIEWS, 0)


def test_the_first_view_is_the_image_and_the_others_are_not(views):
    np.testing.assert_array_equal(views.read(np.arange(SIZE)), PIXELS.astype("float32"))
    for view in range(1, VIEWS):
        crops = views.read(np.arange(SIZE) + view * SIZE).numpy()
        assert crops.shape == PIXELS.shape
        assert crops.min() >= 0
        assert crops.max() <= 255
        assert (np.abs(crops - PIXELS).reshape(SIZE, -1).max(1) > 1).all()


def test_a_crop_shows_a_part_of_its_image():
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32)[None, :, None], (64, 1, 1))
    crops = with_crops(data.make_array_split(np.stack([ramp] * 200)), 2, 1).read(np.arange(200, 400)).numpy()
    steps = np.diff(crops[:, 0, :, 0], axis=1)
    mirrored = (steps < 0).all(1)
    assert ((steps > 0).all(1) | mirrored).all()
    assert 60 < mirrored.sum() < 140
    width = np.ptp(crops[:, 0, :, 0], axis=1)
    assert 0.5 < width.min() < width.max() <= 1 + 1e-6


def test_labels_and_positions_belong_together(views):
    assert views.labels.tolist() == LABELS.tolist() * VIEWS
    assert views.size == SIZE * VIEWS
    mixed_batch = np.array([3, 3 + SIZE, 7, 3 + 2 * SIZE])
    alone = np.concatenate([views.read(mixed_batch[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(views.read(mixed_batch), alone, atol=1e-4)


def test_data_that_must_be_decoded_gives_the_same_views(views):
    everything = np.arange(SIZE * VIEWS)
    np.testing.assert_array_equal(with_crops(decoded(), VIEWS, 0).read(everything), views.read(everything))


def test_a_pipeline_that_shuffles_keeps_images_and_labels_together():
    pipeline = tf.data.Dataset.from_tensor_slices((PIXELS, LABELS)).shuffle(SIZE, seed=1).batch(7)
    shuffled = with_crops(data.as_split(pipeline), 2, 0)
    for image, label in zip(shuffled.read(np.arange(SIZE)).numpy(), shuffled.labels, strict=False):
        assert LABELS[(image == PIXELS).all((1, 2, 3))].tolist() == [label]


def test_a_part_has_each_class_equally_often(views):
    chosen = views.balanced_subset(50, 3)
    assert len(set(chosen.tolist())) == 50
    assert set(chosen.tolist()) <= set(range(SIZE * VIEWS))
    assert np.ptp(np.bincount(views.labels[chosen])) <= 1


def test_held_out_images_are_seen_in_no_view_before(views):
    order = views.mixed(views.balanced_subset(10**6), np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(SIZE * VIEWS))
    last = SIZE // 10 * VIEWS
    assert not set(order[:-last] % SIZE) & set(order[-last:] % SIZE)
    assert len(set(order[-last:] % SIZE)) == SIZE // 10


def test_two_parts_share_no_image(views):
    parts = views.split(0.8, 0)
    assert [part.size for part in parts] == [24 * VIEWS, 6 * VIEWS]
    pixels, labels = next(parts[0].batches(1000))
    assert np.ptp(np.bincount(labels)) <= VIEWS
    originals = [{p.tobytes() for p in np.asarray(part.read(np.arange(part.size // VIEWS)))} for part in parts]
    assert [len(images) for images in originals] == [24, 6]
    assert not originals[0] & originals[1]
    every_view = {p.tobytes() for p in np.asarray(views.read(np.arange(views.size)))}
    assert {p.tobytes() for p in pixels.numpy()} <= every_view


@pytest.mark.parametrize(
    ("shape", "size", "views"),
    [
        ((96, 96, 3), 256, 16),
        ((96, 96, 3), 1000, 4),
        ((96, 96, 3), 4096, 1),
        ((224, 224, 3), 700, 1),
        ((32, 32, 1), 10, 16),
        ((8, 8, 1), 100, 1),
        ((3, 64, 64), 100, 1),
        ((64, 64), 100, 1),
        ((100,), 100, 1),
        ((None, None, 3), 100, 1),
    ],
)
def test_only_few_small_images_get_more_views(shape, size, views):
    class Sized:
        pass

    split = Sized()
    split.shape, split.size = shape, size
    assert views_per_image(split, 4096) == views
