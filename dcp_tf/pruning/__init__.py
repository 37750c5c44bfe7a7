"""Pruning: Algorithm 1 (stages), Algorithm 2 (greedy selection), stopping rules, criteria, the plan."""

from dcp_tf.pruning.budget import Target, Widths, profile
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.kernel_methods import DCPDKP, DKP, AdaptDKP
from dcp_tf.pruning.methods import DCP, AdaptDCP, Guided, Method
from dcp_tf.pruning.plan import GroupPlan, KernelPlan, PruningPlan
from dcp_tf.pruning.prune import PruneResult, check, prune
from dcp_tf.pruning.rivals import FPGM, L1, L2, APoZ, BNScale, Criterion, Lasso, Random, Taylor, ThiNet, WidthMultiplier
from dcp_tf.pruning.rounding import rounding_note

_CLASSES = (
    *(DCP, AdaptDCP, DKP, DCPDKP, AdaptDKP),
    *(Random, L1, L2, FPGM, BNScale, Taylor, APoZ, ThiNet, Lasso, WidthMultiplier),
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _CLASSES}

__all__ = [
    "DCP",
    "DCPDKP",
    "DKP",
    "FPGM",
    "L1",
    "L2",
    "METHODS",
    "APoZ",
    "AdaptDCP",
    "AdaptDKP",
    "BNScale",
    "Criterion",
    "GivenPlan",
    "GroupPlan",
    "Guided",
    "KernelPlan",
    "Lasso",
    "Method",
    "PruneResult",
    "PruningPlan",
    "Random",
    "Target",
    "Taylor",
    "ThiNet",
    "WidthMultiplier",
    "Widths",
    "check",
    "profile",
    "prune",
    "rounding_note",
]
