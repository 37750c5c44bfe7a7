"""Names of layers and models that TensorFlow takes as scopes."""

import re

import keras


def valid_name(name: str) -> str:
    """A name without what Keras 3 (slashes) or a scope of TensorFlow (spaces, <, anything but ASCII) refuses."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def valid_model_name(name: str) -> str:
    """The same for a whole model, whose scope is the outermost one: it begins with a letter, a digit or a dot."""
    name = valid_name(name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"model{name}"


def refused_names(model: keras.Model) -> list[str]:
    """Names of the layers in a model that TensorFlow does not take as scopes; the model's own may be any."""
    return [each.name for each in _named(model) if each is not model and valid_name(each.name) != each.name]


def make_names_valid(model: keras.Model) -> dict[str, str]:
    """Renames the model, its layers and operations where TensorFlow refuses their names, in place.

    Returns:
        Old name -> new name (one of them where several had it); empty where none was refused.
    """
    everything = _named(model)
    used = {each.name for each in everything}
    renamed = {}
    for each in everything:
        name = valid_model_name(each.name) if each is model else valid_name(each.name)
        if name == each.name:
            continue
        unique, count = name, 1
        while unique in used:
            unique, count = f"{name}_{count}", count + 1
        used.add(unique)
        renamed[each.name] = unique
        each.name = unique
        if isinstance(each, keras.layers.InputLayer):
            each.output.name = unique
    for each in everything:
        if renamed and hasattr(each, "output_names"):
            each.output_names = [tensor._keras_history.operation.name for tensor in each.outputs]
    return renamed


def _named(model: keras.Model) -> list[keras.Operation]:
    """The model, all layers in it at any depth, and the operations of its graphs."""
    layers = model._flatten_layers()
    graphs = [getattr(layer, "_functional", None) or layer for layer in layers]
    inside = [operation for graph in graphs for operation in getattr(graph, "_operations", ())]
    return list({id(each): each for each in [*layers, *graphs, *inside] if each.name}.values())
