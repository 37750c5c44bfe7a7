"""Budgets: reached within one step, never exceeded; what cannot be reached says so."""

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, count_cost
from dcp_tf.pruning.budget import Target, Widths, fit_measured_budget, matching, profile
from dcp_tf.settings.budget import MEASURES


@pytest.fixture(scope="module")
def graph():
    x = inputs = keras.Input((16, 16, 3))
    for index, filters in enumerate((12, 24, 40, 33)):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{index}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return ChannelGraph(keras.Model(inputs, keras.layers.Dense(5)(x)))


@settings(max_examples=40, deadline=None)
@given(
    measure=st.sampled_from(sorted(MEASURES)),
    percent=st.floats(25, 99),
    round_to=st.sampled_from([1, 4, 8]),
    minimum=st.integers(1, 6),
)
def test_a_target_is_met_within_one_step_and_never_exceeded(graph, measure, percent, round_to, minimum):
    widths = Widths(graph, graph.prunable(), round_to, minimum)
    target = Target(measure, f"{percent}%")
    limit = target.limit(getattr(count_cost(graph), measure))
    found = widths.within(target)
    assert getattr(widths.cost(found), measure) <= limit
    for group in graph.prunable():
        assert min(minimum, group.size) <= found[group.name] <= group.size
        assert found[group.name] == group.size or group.size <= round_to or found[group.name] % round_to == 0
        wider = next(
            (w for w in range(found[group.name] + 1, group.size + 1) if w == group.size or w % round_to == 0), None
        )
        if wider is not None:
            assert getattr(widths.cost(found | {group.name: wider}), measure) > limit


def test_the_cost_at_some_widths_is_that_of_the_rebuilt_model(graph):
    from dcp_tf.graph import rebuild

    widths = Widths(graph, graph.prunable())
    found = widths.within(Target("macs", "50%"))
    small = rebuild(graph, graph.kept({name: range(width) for name, width in found.items()}))
    assert count_cost(small).macs == widths.cost(found).macs


def test_rates_of_single_groups_hold_under_a_target(graph):
    widths = Widths(graph, graph.prunable(), rates={"conv2": 0.25})
    assert widths.within(Target("macs", "60%"))["conv2"] == 30


@pytest.mark.parametrize("text", ["0", "-5", "100%", "130%", "nan", "half", "", "%"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(UsageError, match="received"):
        Target("macs", text)


def test_unreachable_targets_say_what_can_be_reached(graph):
    widths = Widths(graph, graph.prunable(), 8)
    with pytest.raises(UsageError, match=r"narrowest model has [\d,]+"):
        widths.within(Target("macs", "1"))
    with pytest.raises(UsageError, match="removes nothing"):
        widths.within(Target("params", "999999999"))


@pytest.mark.parametrize(("rate", "a", "b", "c", "d"), [(0.1, 11, 22, 36, 30), (0.5, 6, 12, 20, 17), (1.0, 1, 1, 1, 1)])
def test_the_profile_has_the_cost_of_each_rate(graph, rate, a, b, c, d):
    def macs(a, b, c, d):
        return 256 * 9 * (3 * a + a * b + b * c + c * d) + 5 * d

    def params(a, b, c, d):
        return 9 * (3 * a + a * b + b * c + c * d) + a + b + c + d + 5 * d + 5

    (row,) = [row for row in profile(Widths(graph, graph.prunable())) if row["rate"] == rate]
    for name, cost in (("macs", macs), ("params", params)):
        assert row[name] == cost(a, b, c, d)
        assert row[f"{name}_reduction_percent"] == pytest.approx(100 * (1 - cost(a, b, c, d) / cost(12, 24, 40, 33)))


def test_patterns_match_whole_names(graph):
    assert [g.name for g in matching(graph.groups, "conv[01]")] == ["conv0", "conv1"]
    with pytest.raises(UsageError, match="no group"):
        matching(graph.groups, "conv")
    with pytest.raises(UsageError, match="regular expression"):
        matching(graph.groups, "conv[")


def milliseconds(widths):
    """A machine on which channels of conv1 and conv2 take time together, those of the others little."""
    sizes = {"conv0": 12, "conv1": 24, "conv2": 40, "conv3": 33} | dict(widths)
    return 0.5 + sizes["conv1"] * sizes["conv2"] / 400 + (sizes["conv0"] + sizes["conv3"]) / 50


@settings(max_examples=40, deadline=None)
@given(percent=st.floats(50, 99), round_to=st.sampled_from([1, 4, 8]), absolute=st.booleans())
def test_a_latency_is_met_within_one_step_and_never_exceeded(graph, percent, round_to, absolute):
    limit = percent / 100 * milliseconds({})
    target = Target("latency", f"{limit}ms" if absolute else f"{percent}%", milliseconds, "a test")
    found = Widths(graph, graph.prunable(), round_to).within(target)
    assert milliseconds(found) <= limit * (1 + 1e-12)
    for group in graph.prunable():
        wider = [w for w in range(found[group.name] + 1, group.size + 1) if w == group.size or w % round_to == 0]
        assert not wider or milliseconds(found | {group.name: wider[0]}) > limit


def test_what_is_no_latency_is_refused(graph):
    for text in ("0ms", "-1", "100%", "4s", "ms", "nan"):
        with pytest.raises(UsageError, match="of ms or a share"):
            Target("latency", text, milliseconds)
    for measure, cost in (("latency", None), ("macs", milliseconds)):
        with pytest.raises(UsageError, match="a target is one of"):
            Target(measure, "60%", cost)
    with pytest.raises(UsageError, match=r"the target of 0\.100 ms cannot be reached"):
        Widths(graph, graph.prunable()).within(Target("latency", "0.1ms", milliseconds))
    assert Target("latency", "60%", milliseconds, "a test").settings() == {
        "measure": "latency",
        "text": "60%",
        "origin": "a test",
    }


def latency(graph, text, off, known):
    """A target whose measured savings are `off` times those that are foretold; `known` sees what is measured."""
    foretold = lambda widths: 2e-6 * Widths(graph, graph.prunable()).cost(widths).macs  # noqa: E731
    full = foretold({})

    def measured(widths):
        known.append(dict(widths))
        return full - off * (full - foretold(widths))

    return Target("latency", text, foretold, "test", measured)


@pytest.mark.parametrize("off", [0.6, 0.9, 1.0, 1.3])
@pytest.mark.parametrize("text", ["60%", "75%"])
def test_a_latency_is_met_by_what_is_measured_whatever_was_foretold(graph, text, off):
    known = []
    target = latency(graph, text, off, known)
    widths = Widths(graph, graph.prunable())
    found = fit_measured_budget(target, widths.within)
    limit = target.limit(target.cost({}))
    assert 0.9 * limit <= target.measured(found) <= limit
    assert len(known) <= 6
    assert fit_measured_budget(target, widths.within) == found


def test_of_measurements_that_contradict_each_other_the_slowest_within_the_target_counts(graph):
    target = latency(graph, "60%", 1.0, [])
    full, answers = target.cost({}), iter([0.7, 0.5, 0.65, 0.4, 0.62])
    seen = []

    def measured(widths):
        seen.append((widths, next(answers)))
        return seen[-1][1] * full

    target = Target("latency", "60%", target.cost, "test", measured)
    found = fit_measured_budget(target, Widths(graph, graph.prunable()).within)
    assert found == next(widths for widths, share in seen if share == 0.5)


def test_a_latency_that_no_width_reaches_is_refused(graph):
    target = latency(graph, "60%", 0.01, [])
    with pytest.raises(UsageError, match="cannot be reached"):
        fit_measured_budget(target, Widths(graph, graph.prunable()).within)
