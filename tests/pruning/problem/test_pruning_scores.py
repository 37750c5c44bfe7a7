"""The scores against their definitions, written down in loops, and the curvatures against the loss itself."""

import numpy as np
import pytest
from kernel_problems import QUADRATIC, READERS, kernel_problem
from pruning_nets import NETS, Setting, build
from test_pruning_gradients import Reference

from dcp_tf.pruning.dcp.dispatch import _attach_curvatures
from dcp_tf.pruning.problem.problem import SubProblem
from dcp_tf.pruning.problem.scores import SCORES


def scored(net, kernels, score, selected=(1, 2)):
    """A problem after a step of the selection, its scores, and what they are made of."""
    setting = Setting(build(NETS[net]))
    settings = SubProblem(score=score)
    problem = kernel_problem(setting, settings) if kernels else Setting(build(NETS[net]), settings=settings).problem
    problem.curvatures = np.random.default_rng(3).uniform(0.1, 2.0, problem.size)
    start = [r.kernel.numpy() for r in problem.consumers]
    mask = np.zeros(problem.size, bool)
    mask[list(selected)] = True
    problem.solve(mask)
    return problem, problem.scores(), problem._gradients, start


def kernels_of(consumer):
    """Per kernel of a 2-D convolution or a Dense layer its index in the weight."""
    inputs, outputs = consumer.kernel.shape[-2:]
    return [(..., i, o) for i in range(inputs) for o in range(outputs)]


def atom_at(consumer, index):
    atoms = np.broadcast_to(consumer.atom, [*consumer.kernel.shape])
    return int(atoms[index].ravel()[0])


def by_hand(problem, of_kernel):
    """The sum over all kernels of an atom."""
    totals = np.zeros(problem.size)
    for number, consumer in enumerate(problem.consumers):
        for index in kernels_of(consumer):
            if (atom := atom_at(consumer, index)) >= 0:
                totals[atom] += of_kernel(number, index)
    return totals


NAMES = ("several_channels", "concatenated", "flattened")


@pytest.mark.parametrize("kernels", [False, True], ids=["channels", "kernels"])
@pytest.mark.parametrize("net", NAMES)
def test_paper_is_the_frobenius_norm_of_the_gradient(net, kernels):
    problem, scores, gradients, _ = scored(net, kernels, "paper")
    squares = by_hand(problem, lambda n, index: np.square(gradients[n][index]).sum())
    np.testing.assert_allclose(scores, np.sqrt(squares), rtol=1e-5)


@pytest.mark.parametrize("kernels", [False, True], ids=["channels", "kernels"])
@pytest.mark.parametrize("net", NAMES)
def test_code_adds_up_the_norms_of_the_kernels(net, kernels):
    problem, scores, gradients, _ = scored(net, kernels, "code")
    norms = by_hand(problem, lambda n, index: np.linalg.norm(gradients[n][index]))
    np.testing.assert_allclose(scores, norms, rtol=1e-5)


@pytest.mark.parametrize("kernels", [False, True], ids=["channels", "kernels"])
@pytest.mark.parametrize("net", NAMES)
def test_reduction_is_the_fall_of_the_loss_to_second_order(net, kernels):
    problem, scores, gradients, start = scored(net, kernels, "reduction")
    slopes = by_hand(problem, lambda n, index: (gradients[n][index] * start[n][index]).sum())
    np.testing.assert_allclose(scores, -slopes - 0.5 * problem.curvatures, rtol=1e-4, atol=1e-6)


def test_paper_prefers_one_large_kernel_where_code_prefers_many_small_ones():
    consumers = Setting(build(NETS["several_channels"])).consumers
    gradient = np.zeros(consumers[0].kernel.shape)
    gradient[1, 1, 0, 2] = 3
    gradient[0, 2, 1, :] = 1
    paper, code = (SCORES[name](consumers, [gradient], [gradient], np.zeros(5)) for name in ("paper", "code"))
    assert paper.tolist() == [3, 2, 0, 0, 0]
    assert code.tolist() == [3, 4, 0, 0, 0]


@pytest.mark.parametrize("kernels", [False, True], ids=["channels", "kernels"])
@pytest.mark.parametrize("net", QUADRATIC)
def test_curvatures_are_those_of_the_reconstruction_loss(net, kernels):
    make, factor = QUADRATIC[net], 0.7
    model = build(make)
    settings = SubProblem(factor, 0.0, score="reduction")
    setting = Setting(model, settings=settings)
    problem = kernel_problem(setting, settings) if kernels else setting.problem
    _attach_curvatures(problem)
    assert problem.curvatures.shape == (problem.size,)
    reference = Reference(make, model, READERS.get(net, ["read"]))
    starts = [(r, reference.kernel(r), r.kernel.numpy().astype("float64")) for r in problem.consumers]
    for atom in range(0, problem.size, 7 if kernels else 1):
        losses = []
        for sign in (1, 0, -1):
            for consumer, kernel, start in starts:
                kernel.assign(sign * start * (consumer.atom == atom))
            losses.append(factor * float(reference.terms()[0]))
        curvature = losses[0] - 2 * losses[1] + losses[2]  # L_M is a quadratic function
        assert problem.curvatures[atom] == pytest.approx(curvature, rel=1e-4, abs=1e-7)


def test_a_problem_whose_score_needs_no_curvatures_gets_none():
    setting = Setting(build(NETS["several_channels"]), settings=SubProblem(score="paper"))
    _attach_curvatures(setting.problem)
    assert not setting.problem.curvatures.any()


def test_every_score_gives_one_finite_number_for_each_atom():
    for score in SCORES:
        _, scores, *_ = scored("concatenated", True, score)
        assert np.isfinite(scores).all()
