"""Exact selection of kernels (DKP): Algorithm 2 against a slow reference in NumPy, and where it stops."""

import math

import numpy as np
import pytest
from algorithm2_in_numpy import CHANNELS, DECAY, LAMBDA, MOMENTUM, RATE, RULES, InNumPy, MadeUp, make_net
from kernel_problems import kernel_problem
from pruning_nets import CLASSES, Setting, images

from dcp_tf.pruning import DKP, AdaptDKP
from dcp_tf.pruning.dcp.dispatch import choose_kernels
from dcp_tf.pruning.problem.algorithm2 import select_greedily
from dcp_tf.pruning.problem.problem import SubProblem
from dcp_tf.pruning.stopping import FixedRate

KERNELS = CHANNELS * CLASSES


class KernelsInNumPy(InNumPy):
    """Atoms are kernels: atom `i * CLASSES + o` lies between channel i and filter o."""

    def solve(self, selected):
        speed, bias_speed = np.zeros_like(self.kernel), np.zeros_like(self.bias)
        for number in self.rng.permutation(len(self.batches)):
            _, _, by_kernel, by_bias = self.terms(self.batches[number])
            by_kernel = (by_kernel + DECAY * self.kernel) * selected
            speed, bias_speed = MOMENTUM * speed + by_kernel, MOMENTUM * bias_speed + by_bias
            self.kernel = self.kernel - RATE * (by_kernel + MOMENTUM * speed)
            self.bias = self.bias - RATE * (by_bias + MOMENTUM * bias_speed)

    def paper(self):
        return np.sqrt((self.terms(slice(None))[2] ** 2).sum((0, 1))).ravel()

    def reduction(self):
        """With L_M alone: its curvature along a kernel is what this kernel alone makes of the patches."""
        slopes = (self.terms(slice(None))[2] * self.start).sum((0, 1)).ravel()
        curvatures = np.zeros((CHANNELS, CLASSES))
        for i in range(CHANNELS):
            for o in range(CLASSES):
                alone = np.einsum("nhwab,ab->nhw", self.patches[..., i], self.start[:, :, i, o])
                curvatures[i, o] = LAMBDA * (alone**2).mean() / CLASSES
        return -slopes - curvatures.ravel() / 2

    def dkp(self, score, per_step, done, most):
        selected, added, losses = [], [], [self.loss()]
        while len(selected) < most and not done(losses, len(selected)):
            scores = getattr(self, score)()
            scores[selected] = -np.inf
            best = sorted(range(KERNELS), key=lambda k: (-scores[k], k))[: min(per_step, most - len(selected))]
            for k in best:
                self.kernel[:, :, k // CLASSES, k % CLASSES] = self.start[:, :, k // CLASSES, k % CLASSES]
            selected += best
            self.solve(np.isin(np.arange(KERNELS), selected).reshape(CHANNELS, CLASSES))
            losses.append(self.loss())
            added.append(best)
        return added, losses


class ReconstructionInNumPy(KernelsInNumPy):
    """L_M alone."""

    def terms(self, part):
        error = self.outputs(self.kernel, self.bias, part) - self.target[part]
        by_output = LAMBDA * error / error.size
        by_kernel = np.einsum("nhwabi,nhwo->abio", self.patches[part], by_output)
        return (error**2).sum() / (2 * error.size), 0.0, by_kernel, by_output.sum((0, 1, 2))


def compare(model, selection, reference, added, losses):
    assert selection.history["added"] == [[], *added]
    np.testing.assert_allclose(selection.history["loss"], losses, rtol=1e-5, atol=1e-7)
    kernel, bias = (w.numpy() for w in model.get_layer("read").weights)
    np.testing.assert_allclose(kernel, reference.kernel, atol=1e-5)
    np.testing.assert_allclose(bias, reference.bias, atol=1e-5)
    gone = ~selection.selected.reshape(CHANNELS, CLASSES)
    assert not kernel[:, :, gone].any()


@pytest.mark.parametrize(("size", "per_step", "rule"), [(1, 3, "rate"), *((3, 3, rule) for rule in RULES)])
def test_exact_dkp_equals_algorithm_2_over_kernels_in_numpy(size, per_step, rule):
    stopping, done, _ = RULES[rule]
    most = stopping.limit(KERNELS)
    model, (x, y) = make_net(size), images(14, seed=5)
    reference = KernelsInNumPy(model, x, y, batch=5, seed=7)
    settings = SubProblem(LAMBDA, 1.0, learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY, score="paper")
    problem = kernel_problem(Setting(model, data=(x, y), batch=5, seed=7), settings, seed=7)
    selection = select_greedily(problem, stopping, per_step)
    compare(model, selection, reference, *reference.dkp("paper", per_step, done, most))


def test_exact_dkp_by_reduction_equals_the_same_in_numpy(monkeypatch):
    model, (x, y) = make_net(3), images(14, seed=5)
    reference = ReconstructionInNumPy(model, x, y, batch=5, seed=7)
    settings = SubProblem(LAMBDA, 0.0, RATE, MOMENTUM, DECAY, score="reduction")
    problem = kernel_problem(Setting(model, data=(x, y), batch=5, seed=7), settings, seed=7)
    selection = choose_kernels(problem, DKP(rate=0.3, selection="exact", per_step=1))
    compare(model, selection, reference, *reference.dkp("reduction", CLASSES, lambda *_: False, 13))


# Where it stops


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("size", [1, 7, 48, 1000])
def test_a_fixed_rate_keeps_exactly_its_share(rate, size):
    method = DKP(rate=rate)
    limit = method.kernel_stopping().limit(size)
    assert limit == size - math.floor(round(rate * size, 9))
    step = method.kernel_step_size(limit, 3)
    assert select_greedily(MadeUp(range(size)), method.kernel_stopping(), step).selected.sum() == limit


@pytest.mark.parametrize(
    ("keep", "filters", "per_step", "step"), [(48, 8, None, 8), (960, 8, None, 30), (960, 8, 2, 16)]
)
def test_a_step_adds_the_kernels_of_a_channel_or_as_many_as_keep_the_steps_few(keep, filters, per_step, step):
    assert DKP(per_step=per_step).kernel_step_size(keep, filters) == step


def test_sc2_stops_at_its_cap_or_where_the_loss_stands_still():
    falling, standing = [2.0**-i for i in range(30)], [4.0, 1.0, 0.9999, 0.9998]
    capped = select_greedily(MadeUp(range(20), falling), AdaptDKP(rate=0.35, epsilon=0.0).kernel_stopping(), 3)
    assert capped.selected.sum() == 13
    early = select_greedily(MadeUp(range(20), standing), AdaptDKP(rate=0.35, epsilon=1e-3).kernel_stopping(), 3)
    assert early.selected.sum() == 6


def test_smaller_epsilon_keeps_no_fewer():
    losses = [4 / (i + 1) ** 1.5 for i in range(40)]
    kept = [
        select_greedily(MadeUp(range(30), losses), AdaptDKP(rate=0.1, epsilon=e).kernel_stopping(), 2).selected.sum()
        for e in (0.5, 0.1, 0.02, 1e-3, 0.0)
    ]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] == 27


def test_fixed_rate_of_one_kernel_keeps_it():
    assert FixedRate(0.9).limit(1) == 1
