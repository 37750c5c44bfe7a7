"""Arrays of any shape are read as they are, in an order that the seed fixes."""

import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.errors import UsageError


def read(split, **settings):
    batches = list(split.batches(4, **settings).as_numpy_iterator())
    if split.labels is None:
        return np.concatenate(batches), None
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


@pytest.mark.parametrize("shape", [(7,), (9, 5), (8, 8, 1), (4, 4, 4, 2)])
def test_values_come_back_untouched_in_order(shape):
    inputs = np.arange(10 * np.prod(shape)).reshape(10, *shape)
    split = data.make_array_split(inputs, np.arange(10) % 3)
    found, labels = read(split, augment=True)
    np.testing.assert_array_equal(found, inputs.astype(np.float32))
    np.testing.assert_array_equal(labels, np.arange(10) % 3)
    assert split.shape == shape


def test_the_order_is_a_function_of_seed_and_epoch():
    split = data.make_array_split(np.arange(20.0).reshape(20, 1))
    first = read(split, shuffle=True, seed=1, epoch=2)[0]
    np.testing.assert_array_equal(first, read(split, shuffle=True, seed=1, epoch=2)[0])
    assert not np.array_equal(first, read(split, shuffle=True, seed=1, epoch=3)[0])
    np.testing.assert_array_equal(np.sort(first, axis=0), split.inputs)


def test_chosen_ones_keep_their_order_and_subsets_are_balanced():
    split = data.make_array_split(np.arange(12.0).reshape(12, 1), np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(read(split, indices=[5, 0, 7])[0].ravel(), [5, 0, 7])
    assert np.bincount(split.labels[split.balanced_subset(6, 3)]).tolist() == [2, 2, 2]
    assert split.take([3, 1]).inputs.ravel().tolist() == [3, 1]


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (np.array([["a", "b"]]), None),
        (np.zeros((0, 3)), None),
        (np.zeros(5), None),
        (np.full((4, 2), np.nan), None),
        (np.zeros((4, 2)), np.zeros(3, int)),
        (np.zeros((4, 2)), np.array([0.5, np.nan, 0, 1])),
        (np.zeros((4, 2)), np.array(["a", "b", "c", "d"])),
        (np.zeros((4, 2)), np.zeros((3, 2))),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(inputs, labels):
    with pytest.raises(UsageError) as caught:
        data.make_array_split(inputs, labels)
    assert "\n" not in str(caught.value)


def test_rows_of_targets_are_kept():
    split = data.make_array_split(np.zeros((4, 2)), np.eye(4))
    np.testing.assert_array_equal(read(split)[1], np.eye(4))
