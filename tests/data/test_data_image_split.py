import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcp_tf import data
from dcp_tf.errors import UsageError


def numbered(size, height=4, width=4, channels=1):
    """Images that show their own number, with labels that count through five classes."""
    images = np.broadcast_to(np.arange(size)[:, None, None, None], (size, height, width, channels)).astype(np.float32)
    return data.split_from_arrays(images, np.arange(size) % 5)


def read(split, **kwargs):
    images, labels = zip(*split.batches(7, **kwargs).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", normalization="digits")


def test_unshuffled_batches_are_the_images_in_order():
    images, labels = read(numbered(20))
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(20))
    np.testing.assert_array_equal(labels, np.arange(20) % 5)
    assert images.dtype == np.float32
    assert labels.dtype == np.int32


def test_batch_sizes_and_the_remainder():
    split = numbered(20)
    assert [len(images) for images, _ in split.batches(8)] == [8, 8, 4]
    assert [len(images) for images, _ in split.batches(8, drop_remainder=True)] == [8, 8]


@pytest.mark.parametrize("augment", [False, True])
def test_the_same_arguments_give_the_same_bits(digits, augment):
    first = read(digits.train, shuffle=True, augment=augment, seed=3, epoch=2)
    again = read(digits.train, shuffle=True, augment=augment, seed=3, epoch=2)
    fresh = read(data.load("digits", normalization="digits").train, shuffle=True, augment=augment, seed=3, epoch=2)
    for other in (again, fresh):
        np.testing.assert_array_equal(first[0], other[0])
        np.testing.assert_array_equal(first[1], other[1])


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 3}])
def test_another_seed_or_epoch_gives_another_order_and_other_crops(digits, change):
    base = {"seed": 3, "epoch": 2}
    assert (read(digits.train, shuffle=True, **base)[1] != read(digits.train, shuffle=True, **base | change)[1]).any()
    assert (read(digits.train, augment=True, **base)[0] != read(digits.train, augment=True, **base | change)[0]).any()


def test_shuffling_loses_nothing_and_keeps_labels_with_their_images():
    images, labels = read(numbered(50), shuffle=True)
    numbers = images[:, 0, 0, 0].astype(int)
    np.testing.assert_array_equal(np.sort(numbers), np.arange(50))
    np.testing.assert_array_equal(labels, numbers % 5)
    assert (numbers != np.arange(50)).any()


def test_indices_choose_the_images_and_their_order():
    images, labels = read(numbered(20), indices=[7, 3, 3, 19])
    np.testing.assert_array_equal(images[:, 0, 0, 0], [7, 3, 3, 19])
    np.testing.assert_array_equal(labels, [2, 3, 3, 4])


def test_an_image_is_augmented_alike_in_every_batch(digits):
    whole, _ = read(digits.train, augment=True, seed=1, epoch=5)
    chosen = np.array([1000, 4, 77])
    part, _ = read(digits.train, indices=chosen, augment=True, seed=1, epoch=5)
    np.testing.assert_array_equal(part, whole[chosen])


def test_augmentation_is_a_shift_by_at_most_an_eighth_and_a_mirror_image():
    image = np.random.default_rng(0).random((1, 16, 8, 3)).astype(np.float32) + 1
    split = data.split_from_arrays(np.repeat(image, 200, axis=0), np.zeros(200, int), augmentation="flip")
    padded = np.pad(image[0], [(2, 2), (1, 1), (0, 0)])
    possible = {}
    for row in range(5):
        for column in range(3):
            crop = padded[row : row + 16, column : column + 8]
            possible[crop.tobytes()] = (row, column, False)
            possible[np.ascontiguousarray(crop[:, ::-1]).tobytes()] = (row, column, True)
    seen = {possible[augmented.tobytes()] for augmented in read(split, augment=True)[0]}
    assert {row for row, _, _ in seen} == set(range(5))
    assert {column for _, column, _ in seen} == set(range(3))
    assert {flip for _, _, flip in seen} == {False, True}


def test_digits_are_never_mirrored(digits):
    assert digits.train.augmentation == "shift"
    images, _ = read(digits.train, augment=True)
    source = read(digits.train)[0]
    black = source.min()
    for before, after in zip(source[:100], images[:100], strict=True):
        padded = np.pad(before, [(1, 1), (1, 1), (0, 0)], constant_values=black)
        crops = [padded[row : row + 8, column : column + 8] for row in range(3) for column in range(3)]
        assert any(np.array_equal(after, crop) for crop in crops)


def test_unlabelled_images_come_alone():
    split = data.split_from_arrays(np.zeros((5, 4, 4, 1), np.uint8))
    assert [batch.shape for batch in split.batches(3)] == [(3, 4, 4, 1), (2, 4, 4, 1)]
    labelled = split.with_labels(np.array([0, 1, 0, 1, 1]))
    np.testing.assert_array_equal(read(labelled)[1], [0, 1, 0, 1, 1])
    assert len(split.balanced_subset(3)) == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(1, 100), st.integers(0, 5))
def test_balanced_subsets(labels, n, seed):
    labels = np.array(labels)
    split = data.split_from_arrays(np.zeros((len(labels), 2, 2, 1), np.uint8), labels)
    chosen = split.balanced_subset(n, seed)
    assert len(chosen) == min(n, len(labels))
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, split.balanced_subset(n, seed))
    there, taken = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    # A class that has images left is at most one behind any other.
    has_more = taken < there
    if has_more.any():
        assert taken[has_more].min() >= taken.max() - 1
    assert set(chosen) <= set(split.balanced_subset(n + 1, seed))


def test_another_seed_gives_another_subset(digits):
    assert (digits.train.balanced_subset(100, 0) != digits.train.balanced_subset(100, 1)).any()


def test_representative_images_are_those_of_the_balanced_subset(digits):
    images = digits.train.representative(30, seed=2)
    assert images.shape == (30, 8, 8, 1)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, read(digits.train, indices=digits.train.balanced_subset(30, 2))[0])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"indices": [20]}, r"0\.\.19"),
        ({"indices": [-1]}, r"0\.\.19"),
        ({"indices": []}, "at least one"),
        ({"indices": [0.5]}, "integer"),
        ({"shuffle": True, "seed": -1}, "seed"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        numbered(20).batches(**{"batch_size": 4} | kwargs)


def test_four_thousand_small_images_take_well_under_a_second():
    split = data.split_from_arrays(np.zeros((4096, 32, 32, 3), np.uint8), np.zeros(4096, int), normalization="cifar10")
    read(split, indices=np.arange(64))
    start = time.perf_counter()
    for _ in split.batches(128, shuffle=True):
        pass
    # Measured: 0.2 s on two busy cores; the limit leaves room for a machine under load.
    assert time.perf_counter() - start < 3.0
