"""dcp_tf: discrimination-aware pruning of Keras models, down to a measured TFLite file.

Everything is imported when it is first used, so that `import dcp_tf` is instant.
"""

import importlib
import os
import pathlib
import sys
from typing import TYPE_CHECKING

if "keras" not in sys.modules:  # else its backend is chosen already
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")

if TYPE_CHECKING:
    from dcp_tf import tflite
    from dcp_tf.errors import RunError, UsageError
    from dcp_tf.graph import ChannelGraph, ChannelGroup, Cost, count_cost, register_rule, replace_prelu, rotate_streams
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
        prune,
        register_importance,
    )
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

__version__ = "0.2.0"

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
    "replace_prelu",
    "rotate_streams",
    "tflite",
    "to_functional",
]

_HOMES = ("errors", "models", "graph", "training", "pruning", "workflow")  # each imports those before it

# In a checkout `tools/` and `tflite/` lie beside this package; installation moves them into it (see setup.py).
_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
if (_CHECKOUT / "WORKSPACE.md").is_file():
    __path__.append(str(_CHECKOUT))


def _require_tensorflow_backend() -> None:
    keras = sys.modules.get("keras")
    backend = os.environ.get("KERAS_BACKEND") if keras is None else keras.config.backend()
    if backend != "tensorflow":
        from dcp_tf.errors import UsageError

        raise UsageError(
            f"dcp_tf needs Keras with the TensorFlow backend, here it is {backend!r}: set the environment variable "
            "KERAS_BACKEND=tensorflow before keras is imported; a model saved under another backend loads with it"
        )


if not TYPE_CHECKING:  # type checkers would take any name for one that exists

    def __getattr__(name: str):
        for home in ("tflite",) if name == "tflite" else _HOMES if name in __all__ else ():
            if home != "errors":
                _require_tensorflow_backend()
            module = importlib.import_module(f"dcp_tf.{home}")
            if name == home:
                return module
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module 'dcp_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
