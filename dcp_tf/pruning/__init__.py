"""Pruning: Algorithm 1 (stages), Algorithm 2 (greedy selection), stopping rules, criteria, the plan."""

from dcp_tf.pruning.budget import Target, Widths, profile
from dcp_tf.pruning.methods import DCP, AdaptDCP, Guided, Method
from dcp_tf.pruning.plan import GroupPlan, PruningPlan
from dcp_tf.pruning.prune import PruneResult, check, prune
from dcp_tf.pruning.rivals import FPGM, L1, L2, APoZ, BNScale, Criterion, Lasso, Random, Taylor, ThiNet

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (DCP, AdaptDCP, Random, L1, L2, FPGM, BNScale, Taylor, APoZ, ThiNet, Lasso)
}

__all__ = [
    "DCP",
    "FPGM",
    "L1",
    "L2",
    "METHODS",
    "APoZ",
    "AdaptDCP",
    "BNScale",
    "Criterion",
    "GroupPlan",
    "Guided",
    "Lasso",
    "Method",
    "PruneResult",
    "PruningPlan",
    "Random",
    "Target",
    "Taylor",
    "ThiNet",
    "Widths",
    "check",
    "profile",
    "prune",
]
