"""Model files that Keras 2 saved."""

import contextlib
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import keras
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.models.keras2.convert import from_tf_keras, named_settings, no_counterpart
from dcp_tf.models.keras2.operations import OPERATIONS

_WEIGHTS = "model.weights.h5"
# The key under which Keras 2.13 and 2.14 store the weights of a model's layers.
_OLD_CONTAINER = "_layer_checkpoint_dependencies"


def load_keras2_file(path: pathlib.Path, name: str, allow_lambda: bool = False) -> keras.Model:
    """Loads a `.h5` or `.keras` file that Keras 2 saved, as a Keras 3 model.

    Code in the file (Lambda layers) does not run unless it is allowed. The compile settings are ignored.

    Args:
        path: of the file, with the suffix of its format.
        name: of the file in messages.
        allow_lambda: whether code in the file may run.

    Raises:
        UsageError: something in it cannot be converted; the error names all of it.
        Exception: of any kind that tf_keras raises if it cannot load the file.
    """
    import tf_keras

    is_archive = zipfile.is_zipfile(path)
    config = _read_config(path, is_archive)
    missing = _find_unknown_in_config(config)
    if allow_lambda:
        missing = [(kind, layer) for kind, layer in missing if kind != "Lambda"]
    if missing:
        line = f"{name} was saved by Keras 2 and cannot be converted to Keras 3: {no_counterpart(missing)}"
        raise UsageError(line, named_settings(missing))
    with _with_spectral_normalization() as classes:
        if is_archive and _has_old_weight_names(path):
            return from_tf_keras(_load_by_traversal(path, config, name, classes, safe_mode=not allow_lambda))
        return from_tf_keras(
            tf_keras.models.load_model(path, compile=False, custom_objects=classes, safe_mode=not allow_lambda)
        )


@contextlib.contextmanager
def _with_spectral_normalization() -> Iterator[dict[str, type]]:
    """The layer that tf_keras does not find by name, with an input specification that is not from Keras 3."""
    import tf_keras

    specification = tf.keras.layers.InputSpec
    tf.keras.layers.InputSpec = tf_keras.layers.InputSpec
    try:
        yield {"SpectralNormalization": tf_keras.layers.SpectralNormalization}
    finally:
        tf.keras.layers.InputSpec = specification


# What cannot be converted


def _read_config(path: pathlib.Path, is_archive: bool) -> Any:
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"]) if "model_config" in file.attrs else {}


def _find_unknown_in_config(config: Any) -> list[tuple[str, str | None]]:
    """Finds what must not even be loaded: code, and calls of TensorFlow functions outside the table.

    Returns:
        Pairs of a kind and the name of a layer, as `no_counterpart` takes them.
    """
    if isinstance(config, list):
        return [missing for value in config for missing in _find_unknown_in_config(value)]
    if not isinstance(config, dict):
        return []
    kind, inner = config.get("class_name"), config.get("config")
    own = inner if isinstance(inner, dict) else {}
    if kind == "Lambda":
        return [(kind, own.get("name"))]
    # tf_keras would import the module that the file names.
    if str(config.get("module") or "keras").partition(".")[0] not in ("keras", "tf_keras", "builtins"):
        return [(kind, own.get("name"))]
    if kind == "__lambda__":
        return [("a lambda function", None)]
    if kind == "function" and inner not in dir(keras.activations):
        return [(f"the function {inner!r}", None)]
    if kind in ("TFOpLambda", "SlicingOpLambda") and own.get("function") not in OPERATIONS:
        return [(f"tf.{own.get('function')}", own.get("name"))]
    values = (value for key, value in config.items() if key != "compile_config")
    return [missing for value in values for missing in _find_unknown_in_config(value)]


# Weights under the names of older versions


def _has_old_weight_names(path: pathlib.Path) -> bool:
    with _open_weights(path) as file:
        names = list(file)
    return any(_OLD_CONTAINER in name or "\\" in name for name in names)


@contextlib.contextmanager
def _open_weights(path: pathlib.Path) -> Iterator[h5py.File]:
    with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as stream, h5py.File(stream) as file:
        yield file


def _load_by_traversal(
    path: pathlib.Path, config: dict[str, Any], name: str, classes: dict[str, type], safe_mode: bool
):
    """Builds the model from its config and finds the weights of each part under the names of older versions.

    Keras traverses all that a model holds and names weights after the attributes on the way. The order of the
    traversal, and whether repeated parts are counted, changed between versions. The right traversal is the one that
    finds exactly the weights in the file.

    Raises:
        UsageError: no traversal does.
    """
    from tf_keras.saving import deserialize_keras_object

    model = deserialize_keras_object({**config, "compile_config": None}, custom_objects=classes, safe_mode=safe_mode)
    with _open_weights(path) as file:
        values = _values_by_path(file)
    for reverse in (True, False):
        for counts_again in (False, True):
            parts = list(_parts(model, "", set(), reverse, counts_again))
            if _fits(parts, values):
                for part, where in parts:
                    part.load_own_variables(values.get(where, {}))
                return model
    raise UsageError(
        f"{name} files its weights as no version of Keras 2 that is known does; load it with the version that saved it "
        "and save it again as .h5"
    )


def _values_by_path(file: h5py.File) -> dict[str, dict[str, Any]]:
    """The variables of each layer, by its path; those of the optimizer and of metrics are left out."""
    values: dict[str, dict[str, Any]] = {}

    def visit(name: str, item: Any) -> None:
        path, _, number = name.replace("\\", "/").rpartition("/vars/")
        if isinstance(item, h5py.Dataset) and path.partition("/")[0] in ("layers", _OLD_CONTAINER):
            values.setdefault(path, {})[number] = item[()]

    file.visititems(visit)
    return values


def _parts(holder, path: str, visited: set[int], reverse: bool, counts_again: bool) -> Iterator[tuple[Any, str]]:
    """Everything with weights that `holder` is and holds, with its path in files of Keras 2."""
    from tf_keras.src.saving.saving_lib import ATTR_SKIPLIST

    if id(holder) in visited:
        return
    visited.add(id(holder))
    yield holder, path
    skipped = ATTR_SKIPLIST - {_OLD_CONTAINER}
    for name in sorted(dir(holder), reverse=reverse):
        if name.startswith("__") or name in skipped:
            continue
        try:
            child = getattr(holder, name)
        except Exception:  # of any kind, as in Keras: a property may not be ready
            continue
        below = f"{path}/{name}".lstrip("/")
        if _is_layer(child):
            yield from _parts(child, below, visited, reverse, counts_again)
        elif isinstance(child, list | dict | tuple | set):
            for item, item_name in _named_items(child, visited, counts_again):
                yield from _parts(item, f"{below}/{item_name}", visited, reverse, counts_again)


def _named_items(container, visited: set[int], counts_again: bool) -> Iterator[tuple[Any, str]]:
    """The layers in a container by kind, numbered if a kind repeats."""
    from tf_keras.src.utils.generic_utils import to_snake_case

    counts: dict[str, int] = {}
    for item in container.values() if isinstance(container, dict) else container:
        if not _is_layer(item) or (id(item) in visited and not counts_again):
            continue
        name = to_snake_case(type(item).__name__)
        counts[name] = counts.get(name, -1) + 1
        yield item, f"{name}_{counts[name]}" if counts[name] else name


def _is_layer(item: Any) -> bool:
    import tf_keras

    return isinstance(item, tf_keras.layers.Layer)


def _fits(parts: list[tuple[Any, str]], values: dict[str, dict[str, Any]]) -> bool:
    """Whether each part finds all of its variables, with their shapes, and none is left over."""
    matched = set()
    for part, path in parts:
        own = [*part._trainable_weights, *part._non_trainable_weights]
        stored = values.get(path, {})
        if [tuple(w.shape) for w in own] != [stored[str(i)].shape for i in range(len(stored)) if str(i) in stored]:
            return False
        matched.add(path)
    return set(values) <= matched
