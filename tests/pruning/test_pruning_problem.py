"""What a selection leaves alone and what it holds at zero, and that the rebuilt model is the masked one."""

import numpy as np
import pytest
from pruning_nets import NETS, SHAPE, Setting, batched, build, images

from dcp_tf.graph import ChannelGraph, rebuild
from dcp_tf.pruning.channel_problem import SubProblem
from dcp_tf.pruning.layer_inputs import Batches, MemoryBudget, Walk, live_tensors
from dcp_tf.pruning.readers import HeldPlaces
from dcp_tf.pruning.selection import select_greedily
from dcp_tf.pruning.stopping import FixedRate
from dcp_tf.pruning.units import channel_unit


def kernels_outside(setting, selected):
    """All entries of the readers' kernels that read channels outside A."""
    return np.concatenate(
        [
            np.take(r.kernel.numpy(), np.flatnonzero((r.channel >= 0) & ~selected[r.channel]), r.axis).ravel()
            for r in setting.readers
        ]
    )


@pytest.mark.parametrize("net", NETS)
def test_a_selection_changes_only_what_reads_the_group_and_rebuilt_equals_masked(net):
    model = build(NETS[net])
    before = {v.path: v.numpy() for v in model.variables}
    setting = Setting(model)
    assert setting.problem.loss().reconstruction < 1e-11  # all channels, no update yet
    assert setting.problem.loss().discrimination > 0.1
    selected = setting.mask(0)
    setting.problem.solve(setting.mask())
    assert not kernels_outside(setting, setting.mask()).any()
    for channel in (0, 2):
        selected[channel] = True
        setting.problem.solve(selected)
        assert not kernels_outside(setting, selected).any()
        assert kernels_outside(setting, ~selected).all()
    may_change = {r.kernel.path for r in setting.readers}
    may_change |= {r.operation.bias.path for r in setting.readers}
    changed = {v.path for v in model.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert changed == may_change

    setting.held.drop(setting.readers, selected)
    small = rebuild(setting.graph, setting.graph.kept({"make": np.flatnonzero(selected)}))
    assert small.count_params() < model.count_params()
    x, _ = images(8, seed=4)
    masked = model(x).numpy()
    np.testing.assert_allclose(small(x).numpy(), masked, atol=1e-5 * np.abs(masked).max())


def test_every_batch_is_held_at_zero_while_solving():
    setting = Setting(build(NETS["concatenated"]))
    problem, selected, seen = setting.problem, setting.mask(1, 3), []
    step = problem._step
    problem._step = lambda *batch: (step(*batch), seen.append(kernels_outside(setting, selected).any()))
    problem.solve(selected)
    assert seen == [False] * 3


def test_a_channel_that_comes_in_starts_from_the_fine_tuned_weights():
    model = build(NETS["several_channels"])
    start = model.get_layer("read").kernel.numpy()
    setting = Setting(model, settings=SubProblem(passes=0))
    setting.problem.solve(setting.mask())
    setting.problem.solve(setting.mask(2, 4))
    kernel = model.get_layer("read").kernel.numpy()
    np.testing.assert_array_equal(kernel[:, :, [2, 4]], start[:, :, [2, 4]])


def test_what_an_earlier_group_lost_stays_lost():
    model = build(NETS["concatenated"])
    first = Setting(model, "make")
    first.problem.solve(first.mask(1, 2))
    first.held.drop(first.readers, first.mask(1, 2))
    second = Setting(model, "other", held=first.held)
    second.problem.solve(second.mask(0))
    rows = np.abs(model.get_layer("read").kernel.numpy()).sum((0, 1, 3)) > 0
    assert rows.tolist() == [True, False, False] + [False, True, True, False] * 2


@pytest.mark.parametrize(("reconstruction", "discrimination"), [(1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
def test_the_joint_loss_weighs_its_parts(reconstruction, discrimination):
    setting = Setting(build(NETS["with_activation"]), settings=SubProblem(reconstruction, discrimination))
    setting.problem.solve(setting.mask(1))
    loss = setting.problem.loss()
    joint = reconstruction * loss.reconstruction + discrimination * loss.discrimination
    assert loss.joint == pytest.approx(joint, rel=1e-5)
    assert (loss.reconstruction > 0) == (reconstruction > 0)
    assert (loss.discrimination > 0) == (discrimination > 0)


def test_masks_are_zero_where_channels_went():
    model = build(NETS["grouped"])
    graph = ChannelGraph(model)
    held = HeldPlaces()
    group = graph.group("make")
    assert group.size == 3
    assert held.masks() == {}
    held.drop(held.readers(graph.consumers(group)), np.array([True, False, True]))
    (mask,) = held.masks().values()
    kernel = model.get_layer("read").kernel.numpy()
    np.testing.assert_array_equal(mask, kernel != 0)
    assert mask[:, :, 1].sum() == 0


# Layer inputs and memory


class Watched(MemoryBudget):
    """Remembers the most that was ever held."""

    def __init__(self, limit):
        super().__init__(limit)
        self.most = 0

    def take(self, size):
        taken = super().take(size)
        self.most = max(self.most, self.used)
        return taken


def test_a_budget_takes_what_fits_and_gets_it_back():
    budget = MemoryBudget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.used == 6
    assert budget.take(4)
    budget.release(6)
    assert budget.used == 4


def walk_of(model, limit, batch=5):
    graph = ChannelGraph(model, [(None, *SHAPE)])
    budget = Watched(limit)
    return graph, Walk(graph.trace, batched(*images(), batch)[0], budget), budget


def test_a_walk_gives_the_tensors_that_the_model_has():
    model = build(NETS["residual"])
    graph, walk, budget = walk_of(model, 2**30)
    whole = graph.trace.run({graph.trace.inputs[0]: images()[0]}, range(len(graph.trace.shapes)), training=False)
    for cut in range(len(graph.trace.calls)):
        walk.advance(cut)
        assert list(walk.live) == live_tensors(graph.trace, cut)
        assert budget.used == (0 if cut == 0 else walk.bytes_of(walk.live))
        for place, tensor in enumerate(walk.live):
            together = np.concatenate([walk[i][place] for i in range(walk.count)])
            np.testing.assert_allclose(together, whole[tensor], atol=1e-4)
    walk.close()
    assert budget.used == 0


def test_the_bytes_of_tensors_are_those_that_they_take():
    _, walk, _ = walk_of(build(NETS["several_channels"]), 2**30)
    walk.advance(2)
    held = sum(t.numpy().nbytes for i in range(walk.count) for t in walk[i])
    assert walk.bytes_of(walk.live) == held


def test_a_walk_stays_where_it_is_if_the_next_tensors_do_not_fit():
    model = build(NETS["residual"])
    graph, walk, budget = walk_of(model, 0)
    walk.advance(6)
    assert walk.live == tuple(graph.trace.inputs)
    np.testing.assert_array_equal(walk[0][0], images()[0][:5])
    graph, walk, budget = walk_of(model, 14 * 6 * 6 * 5 * 4)  # the output of `make`, not that and a branch
    walk.advance(1)
    at = walk.live
    walk.advance(2)
    assert walk.live == at
    assert budget.used == budget.limit == budget.most
    walk.advance(0)
    assert walk.live == at


@pytest.mark.parametrize("limit", [0, 20_000, 2**30])
def test_values_are_the_same_held_or_computed_again(limit):
    budget = Watched(limit)
    values = Batches(lambda i: [np.full(3, i)], 4, 20_000, budget)
    assert values.cached == (limit > 0)
    assert [values[i][0].tolist() for i in (2, 0)] == [[2] * 3, [0] * 3]
    values.release()
    values.release()
    assert budget.used == 0


@pytest.mark.parametrize("net", ["residual", "concatenated"])
def test_selection_is_the_same_under_every_memory_limit(net):
    found = []
    for limit in (2**30, 25_000, 0):
        model = build(NETS[net])
        setting = Setting(model, limit=limit)
        assert setting.budget.used <= limit
        before = sum(walk._size for walk in setting.walks)
        selection = select_greedily(setting.problem, FixedRate(0.4), 1)
        setting.problem.close()
        assert setting.budget.used == before
        for walk in setting.walks:
            walk.close()
        assert setting.budget.used == 0
        found.append((selection, [v.numpy() for v in model.variables]))
    for selection, weights in found[1:]:
        assert selection.history["added"] == found[0][0].history["added"]
        for a, b in zip(weights, found[0][1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_first_reader_is_the_first_call_of_all_readers():
    graph = ChannelGraph(build(NETS["residual"]))
    assert graph.trace.calls[channel_unit(graph, graph.group("make")).calls[0]].path == "read1"
    graph = ChannelGraph(build(NETS["shared"]))
    calls = [i for i, call in enumerate(graph.trace.calls) if call.path == "read"]
    assert channel_unit(graph, graph.group("make")).calls[0] == calls[0]
