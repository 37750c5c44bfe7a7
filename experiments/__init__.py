"""The rows of the papers' tables, one short function each: `dcp-tf prune --experiment=NAME`.

`--list_experiments` lists them. A setting is taken from the first of these that states it:

1. the flag itself on the command line;
2. `--override=NAME=VALUE`, for settings of the baseline's training `--override=baseline.NAME=VALUE`;
3. the experiment;
4. the flag's default.

`--epochs_scale` then shortens all trainings.
"""

import inspect
import types
from collections.abc import Callable

from dcp_tf.experiments import cifar10, faces, imagenet
from dcp_tf.experiments.recipe import Experiment


def _rows(module: types.ModuleType) -> dict[str, Callable[[], Experiment]]:
    return {n: f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__}


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    name: function for module in (cifar10, imagenet, faces) for name, function in _rows(module).items()
}

__all__ = ["EXPERIMENTS", "Experiment"]
