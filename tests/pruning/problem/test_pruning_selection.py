"""Algorithm 2: the loop over a made-up problem, and the whole of it against a slow reference in NumPy."""

import numpy as np
import pytest
from algorithm2_in_numpy import DECAY, LAMBDA, MOMENTUM, RATE, RULES, InNumPy, MadeUp, make_net
from pruning_nets import Setting, images

from dcp_tf.pruning.problem.algorithm2 import select_greedily
from dcp_tf.pruning.problem.problem import SubProblem
from dcp_tf.pruning.stopping import FixedRate, RelativeChange


def test_largest_scores_come_first_and_ties_go_to_the_lower_number():
    problem = MadeUp([1, 5, 3, 5, 0, 3])
    selection = select_greedily(problem, FixedRate(1 / 6), per_step=2)
    assert selection.history["added"] == [[], [1, 3], [2, 5], [0]]
    assert selection.history["kept"] == [0, 2, 4, 5]
    assert problem.solved == [[], [1, 3], [1, 2, 3, 5], [0, 1, 2, 3, 5]]
    assert np.flatnonzero(selection.selected).tolist() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(("per_step", "steps"), [(1, 5), (2, 3), (3, 2), (5, 1), (50, 1)])
def test_a_step_never_adds_more_than_is_left(per_step, steps):
    problem = MadeUp(range(10))
    selection = select_greedily(problem, FixedRate(0.5), per_step=per_step)
    assert np.flatnonzero(selection.selected).tolist() == [5, 6, 7, 8, 9]
    assert len(problem.solved) == steps + 1


def test_each_step_is_told_with_its_limit():
    told = []
    select_greedily(MadeUp(range(8), [4.0, 3.0, 2.0]), FixedRate(0.5), 2, lambda *step: told.append(step))
    assert told == [(2, 4, 3.0), (4, 4, 2.0)]


def test_history_has_an_entry_per_step_from_the_empty_set():
    history = select_greedily(MadeUp(range(4), [4.0, 3.0]), FixedRate(0.5), 2).history
    assert history == {
        "kept": [0, 2],
        "loss": [4.0, 3.0],
        "reconstruction": [1.0, 0.75],
        "discrimination": [3.0, 2.25],
        "added": [[], [3, 2]],
    }


def test_sc1_takes_every_channel_where_the_loss_keeps_falling():
    losses = [2.0**-i for i in range(20)]
    assert select_greedily(MadeUp(range(9), losses), RelativeChange(1e-9), 2).selected.all()


@pytest.mark.parametrize(
    ("size", "per_step", "rule"),
    [
        *((1, 1, rule) for rule in RULES),
        *((3, 2, rule) for rule in RULES),
    ],
)
def test_selection_equals_algorithm_2_in_numpy(size, per_step, rule):
    stopping, done, most = RULES[rule]
    model, (x, y) = make_net(size), images(14, seed=5)
    reference = InNumPy(model, x, y, batch=5, seed=7)
    settings = SubProblem(LAMBDA, 1.0, learning_rate=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    setting = Setting(model, settings=settings, data=(x, y), batch=5, seed=7)
    selection = select_greedily(setting.problem, stopping, per_step)
    added, losses = reference.algorithm_2(per_step, done, most)
    assert selection.history["added"] == [[], *added]
    np.testing.assert_allclose(selection.history["loss"], losses, rtol=1e-5)
    kernel, bias = (w.numpy() for w in model.get_layer("read").weights)
    np.testing.assert_allclose(kernel, reference.kernel, atol=1e-5)
    np.testing.assert_allclose(bias, reference.bias, atol=1e-5)
