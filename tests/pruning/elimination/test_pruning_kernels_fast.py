"""The quadratic model of the fast selection, for channels and kernels: its gradient is L_M's, its elimination exact."""

import keras
import numpy as np
import pytest
from kernel_problems import QUADRATIC, kernel_problem
from pruning_nets import Setting, build

from dcp_tf.pruning.elimination.kernels import MAX_WORK, eliminate_kernels, work
from dcp_tf.pruning.elimination.quadratic import Quadratic, patches
from dcp_tf.pruning.elimination.select import is_fast, quadratics
from dcp_tf.pruning.problem.problem import SubProblem


def matrices(problem):
    return [consumer.matrix for consumer in problem.consumers]


@pytest.mark.parametrize("kernels", [False, True], ids=["channels", "kernels"])
@pytest.mark.parametrize("net", QUADRATIC)
def test_the_gradient_of_the_model_is_that_of_the_reconstruction_loss(net, kernels):
    settings = SubProblem(0.7, 0.0)
    setting = Setting(build(QUADRATIC[net]), settings=settings)
    problem = kernel_problem(setting, settings) if kernels else setting.problem
    assert is_fast(problem)
    rng = np.random.default_rng(1)
    for consumer in problem.consumers:
        consumer.kernel.assign(consumer.kernel + rng.normal(0, 0.5, consumer.kernel.shape))
    parts = quadratics(problem)
    problem.loss()
    for part, weights, gradient in zip(parts, matrices(problem), problem._gradients, strict=True):
        expected = gradient.reshape(weights.shape)
        slopes = (part.hessian @ weights - part.linear) @ part.metric
        assert np.abs(slopes - expected).max() <= 1e-5 * np.abs(expected).max()


def random_kernels(rng, inputs, size, outputs, metric=True, first=0, others=0):
    """A quadratic model in which every pair of an input and an output is an atom."""
    rows = inputs * size + others
    matrix, measure = rng.normal(size=(4 * rows, rows)), rng.normal(size=(3 * outputs, outputs))
    atom = np.full((rows, outputs), -1)
    for place in range(size):
        for i in range(inputs):
            atom[place * inputs + i] = first + i * outputs + np.arange(outputs)
    linear, metric = rng.normal(size=(rows, outputs)), measure.T @ measure if metric else None
    return Quadratic(matrix.T @ matrix, linear, atom, np.ones((rows, outputs), bool), metric)


def best_value(parts, selected):
    return sum(part.separated().value(part.fit(selected) * scale(part)) for part in parts)


def scale(part):
    return 1 if part.metric is None else np.sqrt(np.diag(part.metric))


PARTS = {
    "one": lambda rng: [random_kernels(rng, 3, 2, 3)],
    "places of another group": lambda rng: [random_kernels(rng, 3, 2, 2, others=2)],
    "two consumers": lambda rng: [random_kernels(rng, 2, 3, 2), random_kernels(rng, 3, 1, 2, metric=False, first=4)],
}


@pytest.mark.parametrize("which", PARTS)
@pytest.mark.parametrize("holes", [False, True], ids=["whole", "holes"])
def test_each_removal_is_the_cheapest_and_costs_what_refitting_says(which, holes, monkeypatch):
    """Costs of one output do not depend on others, so the cheapest of all kernels is the cheapest of its output."""
    monkeypatch.setattr("dcp_tf.pruning.elimination.kernels._BYTES_AT_A_TIME", 1)  # one output at a time
    parts = PARTS[which](np.random.default_rng(2))
    if holes:  # a kernel that is gone before, so that outputs have different places
        parts[0].mask[parts[0].atom == 1] = False
        parts[0].atom[parts[0].atom == 1] = -1
    atoms = np.unique(np.concatenate([p.atom[p.atom >= 0] for p in parts]))
    order, rises = eliminate_kernels(parts)
    assert sorted(order) == atoms.tolist()
    selected = np.zeros(atoms.max() + 1, bool)
    selected[atoms] = True
    for atom, rise in zip(order, rises, strict=True):
        values = {}
        for k in np.flatnonzero(selected):
            without = selected.copy()
            without[k] = False
            values[k] = best_value(parts, without) - best_value(parts, selected)
        assert rise == pytest.approx(values[atom], rel=2e-2, abs=1e-6)
        assert values[atom] <= min(values.values()) * (1 + 2e-2) + 1e-6
        selected[atom] = False


def test_outputs_together_and_one_by_one_go_in_the_same_order(monkeypatch):
    parts = [random_kernels(np.random.default_rng(4), 4, 3, 5)]
    together = eliminate_kernels(parts)
    monkeypatch.setattr("dcp_tf.pruning.elimination.kernels._BYTES_AT_A_TIME", 1)
    alone = eliminate_kernels(parts)
    assert together[0] == alone[0]
    np.testing.assert_allclose(together[1], alone[1], rtol=1e-9)


def test_masked_entries_of_a_fit_are_zero():
    part = random_kernels(np.random.default_rng(5), 3, 2, 3, others=1)
    part.mask[2, 1] = part.mask[-1, 0] = False
    selected = np.arange(9) % 2 == 0
    weights = part.fit(selected)
    gone = ~part.mask | ((part.atom >= 0) & ~selected[part.atom])
    assert not weights[gone].any()
    assert weights[~gone].all()
    # What is fitted is the minimum: no slope along any place that may change.
    slopes = part.hessian @ weights - part.linear
    assert np.abs(slopes[~gone]).max() < 0.01 * np.abs(part.linear).max()


def test_the_limit_of_work_lets_layers_of_common_size_through():
    assert work(9 * 64, 64) < MAX_WORK < work(9 * 512, 512)


def test_patches_of_a_dense_layer_are_its_inputs():
    layer = keras.layers.Dense(2)
    inputs = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    layer(inputs)
    np.testing.assert_array_equal(patches(layer, inputs), inputs.reshape(-1, 5))
