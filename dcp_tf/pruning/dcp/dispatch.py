"""Which way one group is selected: in the quadratic model or step by step, by losses or by a criterion's ranking."""

import math
from collections.abc import Callable

import numpy as np

from dcp_tf.pruning.elimination.select import adopt_ranked, is_fast, quadratics, select_fast
from dcp_tf.pruning.elimination.thinet_lasso import choose_in_models
from dcp_tf.pruning.methods import Guided
from dcp_tf.pruning.problem.algorithm2 import LossTerms, Selection, select_greedily
from dcp_tf.pruning.problem.problem import ChannelProblem


def choose(
    problem: ChannelProblem,
    method: Guided,
    width: int,
    ranking: np.ndarray | None = None,
    on_step: Callable[[int, int, float], None] = lambda kept, limit, loss: None,
) -> Selection:
    """Selects the channels of one group and fits the weights that read them.

    Args:
        problem: of the group.
        method: with its settings.
        width: how many channels stay at most.
        ranking: scores of the channels by a criterion, where the losses shall only guide the weights.
        on_step: as for `select_greedily`.
    """
    stopping, per_step = method.stopping(width), method.step_size(width)
    if method.chooser is not None:
        return choose_in_models(problem, method.chooser, stopping.limit(problem.size))
    if method.selection == "fast" and is_fast(problem):
        if ranking is not None:
            return adopt_ranked(problem, stopping, ranking)
        return select_fast(problem, stopping, per_step)
    if ranking is not None:
        problem = Ranked(problem, ranking)
    else:
        _attach_curvatures(problem)
    return select_greedily(problem, stopping, per_step, on_step)


def choose_kernels(
    problem: ChannelProblem,
    method: Guided,
    on_step: Callable[[int, int, float], None] = lambda kept, limit, loss: None,
) -> Selection:
    """Selects the kernels of one layer and fits them (DKP).

    Args:
        problem: of the layer, with kernels as atoms.
        method: with its settings.
        on_step: as for `select_greedily`.
    """
    stopping = method.kernel_stopping()
    consumer = problem.consumers[0]
    filters = math.prod(consumer.kernel.shape[-2:]) // consumer.kernel.shape[consumer.axis]
    per_step = method.kernel_step_size(stopping.limit(problem.size), filters)
    if method.selection == "fast" and is_fast(problem):
        return select_fast(problem, stopping, per_step)
    _attach_curvatures(problem)
    return select_greedily(problem, stopping, per_step, on_step)


def _attach_curvatures(problem: ChannelProblem) -> None:
    """Gives a problem the curvatures that its score asks for, where the quadratic model knows them."""
    if problem.settings.score == "reduction" and not problem.pairs and is_fast(problem):
        parts = quadratics(problem)
        problem.curvatures = sum(
            part.curvatures(consumer.matrix, problem.size)
            for part, consumer in zip(parts, problem.consumers, strict=True)
        )


class Ranked:
    """A problem whose atoms come in by a criterion's scores: the choice is the criterion's, the weights are L's."""

    def __init__(self, problem: ChannelProblem, ranking: np.ndarray):
        self.size, self.head = problem.size, problem.head
        self._problem = problem
        self._ranking = ranking

    def scores(self) -> np.ndarray:
        """The criterion's."""
        return self._ranking

    def loss(self) -> LossTerms:
        """The problem's."""
        return self._problem.loss()

    def solve(self, selected: np.ndarray) -> None:
        """The problem's."""
        self._problem.solve(selected)
