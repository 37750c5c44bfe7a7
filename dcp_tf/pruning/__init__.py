"""Pruning: Algorithm 1 (stages), Algorithm 2 (greedy selection), stopping rules, criteria, the plan."""

import importlib
import pkgutil
import warnings

from dcp_tf.pruning import importance
from dcp_tf.pruning.budget import Target, Widths, profile
from dcp_tf.pruning.context import Context, prepare
from dcp_tf.pruning.given_plan import GivenPlan
from dcp_tf.pruning.importance.apoz import APoZ
from dcp_tf.pruning.importance.bn_scale import BNScale
from dcp_tf.pruning.importance.criterion import METHODS, Criterion, register_importance
from dcp_tf.pruning.importance.filters import FPGM, L1, L2
from dcp_tf.pruning.importance.reconstruction import Lasso, ThiNet
from dcp_tf.pruning.importance.taylor import Taylor
from dcp_tf.pruning.importance.without_choice import Random, WidthMultiplier
from dcp_tf.pruning.kernel_methods import DCPDKP, DKP, AdaptDKP
from dcp_tf.pruning.methods import DCP, AdaptDCP, Guided, Method
from dcp_tf.pruning.notes import rounding_note
from dcp_tf.pruning.plan import GroupPlan, KernelPlan, PruningPlan
from dcp_tf.pruning.prune_model import PruneResult, prune, prune_prepared


def check(model, data, method, objective, distillation=None):
    """`prepare` under the name that it had in version 0.1.0."""
    warnings.warn("dcp_tf.pruning.check is now dcp_tf.pruning.prepare", DeprecationWarning, stacklevel=2)
    context = prepare(model, data, method, objective=objective, distillation=distillation)
    return context.graph, context.widths


for _module in pkgutil.iter_modules(importance.__path__, f"{importance.__name__}."):
    importlib.import_module(_module.name)  # a criterion registers itself

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
    "Context",
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
    "prepare",
    "profile",
    "prune",
    "prune_prepared",
    "register_importance",
    "rounding_note",
]
