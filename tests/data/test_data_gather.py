"""Passes over arrays copy batches, never the whole."""

import os
import pathlib

import numpy as np
import pytest

from dcp_tf import data
from dcp_tf.data.pixel_sources import ArraySource
from dcp_tf.errors import UsageError

MIB = 2**20


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("make", [data.make_array_split, data.split_from_arrays])
def test_passes_take_no_memory_for_the_whole(make):
    next(iter(make(np.ones((8, 4, 4, 1), np.uint8), np.arange(8) % 3).batches(4)))  # what TensorFlow sets up once
    images = np.full((512, 512, 512, 1), 7, np.uint8)  # 128 MiB, 512 as floats
    before = resident()
    split = make(images, np.arange(512) % 3)
    passes = [iter(split.batches(4, shuffle=True, epoch=epoch)) for epoch in range(3)]
    for batches in passes:
        next(batches)
    half = split.take(np.arange(0, 512, 2))
    first, labels = next(iter(half.batches(4)))
    assert resident() - before < 96 * MIB
    assert first.shape == (4, 512, 512, 1)
    assert labels.numpy().tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64, bool])
def test_inputs_stay_of_their_type_and_batches_are_floats(dtype):
    inputs = np.arange(12).reshape(6, 2).astype(dtype)
    split = data.make_array_split(inputs)
    assert split.inputs.dtype == dtype
    assert np.shares_memory(split.inputs, inputs)
    batch = next(iter(split.batches(6)))
    assert batch.dtype == "float32"
    np.testing.assert_array_equal(batch, inputs.astype(np.float32))
    assert split.representative(6).dtype == np.float32


def test_a_memory_mapped_file_is_read_batch_by_batch(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    split = data.make_array_split(mapped)
    assert np.shares_memory(split.inputs, mapped)
    np.testing.assert_array_equal(next(iter(split.batches(3, indices=[9, 0, 4]))), pixels[[9, 0, 4]].astype("float32"))


def test_parts_of_parts_share_the_pixels_and_read_the_right_ones():
    pixels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    part = ArraySource(pixels).take(np.arange(5, 15)).take(np.array([9, 0, 3]))
    assert part.pixels is pixels
    assert part.images.ravel().tolist() == [14, 5, 8]
    ((positions, images),) = part.batches(np.array([2, 0]), 2, False)
    assert (positions.numpy().tolist(), images.numpy().ravel().tolist()) == ([2, 0], [8, 14])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_bad_value_is_found_wherever_it_is(value):
    inputs = np.zeros((300, 70_000), np.float64)
    inputs[277, 3] = value
    with pytest.raises(UsageError, match="NaN or infinite"):
        data.make_array_split(inputs)
