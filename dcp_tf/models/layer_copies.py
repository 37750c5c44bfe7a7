"""A new layer like a given one, without its weights: what every copy of a model is made of."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import keras

# Keras has no public switch for one call: code in a file is a risk, code that is in memory already is none.
from keras.src.saving.serialization_lib import SafeModeScope

from dcp_tf.errors import UsageError, first_line
from dcp_tf.models.object_copy import copy_object


def new_layer(layer: keras.Layer, change: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None) -> keras.Layer:
    """Makes a layer of the same class, name and settings; `transfer_state` gives it the weights.

    It is made from its config. A layer whose config does not allow that is made from the arguments that it was made
    with, or copied as a Python object.

    Args:
        layer: any layer that is no model.
        change: from its config to the entries that shall be others.

    Raises:
        UsageError: the layer cannot be made again; it is named.
    """
    if isinstance(layer, keras.layers.Lambda):
        new = _new_lambda(layer)
    else:
        try:
            new = _from_config(layer, change)
        except Exception as error:  # of a user's own __init__, which may raise anything
            new = None if change is not None else _without_config(layer)
            if new is None:
                raise UsageError(_cannot(layer, error)) from error
    new.name = layer.name  # some choose their own, and each copy would choose another one
    return new


def check_config(layer: keras.Layer) -> None:
    """Makes sure that a layer can be made from its config alone, as loading a file does.

    Raises:
        UsageError: it cannot; it is named.
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
    """The layer made from the arguments that Keras noted, or copied as an object; None where neither works."""
    arguments = getattr(layer, "_auto_config", None)
    if arguments is not None:
        try:
            with SafeModeScope(safe_mode=False):
                return type(layer)(**arguments.config)
        except Exception:  # as above: the error that is told is the first one
            pass
    try:
        return copy_object(layer)
    except Exception:  # of a user's own classes
        return None


def _cannot(layer: keras.Layer, error: Exception) -> str:
    # Keras puts the whole config before the reason.
    reason = str(error).rpartition("Exception encountered: ")[2]
    said = "it has no get_config" if isinstance(error, NotImplementedError) else first_line(Exception(reason))
    return (
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be made again from its config ({said}): give it a "
        "get_config with the arguments of its __init__ and nothing else"
    )


def _new_lambda(layer: keras.layers.Lambda) -> keras.layers.Lambda:
    """Keras refuses to make a Lambda from its config, since its code could come from a stranger; here it is at hand."""
    arguments = {"function": layer.function, "output_shape": layer._output_shape, "mask": layer.mask}
    settings = {"name": layer.name, "trainable": layer.trainable, "dtype": layer.dtype_policy}
    return keras.layers.Lambda(**arguments, arguments=copy.copy(layer.arguments), **settings)
