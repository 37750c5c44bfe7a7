"""dcp_tf: discrimination-aware pruning of Keras models, down to a measured TFLite file.

Everything is imported when it is first used, so that `import dcp_tf` is instant.
"""

import importlib
import os
import pathlib
from typing import TYPE_CHECKING

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

if TYPE_CHECKING:
    from dcp_tf import tflite
    from dcp_tf.errors import RunError, UsageError
    from dcp_tf.graph import ChannelGraph, ChannelGroup, Cost, count_cost, register_rule
    from dcp_tf.models import to_functional
    from dcp_tf.pruning import (
        DCP,
        DCPDKP,
        DKP,
        FPGM,
        L1,
        L2,
        AdaptDCP,
        AdaptDKP,
        APoZ,
        BNScale,
        Criterion,
        Lasso,
        PruneResult,
        PruningPlan,
        Random,
        Target,
        Taylor,
        ThiNet,
        WidthMultiplier,
        register_importance,
    )
    from dcp_tf.pruning.prune import prune  # not from the package, where the module hides it from type checkers
    from dcp_tf.training import (
        Classification,
        Custom,
        Embedding,
        Joint,
        MaskedKernels,
        Objective,
        Regression,
        TrainConfig,
        distill,
        distiller,
    )
    from dcp_tf.workflow import ExportResult, Pruner, export

__version__ = "0.1.0"

__all__ = [
    "DCP",
    "DCPDKP",
    "DKP",
    "FPGM",
    "L1",
    "L2",
    "APoZ",
    "AdaptDCP",
    "AdaptDKP",
    "BNScale",
    "ChannelGraph",
    "ChannelGroup",
    "Classification",
    "Cost",
    "Criterion",
    "Custom",
    "Embedding",
    "ExportResult",
    "Joint",
    "Lasso",
    "MaskedKernels",
    "Objective",
    "PruneResult",
    "Pruner",
    "PruningPlan",
    "Random",
    "Regression",
    "RunError",
    "Target",
    "Taylor",
    "ThiNet",
    "TrainConfig",
    "UsageError",
    "WidthMultiplier",
    "count_cost",
    "distill",
    "distiller",
    "export",
    "prune",
    "register_importance",
    "register_rule",
    "tflite",
    "to_functional",
]

_HOMES = ("errors", "models", "graph", "training", "pruning", "workflow")  # each imports those before it

# In a checkout `tools/` and `tflite/` lie beside this package; installation moves them into it (see setup.py).
_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
if (_CHECKOUT / "WORKSPACE.md").is_file():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str):
    if name == "tflite":
        return importlib.import_module("dcp_tf.tflite")
    for home in _HOMES if name in __all__ else ():
        module = importlib.import_module(f"dcp_tf.{home}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module 'dcp_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
