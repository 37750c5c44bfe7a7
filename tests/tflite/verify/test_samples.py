"""What is compared batch by batch is what arrays as a whole would say."""

import tracemalloc

import numpy as np
import pytest
import tflite_models as nets
from hypothesis import given
from hypothesis import strategies as st

from dcp_tf import tflite
from dcp_tf.data import as_split
from dcp_tf.errors import UsageError
from dcp_tf.evaluation import snr_db
from dcp_tf.tflite.verify.output_difference import OutputDifference
from dcp_tf.tflite.verify.samples import Samples, samples_of, samples_of_split


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_batches_differ_as_the_whole(seed, sizes, offset):
    rng = np.random.default_rng(seed)
    expected = [(rng.normal(size=(size, 3)) + offset).astype("float32") for size in sizes]
    actual = [part + rng.normal(size=part.shape, scale=1e-2).astype("float32") for part in expected]
    difference = OutputDifference()
    for pair in zip(actual, expected, strict=True):
        difference.add(*pair)
    whole, truth = np.concatenate(actual).astype("float64"), np.concatenate(expected).astype("float64")
    if not truth.size:
        assert difference.largest == difference.mean == 0
        return
    unit = max(truth.std(), 1e-3 * np.abs(truth).max()) or 1
    assert difference.largest == pytest.approx(np.abs(whole - truth).max() / unit)
    assert difference.mean == pytest.approx(np.abs(whole - truth).mean() / unit)
    assert difference.snr_db == pytest.approx(snr_db(whole, truth))


def test_nan_in_one_batch_stays():
    for place in (0, 1):
        difference = OutputDifference()
        for number in range(2):
            difference.add(np.full((2, 2), np.nan if number == place else 0.0), np.ones((2, 2)))
        assert np.isnan(difference.largest)


def test_samples_of_a_split_give_what_arrays_give():
    model = nets.residual()
    file = tflite.convert(model)
    images, labels = nets.images(70), np.random.default_rng(0).integers(0, nets.CLASSES, 70)
    split = as_split((images, labels)).bound_to(model, "test")
    read = samples_of_split(split, lambda own: own)
    assert tflite.check_parity(file, model, read) == tflite.check_parity(file, model, images, labels)
    np.testing.assert_array_equal(read.first(40)[0], images[:40])
    assert tflite.check_parity(file, model, samples_of_split(split)).top1 is None


def test_comparing_needs_the_memory_of_a_batch():
    model = nets.residual()
    file = tflite.convert(model)

    def read():
        for number in range(40):
            yield [np.full((32, 16, 16, 3), number / 40, np.float32)], None

    bytes_of_all = 40 * 32 * 16 * 16 * 3 * 4
    tflite.check_parity(file, model, Samples(32, lambda: [next(iter(read()))]))  # compiles
    tracemalloc.start()
    parity = tflite.check_parity(file, model, Samples(40 * 32, read))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parity.samples == 40 * 32
    assert peak < bytes_of_all / 4


def test_no_samples_and_other_numbers_of_labels_are_refused():
    with pytest.raises(UsageError, match="no images"):
        samples_of(np.zeros((0, 4)), 1)
    with pytest.raises(UsageError, match="3 labels"):
        samples_of([np.zeros((4, 2)), np.zeros((4, 1))], 2, np.zeros(3))
