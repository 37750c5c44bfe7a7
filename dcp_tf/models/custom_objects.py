"""A user's Python file with the custom layers and functions of a model file.

Nothing but Keras is imported here: the check of a written file runs this module by its path, without the package.
"""

import builtins
import dis
import importlib.util
import pathlib
import sys
import types
from typing import Any

import keras

# Keras makes the function of a stored Lambda with the names of this module.
from keras.src.utils import python_utils


def import_custom_objects(path: str) -> dict[str, Any]:
    """Runs a Python file and lets Keras know the classes and functions in it by their names.

    Classes with a `from_config` count (layers, models, initializers, ...), those that the file imports too, and
    functions that are defined in it or beside it. Stored code (Lambda layers) finds all names of the file, such as `tf`
    of `import tensorflow as tf`. Modules in the same folder can be imported, as `import blocks` or as
    `from .blocks import Block`.

    Args:
        path: of a `.py` file. Its code is run.

    Returns:
        The objects by the names that Keras knows them by.

    Raises:
        ImportError: there is no such file, it raises, or nothing of use is in it.
    """
    file = pathlib.Path(path).expanduser().resolve()
    if file.suffix != ".py" or not file.is_file():
        raise ImportError(f"there is no Python file {path}")
    module = run_file(file)
    objects = {}
    for name, value in vars(module).items():
        if _is_useful(value, file.parent):
            objects |= {name: value, value.__name__: value, f"Custom>{value.__name__}": value}
    names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
    if not objects and not any(isinstance(value, types.ModuleType) for value in names.values()):
        raise ImportError(f"{path} holds no layer, no model and no function")
    for name, value in names.items():
        vars(python_utils).setdefault(name, value)
    keras.saving.get_custom_objects().update(objects)
    return objects


def is_custom(layer: keras.Layer) -> bool:
    """Whether a layer is a custom one: its class is not from Keras."""
    return not type(layer).__module__.startswith("keras.")


def lambdas(model: keras.Model) -> list[str]:
    """Names of the Lambda layers of a model, at any depth."""
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, keras.layers.Lambda)]


def unknown_names(layer: keras.layers.Lambda) -> list[str]:
    """Undefined names in the code of a Lambda layer: a file stores only the code."""
    code = getattr(layer.function, "__code__", None)
    if code is None:
        return []
    defined = layer.function.__globals__.keys() | vars(builtins).keys()
    used = [step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"]
    return sorted({name for name in used if name not in defined})


def run_file(file: pathlib.Path) -> types.ModuleType:
    """The module of a Python file, under the name that a script beside it would import it by.

    Raises:
        ImportError: its code raises an error, which is the cause.
    """
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    folder = types.ModuleType(f"_beside_{file.stem}")  # what "." means in the file
    folder.__path__ = [str(file.parent)]
    sys.modules[folder.__name__] = folder
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    module.__package__ = folder.__name__
    if loaded is None:  # a file called json.py must not become everyone's json
        sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if loaded is None:
            del sys.modules[file.stem]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise ImportError(f"{file} cannot be imported: {type(error).__name__}: {error}{line}") from error
    return module


def _is_useful(value: Any, folder: pathlib.Path) -> bool:
    if isinstance(value, type):
        return hasattr(value, "from_config") and value.__module__.split(".")[0] not in ("keras", "tf_keras")
    if not isinstance(value, types.FunctionType):
        return False
    return folder in pathlib.Path(value.__code__.co_filename).resolve().parents
