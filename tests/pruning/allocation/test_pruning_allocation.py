"""Global allocation: never above the limit, within one step of it, the least worthy channels first."""

import json
import types

import hypothesis
import numpy as np
import pruning_nets as nets
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import dcp_tf
from dcp_tf import data
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.pruning import DCP, DCPDKP, DKP, L1, AdaptDCP, BNScale, Target, Taylor, WidthMultiplier, Widths
from dcp_tf.pruning.allocation.sensitivity import loss_rises
from dcp_tf.pruning.allocation.steps import allocate
from dcp_tf.pruning.budget import kept_at_rate
from dcp_tf.pruning.context import prepare

hypothesis.settings.load_profile("pruning")
QUICK = {"selection_samples": 14, "selection_batch": 7, "auxiliary_losses": 0, "recover": 0}

PROBLEMS = st.tuples(
    st.lists(st.tuples(st.integers(2, 40), st.integers(1, 9)), min_size=1, max_size=4),  # sizes and costs per channel
    st.integers(1, 99),  # the share of the cost that may stay, in per cent of what can go
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 5),
    st.integers(0, 10),
)


def plain_group(name, size):
    return types.SimpleNamespace(name=name, size=size, heads=1, head=None, are_heads=False, within=None)


def problem(drawn):
    shapes, share, round_to, minimum, seed = drawn
    groups = [plain_group(f"g{i}", size) for i, (size, _) in enumerate(shapes)]
    costs = {f"g{i}": cost for i, (_, cost) in enumerate(shapes)}
    rng = np.random.default_rng(seed)
    prices = {g.name: np.sort(rng.random(g.size)) for g in groups}

    def cost(widths):
        return sum(costs[name] * width for name, width in widths.items())

    narrowest = {g.name: kept_at_rate(g.size, 1.0, round_to, minimum) for g in groups}
    full = {g.name: g.size for g in groups}
    limit = cost(narrowest) + (cost(full) - cost(narrowest)) * share // 100
    return groups, prices, cost, limit, round_to, minimum


def widths_within(groups, prices, cost, limit, round_to, minimum):
    return allocate(groups, prices, lambda widths: cost(widths) <= limit, round_to, minimum)


@hypothesis.given(PROBLEMS)
def test_the_limit_holds_within_one_step(drawn):
    groups, prices, cost, limit, round_to, minimum = problem(drawn)
    widths = widths_within(groups, prices, cost, limit, round_to, minimum)
    assert cost(widths) <= limit
    for g in groups:
        possible = sorted({kept_at_rate(g.size, k / g.size, round_to, minimum) for k in range(g.size + 1)})
        assert widths[g.name] in possible
        wider = [w for w in possible if w > widths[g.name]]
        assert not wider or cost(widths | {g.name: wider[0]}) > limit


@hypothesis.given(PROBLEMS)
def test_a_looser_limit_never_makes_the_model_much_smaller(drawn):
    groups, prices, cost, limit, round_to, minimum = problem(drawn)
    tight, loose = (
        cost(widths_within(groups, prices, cost, each, round_to, minimum)) for each in (limit, limit + limit // 10)
    )
    steps = [cost({g.name: 1}) * max(round_to, g.size % round_to + round_to, minimum) for g in groups]
    assert loose >= tight - max(steps)


def test_the_least_worthy_channels_of_all_groups_go():
    groups = [plain_group(name, 4) for name in "ab"]
    prices = {"a": np.array([1.0, 2.0, 3.0, 9.0]), "b": np.array([4.0, 5.0, 6.0, 7.0])}
    kept = [
        allocate(groups, prices, lambda widths, most=most: sum(widths.values()) <= most) for most in (7, 6, 5, 4, 3, 2)
    ]
    assert [(w["a"], w["b"]) for w in kept] == [(3, 4), (2, 4), (1, 4), (1, 3), (1, 2), (1, 1)]


def test_worth_that_falls_on_the_way_does_not_tempt():
    """Elimination may pay for one channel and get the next one free: only the first price counts."""
    groups = [plain_group(name, 4) for name in "ab"]
    prices = {"a": np.array([5.0, 0.0, 0.0, 0.0]), "b": np.array([4.0, 4.0, 4.0, 4.0])}
    assert allocate(groups, prices, lambda widths: sum(widths.values()) <= 6) == {"a": 4, "b": 2}


def chain():
    """Three groups; `make` of the widest layer has half of its channels dead."""

    def net(net, x):
        x = net.norm_relu(net.conv("first", 8, 3)(x), "norm1")
        x = net.norm_relu(net.conv("make", 16, 3)(x), "norm2")
        x = net.norm_relu(net.conv("last", 8, 3)(x), "norm3")
        return net.classify(x)

    model = nets.build(net)
    kernel = model.get_layer("make").kernel.numpy()
    kernel[..., ::2] *= 1e-3
    model.get_layer("make").kernel.assign(kernel)
    norm = model.get_layer("norm2")
    for weight in (norm.gamma, norm.beta):
        weight.assign(weight.numpy() * np.where(np.arange(16) % 2, 1.0, 1e-3))
    return model


def run(model, method):
    return dcp_tf.prune(model, data.make_array_split(*nets.images()), method, **nets.BARE)


def macs(result):
    return dcp_tf.count_cost(result.model).macs


def kept(result):
    return {g.name: len(g.kept) for g in result.plan.groups}


@pytest.mark.parametrize("kind", [L1, BNScale, Taylor, DCP])
def test_dead_channels_go_wherever_they_are_and_the_cost_is_the_common_rates(kind):
    model = chain()
    uniform, found = (run(model, kind(rate=0.25, allocation=a, **QUICK)) for a in ("uniform", "global"))
    assert kept(uniform) == {"first": 6, "make": 12, "last": 6}
    assert kept(found)["make"] <= 9
    assert macs(found) <= macs(uniform)
    graph, widths = ChannelGraph(model), kept(found)
    costs = Widths(graph, graph.prunable())
    assert costs.cost(widths).macs == macs(found)
    wider = [widths | {g.name: widths[g.name] + 1} for g in graph.prunable() if widths[g.name] < g.size]
    assert all(costs.cost(each).macs > macs(uniform) for each in wider)


def test_targets_rounding_minimum_and_own_rates_hold():
    model, target = chain(), Target("params", "60%")
    settings = {"target": target, "round_to": 4, "min_channels": 8, "rates": (("first", 0.5),), **QUICK}
    result = run(model, L1(allocation="global", **settings))
    assert dcp_tf.count_cost(result.model).params <= 0.6 * dcp_tf.count_cost(model).params
    assert kept(result)["first"] == 8
    assert all(count % 4 == 0 and count >= 8 for count in kept(result).values())


def test_excluded_groups_keep_all():
    assert kept(run(chain(), L1(rate=0.5, allocation="global", exclude=("make",), **QUICK))).keys() == {"first", "last"}


def test_adaptive_widths_stay_inside_of_the_allocated_ones():
    capped, adaptive = (
        kept(run(chain(), kind(rate=0.25, allocation="global", **QUICK, **more)))
        for kind, more in ((DCP, {}), (AdaptDCP, {"epsilon": 0.05}))
    )
    assert all(adaptive[name] <= capped[name] for name in capped)


def test_the_model_is_left_as_it_is_even_where_measuring_fails(monkeypatch):
    model = chain()
    before = [w.numpy() for w in model.weights]
    run(model, DCP(rate=0.25, allocation="global", **QUICK))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    calls = iter(range(100))

    def fail(self, index):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr("dcp_tf.pruning.allocation.sensitivity.MeasuredLosses._loss", fail)
    with pytest.raises(KeyboardInterrupt):
        run(model, DCP(rate=0.25, allocation="global", **QUICK))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


def test_rises_foretell_the_loss_without_dead_channels_and_leave_out_what_no_model_covers():
    model = chain()
    split = data.make_array_split(*nets.images())
    context = prepare(model, split, DCP(**QUICK), outputs_kind="logits")
    rises = loss_rises(context, context.groups)
    assert {name: len(r) for name, r in rises.items()} == {"first": 8, "make": 16, "last": 8}
    assert all((r >= -1e-9).all() for r in rises.values())
    assert rises["first"].sum() > 0
    assert rises["make"][:8].sum() < 1e-2 * rises["make"][8:].sum()
    other = prepare(nets.build(nets.separable), split, DCP(**QUICK))
    assert loss_rises(other, [other.graph.group("make")]) == {}


def of_class_numbers(labels, outputs):
    """A loss of the user's own, which takes no predictions for labels."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs))


@pytest.mark.parametrize("loss", ["softmax", "arcface", "cosface", "asoftmax", "mse", of_class_numbers])
def test_the_worth_of_channels_is_told_by_each_loss(loss):
    model, (images, _) = chain(), nets.images()
    labels = np.asarray(model(images))
    labels = labels if loss == "mse" else labels.argmax(-1).astype("int32")
    split = data.make_array_split(images, labels)
    context = prepare(model, split, DCP(**QUICK), objective=loss)
    rises = loss_rises(context, context.groups)
    assert rises["make"][:8].sum() < 1e-2 * rises["make"][8:].sum()
    assert min(rises[name].sum() for name in rises) > 1e-3 * max(rises[name].sum() for name in rises)


@pytest.mark.parametrize("kind", [WidthMultiplier, DKP])
def test_methods_that_compare_nothing_refuse_it(kind):
    with pytest.raises(UsageError, match="allocation must be uniform"):
        kind(allocation="global")
    with pytest.raises(UsageError, match="allocation must be one of"):
        L1(allocation="best")


def test_a_latency_takes_channels_where_they_cost_time():
    """Only `make` takes time: there the same rise of the loss buys more, and the others keep nearly all."""
    model = chain()
    sizes = {"first": 8, "make": 16, "last": 8}

    def cost(widths):
        widths = sizes | dict(widths)
        return 1.0 + widths["make"] + 0.01 * (widths["first"] + widths["last"])

    for kind in (L1, DCP):
        target = Target("latency", "60%", cost, "a test")
        result = run(model, kind(target=target, allocation="global", **QUICK))
        found = kept(result)
        assert cost(found) <= 0.6 * cost({})
        for group, size in sizes.items():
            assert found[group] == size or cost(found | {group: found[group] + 1}) > 0.6 * cost({})
        assert result.plan.settings["target"] == {"measure": "latency", "text": "60%", "origin": "a test"}
        json.dumps(result.plan.settings)
    assert found["first"] + found["last"] >= 14  # DCP's prices are per millisecond


def test_a_latency_is_no_target_of_methods_that_prune_kernels():
    with pytest.raises(UsageError, match="another target than latency"):
        DKP(target=Target("latency", "60%", lambda widths: 1.0))


def test_groups_compete_where_dcp_has_a_target_and_unless_told_otherwise():
    target = Target("macs", "60%")
    assert DCP(target=target).allocates == DCP(target=target).settings()["allocation"] == "global"
    assert DCP(rate=0.5).allocates == DCP(target=target, allocation="uniform").allocates == "uniform"
    assert AdaptDCP(target=target).allocates == "global"
    assert AdaptDCP(rate=0.5).allocates == L1(target=target).allocates == DKP(target=target).allocates == "uniform"
    assert DCPDKP(target=target).allocates == "uniform"
    assert L1(target=target, allocation="global").allocates == "global"
