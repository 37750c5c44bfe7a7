"""Loads or builds the model that `--model` names."""

import contextlib
import dataclasses
import json
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import keras

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.models.applications import APPLICATIONS, build_application
from dcp_tf.models.batch import with_open_batch
from dcp_tf.models.custom_objects import import_custom_objects, unknown_names
from dcp_tf.models.full_precision import in_full_precision
from dcp_tf.models.functional import check_functional, functional_graph
from dcp_tf.models.keras2.files import load_keras2_file
from dcp_tf.models.names import with_valid_names
from dcp_tf.models.retrace import closed_layers, to_functional
from dcp_tf.models.retrace_inputs import UnknownInputs
from dcp_tf.models.time_distributed import steps_as_rows
from dcp_tf.models.zoo import build, zoo_normalization

# How Keras names a class or function that it does not know, in .keras and in .h5 files.
_UNKNOWN_OBJECT = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:layer|object|function)|Cannot deserialize object of type):? "
    r"['`]([^'`]+)['`]"
)
_PACKAGED = re.compile(r"'registered_name': '([^'>]+>([^']+))'")
_UNSTORED = (
    "which no model file stores: custom_objects=FILE.py with the imports that the code needs, such as "
    "`import tensorflow as tf`, gives it to the layer"
)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model and what is known of it.

    Attributes:
        model: functional or Sequential, built.
        normalization: how its images are normalized, as in `dcp_tf.data.load`; "none" where that is unknown.
        source: what it was loaded from.
    """

    model: keras.Model
    normalization: str
    source: str


def load(
    spec: str,
    *,
    weights: str | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    num_classes: int | None = None,
    custom_objects: str | None = None,
    allow_lambda: bool = False,
    open_layers: bool = False,
    input_spec: Any = None,
) -> LoadedModel:
    """Loads or builds a model.

    Args:
        spec: `zoo:NAME` (see `dcp_tf.models.NETWORKS`; their images are normalized as `digits` if gray and as those of
            the network's data set if RGB; spectrograms and images with metadata are not normalized), `keras:NAME`
            (keras.applications, normalized as each family's weights were trained) or the path of a `.keras` or `.h5`
            file (one of Keras 2 is converted).
        weights: for `zoo:` None or a weights file; for `keras:` also "imagenet". A model file holds its own.
        input_shape: (H, W, C); a model file must be able to take it.
        num_classes: how many outputs; a model file must have as many (or one, for two classes).
        custom_objects: a Python file that defines the custom layers and functions of a model file. Its code is run.
        allow_lambda: whether code stored in the model file (Lambda layers) may run.
        open_layers: whether custom layers that are made of layers are opened, as `to_functional` does it. A subclassed
            model is always retraced.
        input_spec: of a subclassed model whose file does not say what it takes, as for `to_functional`.

    Raises:
        UsageError: the model does not exist, cannot be loaded, or its graph of layers is unknown.
    """
    kind, _, name = spec.partition(":")
    if kind == "zoo":
        model = build(name, input_shape, num_classes)
        if weights is not None:
            _load_weights(model, weights)
        return LoadedModel(model, zoo_normalization(name, model.inputs[0].shape[-1]), spec)
    if kind == "keras":
        model = build_application(name, weights=weights, input_shape=input_shape, num_classes=num_classes)
        return LoadedModel(model, APPLICATIONS[name], spec)
    if weights is not None:
        raise UsageError(f"the model file {spec} holds its own weights; leave out the weights {weights}")
    if custom_objects is not None:
        run_custom_objects(custom_objects)
    model = _read_model(pathlib.Path(spec), allow_lambda)
    _check_lambdas(model, spec)
    model = _retraced(model, spec, input_shape, open_layers, input_spec)
    return LoadedModel(_prepare(check_functional(model, input_shape), spec, input_shape, num_classes), "none", spec)


def run_custom_objects(path: str) -> None:
    """Lets Keras, and dcp_tf where the file registers something, know a user's own code.

    Raises:
        UsageError: there is no such file, it raises, or nothing of use is in it.
    """
    try:
        import_custom_objects(path)
    except ImportError as error:
        raise UsageError(str(error)) from error


def _prepare(
    model: keras.Model, spec: str, input_shape: tuple[int | None, ...] | None, num_classes: int | None
) -> keras.Model:
    """A user's model with valid names, any batch size, float32 layers and steps as rows; each change is logged."""
    model, renamed = with_valid_names(model)
    if renamed:
        progress.say(f"note: TensorFlow does not allow some names in {spec}; renamed: {_pairs(renamed)}")
    _check_shape_and_classes(model, spec, input_shape, num_classes)
    model = with_open_batch(model)
    wide = in_full_precision(model)
    if wide is not model:
        progress.say(f"note: {spec} uses mixed precision; its layers now compute in float32")
    rows = steps_as_rows(wide)
    if rows is not wide:
        progress.say(
            f"note: layers that {spec} wraps in TimeDistributed are now called once, with all steps as a batch"
        )
    return rows


def _retraced(
    model: keras.Model, spec: str, input_shape: tuple[int | None, ...] | None, open_layers: bool, input_spec: Any
) -> keras.Model:
    """A subclassed model as a functional one; a functional one with opened layers, if so wished."""
    if isinstance(model, keras.Sequential) or functional_graph(model) is not None:
        if open_layers and functional_graph(model) is not None:
            return to_functional(model)
        if closed := closed_layers(model):
            progress.say(
                f"note: {spec} has layers that are made of layers ({', '.join(closed)}); open_layers=True opens them "
                "so that channels inside of them can be pruned",
                "open_layers",
            )
        return model
    was_built = model.built
    try:
        functional = to_functional(model, input_spec or input_shape)
    except UnknownInputs as error:
        raise UnknownInputs(
            f"{spec} does not say what {type(model).__qualname__} takes: its call did not run on symbolic tensors when "
            "it was saved; input_shape=224,224,3 (the shape of one input) says it",
            setting="input_shape",
        ) from error
    if not was_built:  # so that Keras could not give its layers their weights
        _load_weights(model, spec)
    progress.say(f"note: {spec} holds the subclassed model {type(model).__qualname__}; its call was retraced")
    return functional


def _check_lambdas(model: keras.Model, spec: str) -> None:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda) and (names := unknown_names(layer)):
            raise UsageError(
                f"{spec} cannot be used: its Lambda layer {layer.name!r} uses {names[0]!r}, {_UNSTORED}",
                setting="custom_objects",
            )


def _pairs(renamed: dict[str, str]) -> str:
    more = f" and {len(renamed) - 4} more" if len(renamed) > 4 else ""
    return ", ".join(f"{old!r} -> {new!r}" for old, new in list(renamed.items())[:4]) + more


def _read_model(path: pathlib.Path, allow_lambda: bool) -> keras.Model:
    if not path.exists():
        raise UsageError(f"there is no model file {path}; give a path, zoo:NAME or keras:NAME")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a .keras or .h5 file (save the model with model.save('x.keras'))")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UsageError(f"{path} is no model file by its name; expected .keras or .h5")
    try:
        with _with_right_suffix(path) as readable:
            if _keras_version(path).startswith(("1.", "2.")):
                model = load_keras2_file(readable, str(path), allow_lambda)
            else:
                model = _load_keras_3(readable, allow_lambda)
    except UsageError:
        raise
    except Exception as error:  # Keras raises nearly every kind, depending on what is wrong with the file
        reason = _explain(error)
        named = [name for name in ("custom_objects", "allow_lambda") if f"{name}=" in reason]
        raise UsageError(f"{path} cannot be loaded: {reason}", setting=named) from error
    if not isinstance(model, keras.Model):
        raise UsageError(f"{path} holds a {type(model).__qualname__}, not a whole model")
    return model


def _load_keras_3(path: pathlib.Path, allow_lambda: bool) -> keras.Model:
    """Loads the model; classes that it names with a package ("mine>Block") may be registered without one."""
    registry = keras.saving.get_custom_objects()
    while True:
        try:
            return keras.models.load_model(path, compile=False, safe_mode=not allow_lambda)
        except Exception as error:  # of many kinds
            names = {name: bare for name, bare in _PACKAGED.findall(str(error)) if name not in registry}
            aliases = {name: registry[bare] for name, bare in names.items() if bare in registry}
            if not aliases:
                raise
            registry.update(aliases)


@contextlib.contextmanager
def _with_right_suffix(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path of the model file with the suffix of its format, by which Keras chooses how to read it.

    Before version 2.12 Keras wrote HDF5 whatever the suffix was, and people rename files.

    Raises:
        UsageError: the file has neither of the two formats.
    """
    suffix = ".keras" if zipfile.is_zipfile(path) else ".h5" if h5py.is_hdf5(path) else None
    if suffix is None:
        raise UsageError(f"{path} is no {path.suffix} file, or a damaged one")
    if (suffix == ".keras") == (path.suffix == ".keras"):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = pathlib.Path(folder) / f"model{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _keras_version(path: pathlib.Path) -> str:
    """The version of Keras that saved the model in `path`; empty if the file does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("metadata.json")).get("keras_version", "")
        with h5py.File(path) as file:
            return str(file.attrs.get("keras_version", ""))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = _UNKNOWN_OBJECT.search(text)
    if unknown and "keras_hub" in text:
        return (
            "it needs KerasHub: custom_objects=FILE.py names a Python file with the line import keras_hub; "
            "pip install 'dcp_tf[hub]' adds the package where it is missing"
        )
    if unknown:
        return (
            f"plain Keras does not know the custom object {unknown[1]!r}: custom_objects=FILE.py names the Python "
            "file that defines it (its code is run); in Python, give dcp_tf.prune a model that your code has loaded"
        )
    if "`Lambda` layer" in text:
        return (
            "it holds a Lambda layer, whose code is not run from a file without allow_lambda=True (for files that you "
            "trust); better write it with Keras layers (Rescaling for a factor, UnitNormalization for embeddings "
            "of length 1) or keras.ops"
        )
    if "shape of the Lambda's output" in text or "Model expected 0 layers" in text:  # it could not be built
        return f"a layer in it cannot be called, perhaps a Lambda that uses a name such as tf, {_UNSTORED}"
    if "No model config found" in text:
        return "it holds weights alone; save the whole model with model.save('x.keras')"
    return _cut(text) or type(error).__name__


def _cut(text: str, length: int = 240) -> str:
    return text if len(text) <= length else text[:length] + " ..."


def _load_weights(model: keras.Model, weights: str) -> None:
    if not pathlib.Path(weights).is_file():
        raise UsageError(f"there is no weights file {weights}")
    try:
        model.load_weights(weights)
    except Exception as error:  # as for whole models
        reason = _cut(" ".join(str(error).split()))
        raise UsageError(f"the weights {weights} do not fit {model.name}: {reason}") from error


def _check_shape_and_classes(
    model: keras.Model, spec: str, input_shape: tuple[int | None, ...] | None, num_classes: int | None
) -> None:
    if input_shape is not None and len(model.inputs) == 1:
        takes = tuple(model.inputs[0].shape[1:])
        fits = len(takes) == len(input_shape) and all(
            have is None or want is None or have == want for have, want in zip(takes, input_shape, strict=True)
        )
        if not fits:
            raise UsageError(f"{spec} takes inputs of shape {takes}, not {tuple(input_shape)}")
    if num_classes is not None and len(model.outputs) == 1:
        outputs = model.outputs[0].shape[-1]
        if outputs != num_classes and (outputs, num_classes) != (1, 2):
            raise UsageError(f"{spec} has {outputs} outputs, not {num_classes}")
