"""Stopping rules and widths: the paper's counts, and what `round_to` and the minimum promise."""

import math
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from dcp_tf.pruning.budget import kept_at_rate, round_width
from dcp_tf.pruning.stopping import FixedRate, RelativeChange, RelativeChangeOrCap

hypothesis.settings.load_profile("pruning")
SIZES = st.integers(1, 600)
RATES = st.integers(1, 99)  # per cent: exact as fractions
ROUND = st.sampled_from([1, 2, 4, 8, 16, 32])
LEAST = st.integers(1, 40)


@hypothesis.given(SIZES, RATES)
def test_the_kept_count_is_the_papers(size, percent):
    assert kept_at_rate(size, percent / 100) == max(1, size - math.floor(Fraction(percent, 100) * size))


@pytest.mark.parametrize(("size", "rate", "kept"), [(10, 0.3, 7), (10, 0.7, 3), (100, 0.29, 71), (64, 0.5, 32)])
def test_a_rate_means_its_decimal_value(size, rate, kept):
    assert kept_at_rate(size, rate) == kept


@hypothesis.given(SIZES, RATES, ROUND, LEAST)
def test_round_to_divides_what_is_kept_of_a_wider_group(size, percent, round_to, least):
    kept = kept_at_rate(size, percent / 100, round_to, least)
    assert min(least, size) <= kept <= size
    if size > round_to and kept < size:
        assert kept % round_to == 0


@hypothesis.given(SIZES, RATES, ROUND)
def test_rounding_goes_to_the_nearest_multiple_that_the_group_has(size, percent, round_to):
    exact, kept = kept_at_rate(size, percent / 100), kept_at_rate(size, percent / 100, round_to)
    if size <= round_to or exact == size:
        assert kept == exact
    else:
        multiples = range(round_to, size + 1, round_to)
        assert abs(kept - exact) == min(abs(m - exact) for m in multiples)


@hypothesis.given(SIZES, RATES, RATES, ROUND, LEAST)
def test_a_higher_rate_never_keeps_more(size, first, second, round_to, least):
    low, high = sorted((first, second))
    assert kept_at_rate(size, high / 100, round_to, least) <= kept_at_rate(size, low / 100, round_to, least)


@hypothesis.given(st.integers(0, 600), SIZES, ROUND, LEAST)
def test_rounding_a_rounded_width_changes_nothing(width, size, round_to, least):
    once = round_width(min(width, size), size, round_to, least)
    assert round_width(once, size, round_to, least) == once


@pytest.mark.parametrize(("width", "rounded"), [(12, 8), (13, 16), (4, 8), (3, 8), (20, 16), (31, 24), (29, 24)])
def test_ties_go_down_and_a_narrowed_group_is_narrower(width, rounded):
    assert round_width(width, 31, 8) == rounded if width < 31 else 31


@hypothesis.given(SIZES, RATES, ROUND, LEAST)
def test_fixed_rate_stops_at_its_limit_and_not_before(size, percent, round_to, least):
    rule = FixedRate(percent / 100, round_to, least)
    limit = rule.limit(size)
    assert limit == kept_at_rate(size, percent / 100, round_to, least)
    assert rule.done([1.0], limit, size)
    assert not rule.done([1.0, 1.0], limit - 1, size)


@hypothesis.given(st.floats(0.1, 10), st.floats(0, 10), st.floats(0, 10), st.floats(1e-6, 1))
def test_sc1_is_equation_10(first, before, now, epsilon):
    change = abs(before - now) / first
    hypothesis.assume(abs(change - epsilon) > 1e-9)
    assert RelativeChange(epsilon).done([first, before, now], 4, 10) == (change <= epsilon)


def test_sc1_needs_two_losses_and_the_minimum():
    assert not RelativeChange(1.0).done([3.0], 0, 10)
    rule = RelativeChange(1.0, minimum=5)
    assert not rule.done([1.0, 1.0], 4, 10)
    assert rule.done([1.0, 1.0], 5, 10)
    assert rule.done([1.0, 1.0], 3, 3)


def test_a_rising_loss_counts_by_how_much_it_changes():
    assert not RelativeChange(0.1).done([1.0, 0.5, 0.8], 4, 10)


@hypothesis.given(SIZES, RATES)
def test_the_cap_of_sc2_is_equation_11(size, percent):
    rule = RelativeChangeOrCap(1e-9, min_rate=percent / 100)
    cap = math.ceil(Fraction(100 - percent, 100) * size)
    assert rule.limit(size) == max(1, cap)
    assert rule.done([1.0, 0.9, 0.5], rule.limit(size), size)


@hypothesis.given(SIZES, RATES, ROUND, LEAST, st.lists(st.floats(0, 5), min_size=1, max_size=8), st.integers(1, 5))
def test_sc2_never_passes_the_cap_and_stops_at_multiples(size, percent, round_to, least, losses, per_step):
    rule = RelativeChangeOrCap(1e-2, round_to, least, percent / 100)
    limit, kept, seen = rule.limit(size), 0, [1.0]
    while not rule.done(seen, kept, size):
        kept += min(per_step, limit - kept)
        seen.append(losses[len(seen) % len(losses)])
        assert len(seen) <= size + 1
    assert min(least, size) <= kept <= limit <= size
    if size > round_to and kept < size:
        assert kept % round_to == 0
