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
    from dcp_tf.pruning import DCP, DCPDKP, DKP, L1, AdaptDCP, AdaptDKP, PruneResult, PruningPlan, Random, Target
    from dcp_tf.pruning.prune import prune  # not from the package, where the module hides it from type checkers
    from dcp_tf.training import Classification, Custom, Embedding, Objective, Regression, TrainConfig

__version__ = "0.1.0"

__all__ = [
    "DCP",
    "DCPDKP",
    "DKP",
    "L1",
    "AdaptDCP",
    "AdaptDKP",
    "ChannelGraph",
    "ChannelGroup",
    "Classification",
    "Cost",
    "Custom",
    "Embedding",
    "Objective",
    "PruneResult",
    "PruningPlan",
    "Random",
    "Regression",
    "RunError",
    "Target",
    "TrainConfig",
    "UsageError",
    "count_cost",
    "prune",
    "register_rule",
    "tflite",
]

_HOME = {
    **dict.fromkeys(("RunError", "UsageError"), "dcp_tf.errors"),
    **dict.fromkeys(("ChannelGraph", "ChannelGroup", "Cost", "count_cost", "register_rule"), "dcp_tf.graph"),
    **dict.fromkeys(("DCP", "DCPDKP", "DKP", "L1", "AdaptDCP", "AdaptDKP", "Random", "Target"), "dcp_tf.pruning"),
    **dict.fromkeys(("PruneResult", "PruningPlan", "prune"), "dcp_tf.pruning"),
    **dict.fromkeys(
        ("Classification", "Custom", "Embedding", "Objective", "Regression", "TrainConfig"), "dcp_tf.training"
    ),
}

# In a checkout `tools/` and `tflite/` lie beside this package; installation moves them into it (see setup.py).
_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
if (_CHECKOUT / "WORKSPACE.md").is_file():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name == "tflite":
        return importlib.import_module("dcp_tf.tflite")
    raise AttributeError(f"module 'dcp_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
