"""What passes take is known beforehand, and tensors wait where they are small."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import NETS, SHAPE, build, images

from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor
from dcp_tf.pruning.activations.memory import bytes_per_image, cache_bytes, images_at_once, matrix_bytes


@pytest.mark.parametrize("net", ["residual", "concatenated", "several_channels"])
def test_bytes_per_image_are_those_of_all_tensors(net):
    trace = ChannelGraph(build(NETS[net]), [(None, *SHAPE)]).trace
    values = trace.run({trace.inputs[0]: images(4)[0]}, range(len(trace.shapes)), training=False)
    assert bytes_per_image(trace) == sum(np.asarray(value).nbytes for value in values.values()) / 4


def test_no_more_images_than_fit_and_no_fewer_than_one():
    trace = ChannelGraph(build(NETS["residual"]), [(None, *SHAPE)]).trace
    of_one = bytes_per_image(trace)
    gib = 4 * 5000 * of_one / 2**30  # a quarter of it holds 5,000 images
    assert images_at_once(trace, gib, 10**6) == pytest.approx(max(5000, 2**26 // of_one), abs=1)
    assert images_at_once(trace, gib, 128) == 128
    large = ChannelGraph(keras.Sequential([keras.Input((3000, 3000, 3)), keras.layers.Conv2D(64, 3)])).trace
    assert images_at_once(large, 0.0, 128) == 1
    shares = cache_bytes(4.0), matrix_bytes(4.0), images_at_once(trace, 4.0, 10**9) * of_one
    assert sum(shares) <= 4 * 2**30


def expanded():
    """Like an inverted residual block: 2 channels become 32 and then 2 again."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(2, 3, padding="same", name="narrow")(x)
    x = keras.layers.Conv2D(32, 1, name="expand")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Conv2D(2, 1, name="project")(x)
    return keras.Model(image, keras.layers.Flatten()(x))


@pytest.mark.parametrize(
    ("room", "disk", "waits_at"), [(2**20, 2**20, "depthwise"), (20_000, 2**20, "narrow"), (100, 2**20, "narrow")]
)
def test_tensors_that_do_not_fit_wait_where_they_are_small(room, disk, waits_at, tmp_path):
    """In memory before the layer, else in memory at the narrow place, else in files there."""
    graph = ChannelGraph(expanded())
    trace = graph.trace
    batches = [[tf.random.stateless_uniform((5, 8, 8, 2), (i, 0))] for i in range(2)]
    cache = Cache(room, disk, tmp_path)
    cursor = ActivationCursor(trace, batches, cache)
    cut = next(i for i, call in enumerate(trace.calls) if call.path == "project")
    cursor.advance(cut)
    at = next(call.outputs[0] for call in trace.calls if call.path == waits_at)
    assert cursor.live == (at,)
    assert cache.disk.used == (cursor.bytes_of([at]) if room == 100 else 0)
    read = cursor.function([trace.calls[cut].inputs[0]])
    for i, (image,) in enumerate(batches):
        expected = trace.run({trace.inputs[0]: image}, [trace.calls[cut].inputs[0]], training=False)
        np.testing.assert_allclose(read(*cursor[i])[0], next(iter(expected.values())), atol=1e-5)
    cursor.close()
    assert cache.memory.used == cache.disk.used == 0
