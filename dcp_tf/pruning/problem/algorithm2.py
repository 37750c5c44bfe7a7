"""Algorithm 2 of Liu et al. 2021: greedy selection of channels or kernels."""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from dcp_tf.graph.labels import best_of_each, head_count
from dcp_tf.pruning.stopping import StoppingRule


@dataclasses.dataclass(frozen=True)
class LossTerms:
    """The joint loss and its two parts over the whole selection set (eq. 6)."""

    joint: float
    reconstruction: float
    discrimination: float


class SelectionProblem(Protocol):
    """One layer's problem: which atoms (channels or kernels) of W to keep.

    Attributes:
        size: number of atoms.
    """

    size: int

    def scores(self) -> np.ndarray:
        """`||dL/dW_k||_F` for each atom k at the current W, over the whole selection set, shape (size,)."""

    def loss(self) -> LossTerms:
        """The loss at the current W, over the whole selection set."""

    def solve(self, selected: np.ndarray) -> None:
        """Minimizes L over W_A, warm-started, with W outside of A held at zero (eq. 8, 9)."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """The result of one selection.

    Attributes:
        selected: boolean, shape (size,).
        history: lists with an entry per step, from t = 0: `kept`, `loss`, `reconstruction`, `discrimination` and
            `added` (the atoms of the step, best first).
    """

    selected: np.ndarray
    history: dict[str, list]


def select_greedily(
    problem: SelectionProblem,
    stopping: StoppingRule,
    per_step: int = 2,
    on_step: Callable[[int, int, float], None] = lambda kept, limit, loss: None,
) -> Selection:
    """Algorithm 2: adds the `per_step` atoms with the largest gradients, solves, until the stopping rule holds.

    Args:
        problem: gives scores and losses, and minimizes over the selected atoms.
        stopping: fixed rate, SC1 or SC2.
        per_step: B, atoms added per step.
        on_step: called after each step with the kept count, its limit and the loss.

    Returns:
        The selected set A and the loss of each step.
    """
    selected = np.zeros(problem.size, bool)
    limit = stopping.limit(problem.size)
    head = getattr(problem, "head", None)
    per_step = whole_steps(per_step, head)
    problem.solve(selected)
    history = {"kept": [], "loss": [], "reconstruction": [], "discrimination": [], "added": []}
    _record(history, problem.loss(), selected, [])
    while not stopping.done(history["loss"], int(selected.sum()), problem.size):
        best = largest_outside(problem.scores(), selected, min(per_step, limit - int(selected.sum())), head)
        selected[best] = True
        problem.solve(selected)
        _record(history, problem.loss(), selected, best.tolist())
        on_step(int(selected.sum()), limit, history["loss"][-1])
    return Selection(selected, history)


def largest_outside(scores: np.ndarray, selected: np.ndarray, count: int, head: np.ndarray | None = None) -> np.ndarray:
    """The `count` atoms outside `selected` with the largest scores, best first; of equal scores the lower index.

    Of channels in attention heads as many of each; `head` has the number of each channel's.
    """
    outside = np.flatnonzero(~selected)
    return best_of_each(outside[np.argsort(-scores[outside], kind="stable")], count, head)


def whole_steps(per_step: int, head: np.ndarray | None) -> int:
    """B as a multiple of the number of attention heads, if the atoms lie in such."""
    heads = head_count(head)
    return heads * math.ceil(per_step / heads)


def _record(history: dict[str, list], terms: LossTerms, selected: np.ndarray, added: list[int]) -> None:
    history["kept"].append(int(selected.sum()))
    history["loss"].append(terms.joint)
    history["reconstruction"].append(terms.reconstruction)
    history["discrimination"].append(terms.discrimination)
    history["added"].append(added)
