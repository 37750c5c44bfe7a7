"""Pruning: Algorithm 1 (stages), Algorithm 2 (greedy selection), stopping rules, criteria, the plan."""

from dcp_tf.pruning.budget import Target, Widths, profile
from dcp_tf.pruning.methods import DCP, L1, METHODS, AdaptDCP, Method, Random
from dcp_tf.pruning.plan import GroupPlan, PruningPlan
from dcp_tf.pruning.prune import PruneResult, check, prune

__all__ = [
    "DCP",
    "L1",
    "METHODS",
    "AdaptDCP",
    "GroupPlan",
    "Method",
    "PruneResult",
    "PruningPlan",
    "Random",
    "Target",
    "Widths",
    "check",
    "profile",
    "prune",
]
