"""Old names of public things, which work for one more version and warn."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def renamed(module: str, names: Mapping[str, str], stacklevel: int = 2) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a module whose public names changed.

    Args:
        module: its `__name__`.
        names: old name -> new name, both in that module.
        stacklevel: 2 where Python calls what is returned, 3 where the module's own `__getattr__` does.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {module}.{names[name]}", DeprecationWarning, stacklevel)
        return getattr(importlib.import_module(module), names[name])

    return get
