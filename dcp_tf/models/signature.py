"""How a model names and nests its inputs and outputs, and the same model with flat ones.

Inside of the library a model has flat inputs and outputs, in the order of `model.inputs` and `model.outputs`: one
tensor, or a tuple of several. Only what a user hands over or gets back is nested as in the user's own model.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree


def input_names(model: keras.Model) -> tuple[str, ...]:
    """The names of the inputs, in the order of `model.inputs`: keys of a dict, else names of the input layers."""
    keys = _kept_names(model)[0] or _keys(input_structure(model))
    return keys or _unique([tensor.name for tensor in model.inputs])


def output_names(model: keras.Model) -> tuple[str, ...]:
    """The names of the outputs, in the order of `model.outputs`: keys of a dict, else names of their layers."""
    keys = _kept_names(model)[1] or _keys(output_structure(model))
    return keys or _unique([tensor._keras_history.operation.name for tensor in model.outputs])


def input_structure(model: keras.Model) -> Any:
    """The nested inputs of a functional model; a Sequential one has one tensor."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model._inputs_struct


def output_structure(model: keras.Model) -> Any:
    """The nested outputs of a functional model; a Sequential one has one tensor."""
    return model.outputs[0] if isinstance(model, keras.Sequential) else model._outputs_struct


def flat(structure: Any) -> Any:
    """The one tensor of a structure, or the tuple of its tensors in the order of `keras.tree.flatten`."""
    return pack(tree.flatten(structure))


def pack(tensors: Sequence[Any]) -> Any:
    """The tensor itself where there is one, else the tuple of all."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def with_flat_signature(model: keras.Model) -> keras.Model:
    """The model with flat inputs and outputs, which keep their names; it shares all layers.

    Args:
        model: functional or Sequential, built.

    Returns:
        `model` itself where its inputs and outputs are flat.
    """
    structures = [input_structure(model), output_structure(model)]
    if all(_is_flat(structure) for structure in structures):
        return model
    flattened = _again(model, pack(model.inputs), pack(model.outputs))
    flattened._names_of_signature = input_names(model), output_names(model)
    return flattened


def with_signature_of(model: keras.Model, other: keras.Model) -> keras.Model:
    """A model with flat inputs and outputs, nested as those of `other`; it shares all layers.

    Args:
        model: as `with_flat_signature` returns it, perhaps with other layers.
        other: the model whose inputs and outputs are called and nested as wanted.

    Returns:
        `model` itself where those of `other` are flat.
    """
    structures = [input_structure(other), output_structure(other)]
    if all(_is_flat(structure) for structure in structures):
        return model
    tensors = (model.inputs, model.outputs)
    return _again(model, *(tree.pack_sequence_as(s, list(t)) for s, t in zip(structures, tensors, strict=True)))


def _again(model: keras.Model, inputs: Any, outputs: Any) -> keras.Model:
    again = keras.Model(inputs, outputs, name=model.name)
    again._trainable = model._trainable
    return again


def _kept_names(model: keras.Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that the inputs and outputs of a flattened model had before."""
    return getattr(model, "_names_of_signature", ((), ()))


def _is_flat(structure: Any) -> bool:
    if isinstance(structure, tuple):
        return len(structure) > 1 and all(isinstance(part, keras.KerasTensor) for part in structure)
    return isinstance(structure, keras.KerasTensor)


def _keys(structure: Any) -> tuple[str, ...]:
    """The keys of a dict of tensors, in the order of `keras.tree.flatten`."""
    if not isinstance(structure, dict) or not all(isinstance(part, keras.KerasTensor) for part in structure.values()):
        return ()
    by_id = {id(part): key for key, part in structure.items()}
    return tuple(str(by_id[id(part)]) for part in tree.flatten(structure)) if len(by_id) == len(structure) else ()


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that were there before with `_1`, `_2` behind them."""
    unique: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in unique:
            candidate, count = f"{name}_{count}", count + 1
        unique.append(candidate)
    return tuple(unique)
