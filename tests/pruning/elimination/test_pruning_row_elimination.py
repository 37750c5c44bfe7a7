"""Channels of one row each go in the same order, at the same costs, as fitting every subset anew would say."""

import numpy as np
import pytest

from dcp_tf.pruning.elimination.quadratic import Quadratic, _Elimination, eliminate
from dcp_tf.pruning.elimination.rows import RowElimination


def problem(rows, outputs, others=0, seed=0, metric=True):
    """Inputs that depend on each other, and `others` rows that belong to no channel."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(3 * rows, rows)) @ (np.eye(rows) + 0.5 * rng.normal(size=(rows, rows)) / rows**0.5)
    gram = inputs.T @ inputs / len(inputs)
    root = rng.normal(size=(outputs, 2 * outputs))
    atom = np.full(rows, -1)
    atom[rng.permutation(rows)[others:]] = np.arange(rows - others)
    kernel = rng.normal(size=(rows, outputs))
    matters = root @ root.T / outputs if metric else None
    return Quadratic(gram, gram @ kernel, atom[:, None], np.ones((rows, 1), bool), matters), rows - others


def step_by_step(parts, size):
    """The same elimination with all updates done at once, in scaled outputs."""
    states = [_Elimination(part.scaled(), size) for part in parts]
    selected, order, rises = np.ones(size, bool), [], []
    for _ in range(size):
        costs = np.where(selected, sum(state.costs(selected) for state in states), np.inf)
        order.append(int(np.argmin(costs)))
        rises.append(float(costs[order[-1]]))
        selected[order[-1]] = False
        for state in states:
            state.remove(order[-1])
    return order, rises


@pytest.mark.parametrize(
    ("rows", "outputs", "others", "metric"), [(20, 3, 0, True), (150, 40, 20, True), (130, 200, 0, False)]
)
def test_order_and_costs_are_those_of_immediate_updates(rows, outputs, others, metric):
    part, size = problem(rows, outputs, others, metric=metric)
    order, rises = eliminate([part], size)
    expected, costs = step_by_step([part], size)
    assert order == expected
    np.testing.assert_allclose(rises, costs, rtol=1e-6, atol=1e-9 * max(costs))


def test_several_consumers_add_up():
    (a, size), (b, _) = problem(90, 10, 10), problem(80, 7, seed=1)
    order, rises = eliminate([a, b], size)
    expected, costs = step_by_step([a, b], size)
    assert order == expected
    np.testing.assert_allclose(rises, costs, rtol=1e-6)


def test_costs_are_what_fitting_anew_says():
    part, size = problem(100, 5)
    order, rises = eliminate([part], size)
    selected = np.ones(size, bool)
    selected[order[:75]] = False
    full = part.value(part.fit(np.ones(size, bool)))
    np.testing.assert_allclose(sum(rises[:75]), part.value(part.fit(selected)) - full, rtol=2e-2)


def test_a_channel_that_no_row_reads_costs_nothing():
    part, size = problem(10, 3)
    state = RowElimination(np.linalg.inv(part.hessian), part.linear @ part.linear.T, part.atom[:, 0], size + 1)
    assert state.costs(np.ones(size + 1, bool))[size] == 0
    state.remove(size)
    assert (state.costs(np.ones(size + 1, bool))[:size] > 0).all()
