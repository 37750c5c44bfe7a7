"""Names of layers and models that TensorFlow accepts as name scopes."""

import re

import keras

from dcp_tf.models.layer_copies import new_layer
from dcp_tf.models.layer_state import transfer_state


def valid_name(name: str) -> str:
    """A name without characters that Keras 3 (slashes) or TensorFlow scopes (spaces, <, non-ASCII) reject."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def valid_model_name(name: str) -> str:
    """The same for a model, the outermost scope, which must begin with a letter, a digit or a dot."""
    name = valid_name(name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"model{name}"


def refused_names(model: keras.Model) -> list[str]:
    """Names of layers that TensorFlow rejects as scopes; the model's own name does not matter."""
    return [item.name for item in _named(model) if item is not model and valid_name(item.name) != item.name]


def with_valid_names(model: keras.Model) -> tuple[keras.Model, dict[str, str]]:
    """The model with names that TensorFlow accepts, for its layers and for their weights.

    Args:
        model: functional or Sequential; it is not changed.

    Returns:
        `model` itself if all names are valid, else a copy; and a dict old name -> new name (one of them if several
        layers had the same).
    """
    if valid_model_name(model.name) == model.name and not refused_names(model):
        return model, {}
    everything = _named(model)
    inputs = [operation.output for operation in everything if isinstance(operation, keras.layers.InputLayer)]
    before = [operation.name for operation in (*everything, *inputs)]
    renamed = _rename(everything, model)
    for tensor in inputs:
        tensor.name = tensor._keras_history.operation.name
    try:  # weights take the name of their layer when they are created
        copy = keras.models.clone_model(model, clone_function=new_layer, recursive=True)
    finally:
        for operation, name in zip((*everything, *inputs), before, strict=True):
            operation.name = name
    transfer_state(model, copy)
    return copy, renamed


def _rename(everything: list[keras.Operation], model: keras.Model) -> dict[str, str]:
    used = {operation.name for operation in everything}
    renamed = {}
    for operation in everything:
        name = valid_model_name(operation.name) if operation is model else valid_name(operation.name)
        if name == operation.name:
            continue
        unique, count = name, 1
        while unique in used:
            unique, count = f"{name}_{count}", count + 1
        used.add(unique)
        renamed[operation.name] = unique
        operation.name = unique
    return renamed


def _named(model: keras.Model) -> list[keras.Operation]:
    """The model, all layers in it at any depth, and the operations of its graphs."""
    layers = model._flatten_layers()
    graphs = [getattr(layer, "_functional", None) or layer for layer in layers]
    inside = [operation for graph in graphs for operation in getattr(graph, "_operations", ())]
    named = {id(item): item for item in [*layers, *graphs, *inside] if item.name}
    return [item for item in named.values() if not _is_keyed(item, model)]


def _is_keyed(layer: keras.Layer, model: keras.Model) -> bool:
    """Whether a layer is an input that callers address by its name; no scope is called like it."""
    is_input = isinstance(layer, keras.layers.InputLayer)
    return is_input and isinstance(getattr(model, "_inputs_struct", None), dict)
