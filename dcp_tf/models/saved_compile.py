"""What a model file says of `model.compile`, for a model that was loaded without it."""

import json
import pathlib
import re
import zipfile
from typing import Any

import keras
from keras import tree

# How one setting of `compile` is written; load_model(compile=True) fails where one of them is unknown.
from keras.src.saving.serialization_lib import deserialize_keras_object

from dcp_tf.errors import first_line
from dcp_tf.models.compiled_like import compile_arguments

_NEEDED = ("loss", "metrics", "weighted_metrics", "optimizer")
_UNKNOWN = re.compile(r"Could not locate (?:class|function) '([^']+)'")


def compile_as_saved(model: keras.Model, source: str) -> dict[str, str]:
    """Compiles a model in place as the `.keras` file says that it was loaded from.

    Args:
        model: functional or Sequential.
        source: the path of the file; other sources and files without a compiled model say nothing.

    Returns:
        The arguments of `compile` that cannot be read, which are left out, and why: a loss of the user's own.
    """
    parts: dict[str, Any] = {}
    lost: dict[str, str] = {}
    for name, value in _saved_config(source).items():
        try:
            parts[name] = deserialize_keras_object(value)
        except Exception as error:  # of many kinds, such as classes that nobody registered
            unknown = _UNKNOWN.search(str(error))
            lost[name] = f"plain Keras does not know {unknown[1]!r}" if unknown else first_line(error)
    if parts.get("optimizer") is None:  # compile would take another one
        return lost
    try:
        model.compile(**parts)
    except Exception as error:  # a model with a compile of its own, or settings of another version of Keras
        lost["compile"] = first_line(error)
    return lost


def own_parts(model: keras.Model) -> list[str]:
    """Names of the losses, metrics and optimizers that a model is compiled with and plain Keras does not know."""
    arguments = compile_arguments(model)
    parts = tree.flatten([arguments.get(name) for name in _NEEDED])
    kinds = [part if hasattr(part, "__qualname__") else type(part) for part in parts]
    own = [kind for kind in kinds if kind.__module__.split(".")[0] not in ("keras", "builtins")]
    return sorted({kind.__name__ for kind in own})


def _saved_config(source: str) -> dict[str, Any]:
    if not pathlib.Path(source).is_file() or not zipfile.is_zipfile(source):
        return {}
    with zipfile.ZipFile(source) as archive:
        return json.loads(archive.read("config.json")).get("compile_config") or {}
