"""A new layer like a given one, without its weights: every copy of a model consists of these."""

import copy
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import keras

# Keras has no public switch for one call: code in a file is a risk, code that is in memory already is none.
from keras.src.saving.serialization_lib import SafeModeScope

from dcp_tf.errors import UsageError, first_line
from dcp_tf.models.object_copy import copy_object


def new_layer(layer: keras.Layer, change: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None) -> keras.Layer:
    """Creates a layer of the same class, name and settings; `transfer_state` copies the weights.

    It is created from the layer's config. If the config does not allow that, from the arguments that the layer was
    created with, or as a copy of the Python object.

    Args:
        layer: any layer except a model.
        change: maps the config to the entries that change.

    Raises:
        UsageError: the layer cannot be created again; the error names it.
    """
    if isinstance(layer, keras.layers.Lambda):
        new = _new_lambda(layer)
    else:
        try:
            new = _from_config(layer, change)
        except Exception as error:  # a custom __init__ may raise anything
            if repair_config(layer):
                new = _from_config(layer, change)
            elif change is not None or (new := _without_config(layer)) is None:
                raise UsageError(_cannot(layer, error)) from error
    if "get_config" in vars(layer):
        new.get_config = types.MethodType(_config_for_init, new)
    new.name = layer.name  # some layers choose a name, and each copy would choose another one
    return new


def repair_config(layer: keras.Layer) -> bool:
    """Leaves out of a layer's config what its `__init__` does not take, where it cannot be created from it otherwise.

    Some classes add derived values to their config, which no file can be loaded from. This object gets a `get_config`
    without them; the class stays as it is.

    Returns:
        Whether that was so, and the layer can be created from its config now.
    """
    try:
        _from_config(layer, None)
    except Exception:  # a custom __init__ may raise anything
        layer.get_config = types.MethodType(_config_for_init, layer)
        try:
            _from_config(layer, None)
            return True
        except Exception:  # as above
            del layer.get_config
    return False


def _config_for_init(layer: keras.Layer) -> dict[str, Any]:
    taken = {"name", "trainable", "dtype", *inspect.signature(type(layer).__init__).parameters}
    return {key: value for key, value in type(layer).get_config(layer).items() if key in taken}


def check_config(layer: keras.Layer) -> None:
    """Checks that a layer can be created from its config alone, as loading a file does.

    Raises:
        UsageError: it cannot; the error names it.
    """
    try:
        _from_config(layer, None)
    except Exception as error:  # as above
        raise UsageError(_cannot(layer, error)) from error


def _from_config(layer: keras.Layer, change: Callable[[dict[str, Any]], Mapping[str, Any]] | None) -> keras.Layer:
    config = layer.get_config()
    if change is not None:
        config.update(change(config))
    with SafeModeScope(safe_mode=False):
        return type(layer).from_config(config)


def _without_config(layer: keras.Layer) -> keras.Layer | None:
    """The layer created from the arguments that Keras recorded, or copied as an object; None if both fail."""
    arguments = getattr(layer, "_auto_config", None)
    if arguments is not None:
        try:
            with SafeModeScope(safe_mode=False):
                return type(layer)(**arguments.config)
        except Exception:  # as above: the first error is reported
            pass
    try:
        return copy_object(layer)
    except Exception:  # of custom classes
        return None


def _cannot(layer: keras.Layer, error: Exception) -> str:
    # Keras puts the whole config before the reason.
    reason = str(error).rpartition("Exception encountered: ")[2]
    problem = "it has no get_config" if isinstance(error, NotImplementedError) else first_line(Exception(reason))
    return (
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be recreated from its config ({problem}): give it a "
        "get_config with the arguments of its __init__ and nothing else"
    )


def _new_lambda(layer: keras.layers.Lambda) -> keras.layers.Lambda:
    """Keras refuses to create a Lambda from its config, since its code could be unsafe; here it is in memory."""
    arguments = {"function": layer.function, "output_shape": layer._output_shape, "mask": layer.mask}
    settings = {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy}
    return keras.layers.Lambda(**arguments, arguments=copy.copy(layer.arguments), **settings)
