"""Layer inputs: the same whether they are kept in memory, in files or nowhere, and never more than allowed."""

import numpy as np
import pytest
import tensorflow as tf
from pruning_nets import NETS, SHAPE, Setting, batched, build, images

from dcp_tf.errors import RunError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning.activations.cache import ByteBudget, Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor, Batches, live_tensors
from dcp_tf.pruning.problem.algorithm2 import select_greedily
from dcp_tf.pruning.stopping import FixedRate


class Watched(ByteBudget):
    """Remembers the most that was ever taken."""

    def __init__(self, limit):
        super().__init__(limit)
        self.most = 0

    def reserve(self, size):
        taken = super().reserve(size)
        self.most = max(self.most, self.used)
        return taken


def cache_of(memory, disk=0, folder=None):
    cache = Cache(memory, disk, folder)
    cache.memory, cache.disk = Watched(memory), Watched(cache.disk.limit)
    return cache


def test_bytes_are_reserved_if_they_fit_and_released():
    budget = ByteBudget(10)
    assert budget.reserve(6)
    assert not budget.reserve(5)
    assert budget.used == 6
    assert budget.reserve(4)
    budget.release(6)
    assert budget.used == 4


def cursor_of(model, cache, batch=5):
    graph = ChannelGraph(model, [(None, *SHAPE)])
    return graph, ActivationCursor(graph.trace, batched(*images(), batch)[0], cache)


@pytest.mark.parametrize(("memory", "disk"), [(2**30, 0), (0, 2**30), (20_000, 2**30)])
def test_a_cursor_gives_the_tensors_that_the_model_has(memory, disk, tmp_path):
    model, cache = build(NETS["residual"]), cache_of(memory, disk, tmp_path)
    graph, cursor = cursor_of(model, cache)
    whole = graph.trace.run({graph.trace.inputs[0]: images()[0]}, range(len(graph.trace.shapes)), training=False)
    for cut in range(len(graph.trace.calls)):
        cursor.advance(cut)
        assert list(cursor.live) == live_tensors(graph.trace, cut)
        assert cache.memory.used + cache.disk.used == (0 if cut == 0 else cursor.bytes_of(cursor.live))
        for place, tensor in enumerate(cursor.live):
            together = np.concatenate([cursor[i][place] for i in range(cursor.count)])
            np.testing.assert_allclose(together, whole[tensor], atol=1e-4)
        sizes = [path.stat().st_size for path in tmp_path.glob("*/*")]
        assert cache.disk.used <= sum(sizes) <= cache.disk.used + 64 * len(sizes)
    cursor.close()
    assert cache.memory.used == cache.disk.used == 0
    assert cache.memory.most <= memory
    assert not list(tmp_path.glob("*/*"))
    cache.close()
    assert not list(tmp_path.iterdir())


def test_the_bytes_of_tensors_are_those_that_they_take():
    _, cursor = cursor_of(build(NETS["several_channels"]), cache_of(2**30))
    cursor.advance(2)
    held = sum(t.numpy().nbytes for i in range(cursor.count) for t in cursor[i])
    assert cursor.bytes_of(cursor.live) == held


def test_a_cursor_stays_if_the_next_tensors_do_not_fit():
    model = build(NETS["residual"])
    graph, cursor = cursor_of(model, cache_of(0))
    cursor.advance(6)
    assert cursor.live == tuple(graph.trace.inputs)
    np.testing.assert_array_equal(cursor[0][0], images()[0][:5])
    cache = cache_of(14 * 6 * 6 * 5 * 4)  # the output of `make`, not that and a branch
    graph, cursor = cursor_of(model, cache)
    cursor.advance(1)
    at = cursor.live
    cursor.advance(2)
    assert cursor.live == at
    assert cache.memory.used == cache.memory.limit == cache.memory.most
    cursor.advance(0)
    assert cursor.live == at


@pytest.mark.parametrize(("memory", "disk"), [(0, 0), (20_000, 0), (0, 20_000), (2**30, 2**30)])
def test_values_are_the_same_kept_or_computed_again(memory, disk, tmp_path):
    cache = cache_of(memory, disk, tmp_path)
    values = Batches(lambda i: [tf.fill([3], i), tf.cast(tf.fill([2], i), tf.bfloat16)], 4, 20_000, cache)
    assert values._kept is None
    assert (cache.memory.used, cache.disk.used) == (0, 0)
    assert values[1][0].numpy().tolist() == [1] * 3
    values.keep()
    assert (values._kept is not None) == (memory + disk > 0)
    assert (cache.memory.used, cache.disk.used) == ((20_000, 0) if memory else (0, disk))
    assert [values[i][0].numpy().tolist() for i in (2, 0)] == [[2] * 3, [0] * 3]
    assert values[1][1].dtype == tf.bfloat16
    values.release()
    values.release()
    assert cache.memory.used == cache.disk.used == 0


@pytest.mark.parametrize("net", ["residual", "concatenated"])
def test_selection_is_the_same_under_every_limit(net):
    found = []
    for memory, disk in ((2**30, 0), (25_000, 0), (25_000, 2**30), (0, 0)):
        model = build(NETS[net])
        setting = Setting(model, limit=memory, disk=disk)
        cache = setting.cache
        assert cache.memory.used <= memory
        before = cache.memory.used + cache.disk.used
        selection = select_greedily(setting.problem, FixedRate(0.4), 1)
        setting.problem.close()
        assert cache.memory.used + cache.disk.used <= before
        for cursor in setting.cursors:
            cursor.close()
        assert cache.memory.used == cache.disk.used == 0
        cache.close()
        found.append((selection, [v.numpy() for v in model.variables]))
    for selection, weights in found[1:]:
        assert selection.history["added"] == found[0][0].history["added"]
        for a, b in zip(weights, found[0][1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_no_more_than_half_of_the_free_space_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert Cache(0, 2**40, tmp_path).disk.limit == 500


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, monkeypatch):
    cache = Cache(0, 2**20, tmp_path)

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunError, match=r"No space left.*cache_disk_gib=0"):
        Batches(lambda i: [tf.zeros(3)], 2, 100, cache).keep()
    assert not list(tmp_path.iterdir())
