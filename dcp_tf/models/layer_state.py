"""The state of a layer beyond its config: weights, what it derives from them, vocabularies, constants."""

import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError, first_line

_HOOKS = ("save_own_variables", "load_own_variables", "save_assets", "load_assets")
_PLAIN = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic, tf.Tensor)

Take = Callable[[keras.Variable, np.ndarray], np.ndarray]


def transfer_state(old: keras.Layer, new: keras.Layer, take: Take | None = None) -> None:
    """Copies the state of `old` and of all layers inside it to `new`.

    State that Keras saves in a `.keras` file is copied as saving and loading would do it. For custom layers, numbers,
    arrays and tensors among their attributes are copied too.

    Args:
        old: a layer or a model; it is not changed.
        new: one of the same structure, built or called.
        take: maps a variable of `old` and its value to the value in `new`; None copies it unchanged.

    Raises:
        UsageError: the two have layers or weights of different kinds or shapes; the error names the layer.
    """
    pairs = _pairs(old, new)
    for one, other in pairs:
        _build_inner_layers(one, other)
    if len(old.variables) != len(new.variables):
        raise UsageError(
            f"layer {old.name!r} ({type(old).__name__}) has {len(old.variables)} weights, recreated from its config "
            f"{len(new.variables)}: its build method must make the weights of all layers inside of it"
        )
    for variable, target in zip(old.variables, new.variables, strict=True):
        _assign(variable, target, take)
    for one, other in reversed(pairs):  # inner ones first: outer layers may derive their state from them
        _transfer_own(one, other)


def _pairs(old: keras.Layer, new: keras.Layer) -> list[tuple[keras.Layer, keras.Layer]]:
    """Each layer with its counterpart, outer ones first."""
    pairs = [(old, new)]
    inside = [layer._flatten_layers(include_self=False) for layer in (old, new)]
    kinds = [[type(layer) for layer in layers] for layers in inside]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"layer {old.name!r} ({type(old).__name__}) holds {len(kinds[0])} layers, recreated from its config "
            f"{len(kinds[1])} or others: its __init__ must make all layers inside of it"
        )
    return pairs + list(zip(*inside, strict=True))


def _build_inner_layers(old: keras.Layer, new: keras.Layer) -> None:
    """Builds weights that a layer builds only when called: a symbolic call stops at a stated output shape."""
    if len(new.variables) < len(old.variables) and new._inbound_nodes and not isinstance(new, keras.Model):
        arguments = new._inbound_nodes[0].arguments
        with keras.name_scope(new.name):
            keras.Operation.compute_output_spec(new, *arguments.args, **arguments.kwargs)


def _assign(old: keras.Variable, new: keras.Variable, take: Take | None) -> None:
    value = keras.ops.convert_to_numpy(old)
    value = value if take is None else take(old, value)
    if value.shape != tuple(new.shape):
        raise UsageError(f"{old.path} becomes {value.shape}, but the recreated layer has {tuple(new.shape)} there")
    new.assign(value)


def _transfer_own(old: keras.Layer, new: keras.Layer) -> None:
    """Copies the state besides the weights, of one layer without its inner layers."""
    new._trainable = old._trainable
    own = [layer._trainable_variables + layer._non_trainable_variables for layer in (old, new)]
    for variable, target in zip(*own, strict=True):
        target.trainable = variable.trainable
    sliced = _differ(*own)
    if not (_differ(old.variables, new.variables) or type(old).__module__.startswith("keras.")):
        _transfer_attributes(old, new)
    try:
        if any(_overrides(new, hook) for hook in _HOOKS):
            _through_files(new if sliced else old, new)
        if hasattr(new, "finalize_state") and not _overrides(new, "load_own_variables"):
            new.finalize_state()
    except Exception as error:  # custom methods may raise anything
        raise UsageError(
            f"layer {old.name!r} ({type(old).__name__}) cannot take the state that it gives: {first_line(error)}"
        ) from error


def _differ(old: list, new: list) -> bool:
    return any(tuple(a.shape) != tuple(b.shape) for a, b in zip(old, new, strict=True))


def _overrides(layer: keras.Layer, method: str) -> bool:
    return getattr(type(layer), method, None) is not getattr(keras.Layer, method, None)


def _through_files(old: keras.Layer, new: keras.Layer) -> None:
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    new.load_own_variables({key: keras.ops.convert_to_numpy(value) for key, value in store.items()})
    if hasattr(new, "load_assets") and hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def _transfer_attributes(old: keras.Layer, new: keras.Layer) -> None:
    keras_attributes = vars(keras.Layer(name="any"))
    for name, value in list(vars(old).items()):
        if name in keras_attributes or name.startswith("_self_"):
            continue
        if isinstance(value, tf.Variable):
            if isinstance(getattr(new, name, None), tf.Variable):
                getattr(new, name).assign(value)
        elif _is_plain(value):
            setattr(new, name, _widened(value, new.compute_dtype))


def _is_plain(value: Any) -> bool:
    """Whether a value consists only of numbers, strings, arrays and eager tensors."""
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN) and (not isinstance(value, tf.Tensor) or hasattr(value, "numpy"))


def _widened(value: Any, dtype: str) -> Any:
    """Half-precision tensors in the dtype of the new layer; anything else unchanged."""
    is_half = isinstance(value, tf.Tensor) and value.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(value, dtype) if is_half and dtype == "float32" else value
