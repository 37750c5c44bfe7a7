"""Plans of one round after the other, composed into one that applies to the first model."""

import numpy as np
import pytest
from pruning_nets import NETS, build, images

import dcp_tf
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import GroupPlan, KernelPlan, PruningPlan


def random_plan(model, seed, kernels):
    """Each group that may be pruned keeps some channels, and with `kernels` each layer loses some of its kernels."""
    rng, graph = np.random.default_rng(seed), ChannelGraph(model)
    groups = []
    for group in graph.prunable(residual=True):
        kept = np.sort(rng.permutation(group.size)[: rng.integers(1, group.size + 1)])
        groups.append(
            GroupPlan(group.name, group.size, tuple(kept.tolist()), group.consumers, {"added": [kept.tolist()]})
        )
    plans = []
    for record in graph.records.values() if kernels else ():
        for index, _ in record.consumes:
            if len(shape := record.operation.weights[index].shape) == 4:
                plans.append(KernelPlan.of(record.path, index, rng.random(shape[-2:]) < 0.7, {}))
    return PruningPlan(graph.fingerprint(), tuple(groups), f"random{seed}", {"seed": seed}, tuple(plans))


def same(first, second):
    pairs = list(zip(first.variables, second.variables, strict=True))
    return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)


@pytest.mark.parametrize("kernels", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("net", NETS)
def test_a_composed_plan_leaves_what_the_two_leave_in_turn(net, kernels):
    model = build(NETS[net])
    first = random_plan(model, 1, kernels[0])
    halfway = first.apply(model)
    second = random_plan(halfway, 2, kernels[1])
    if net == "grouped":  # one channel per group is left: a depthwise convolution, whose channels go one by one
        with pytest.raises(UsageError, match="do not follow each other"):
            first.then(second, model)
        return
    last = second.apply(halfway)
    plan = first.then(second, model)
    assert same(plan.apply(model), last)
    assert plan.fingerprint == first.fingerprint
    third = random_plan(last, 3, False)
    assert same(plan.then(third).apply(model), third.apply(last))
    assert [step["method"] for step in plan.then(third).settings["steps"]] == ["random1", "random2", "random3"]
    for group in plan.groups:  # the history names channels of the first model
        later = next((g for g in second.groups if g.name == group.name), None)
        assert later is None or group.history["added"] == [list(group.kept)]
    assert PruningPlan.from_json(plan.to_json()) == plan


def test_plans_that_do_not_follow_each_other_are_refused():
    model = build(NETS["several_channels"])
    group = ChannelGraph(model).prunable(residual=True)[0]
    first = PruningPlan(ChannelGraph(model).fingerprint(), (GroupPlan(group.name, group.size, (0, 2)),))
    with pytest.raises(UsageError, match="do not follow each other: the first leaves 2 channels"):
        first.then(first)
    with pytest.raises(UsageError, match="give the first plan's model"):
        first.then(random_plan(first.apply(model), 2, True))


def test_prune_takes_its_own_result_and_the_plans_compose():
    model = build(NETS["several_channels"])
    data = images(32)
    settings = {"finetuning": None, "looks_at_baseline": False}
    first = dcp_tf.prune(model, data, dcp_tf.L1(rate=0.3, round_to=1), **settings)
    second = dcp_tf.prune(first.model, data, dcp_tf.L2(rate=0.3, round_to=1), **settings)
    assert same(first.plan.then(second.plan).apply(model), second.model)
