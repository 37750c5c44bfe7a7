"""What a selection leaves alone and what it holds at zero, and that the rebuilt model is the masked one."""

import numpy as np
import pytest
from pruning_nets import NETS, Setting, build, images

from dcp_tf.graph import ChannelGraph, rebuild
from dcp_tf.pruning.problem.consumers import KernelMasks
from dcp_tf.pruning.problem.problem import SubProblem
from dcp_tf.pruning.problem.stages import channel_unit


def kernels_outside(setting, selected):
    """All entries of the consumers' kernels that read channels outside A."""
    return np.concatenate(
        [
            np.take(r.kernel.numpy(), np.flatnonzero((r.channel >= 0) & ~selected[r.channel]), r.axis).ravel()
            for r in setting.consumers
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
    may_change = {r.kernel.path for r in setting.consumers}
    may_change |= {r.operation.bias.path for r in setting.consumers}
    changed = {v.path for v in model.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert changed == may_change

    setting.masks.drop(setting.consumers, selected)
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
    first.masks.drop(first.consumers, first.mask(1, 2))
    second = Setting(model, "other", masks=first.masks)
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
    masks = KernelMasks()
    group = graph.group("make")
    assert group.size == 3
    assert masks.for_training() == {}
    masks.drop(masks.consumer_kernels(graph.consumers(group)), np.array([True, False, True]))
    (mask,) = masks.for_training().values()
    kernel = model.get_layer("read").kernel.numpy()
    np.testing.assert_array_equal(mask, kernel != 0)
    assert mask[:, :, 1].sum() == 0


def test_the_first_consumer_is_the_first_call_of_all_consumers():
    graph = ChannelGraph(build(NETS["residual"]))
    assert graph.trace.calls[channel_unit(graph, graph.group("make")).calls[0]].path == "read1"
    graph = ChannelGraph(build(NETS["shared"]))
    calls = [i for i, call in enumerate(graph.trace.calls) if call.path == "read"]
    assert channel_unit(graph, graph.group("make")).calls[0] == calls[0]
