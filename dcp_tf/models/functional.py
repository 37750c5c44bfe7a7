"""The graph of layers inside a functional or Sequential Keras model."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import tree

# Keras has no public name for the class of functional models.
from keras.src.models.functional import Functional

from dcp_tf.errors import UsageError


def check_functional(model: keras.Model, input_shape: tuple[int | None, ...] | None = None) -> keras.Model:
    """Makes sure that the graph of a model is known, and builds a Sequential model that is not built yet.

    Args:
        model: any Keras model.
        input_shape: (H, W, C), what an unbuilt Sequential model is built for.

    Returns:
        The same model.

    Raises:
        UsageError: it is not functional or Sequential, or it is not built and no input shape is known.
    """
    if isinstance(model, keras.Sequential):
        if not _has_graph(model) and not _build(model, input_shape):
            raise UsageError(
                f"the Sequential model {model.name!r} has no input shape yet; start it with keras.Input or call it once"
            )
        return model
    if not isinstance(model, keras.Model):
        hint = "; convert it with dcp_tf.models.from_tf_keras" if type(model).__module__.startswith("tf_keras.") else ""
        raise UsageError(
            f"expected a Keras 3 model, received {type(model).__module__}.{type(model).__qualname__}{hint}"
        )
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        raise UsageError(
            f"{type(model).__qualname__} is a subclassed model, whose graph of layers cannot be seen; try "
            "dcp_tf.to_functional(model, input_spec)"
        )
    return model


def _has_graph(model: keras.Sequential) -> bool:
    # An unbuilt Sequential model raises where it is asked for its inputs.
    return bool(getattr(model, "inputs", None))


def _build(model: keras.Sequential, input_shape: tuple[int | None, ...] | None) -> bool:
    if input_shape is None or not model.layers:
        return False
    try:
        model.build((None, *input_shape))
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"the Sequential model {model.name!r} cannot take {tuple(input_shape)}: {reason}") from error
    return _has_graph(model)


def check_input(tensor: Any) -> None:
    """Makes sure that a symbolic input, or a description of one, holds numbers in rows of one length.

    Raises:
        UsageError: it is ragged, or holds strings.
    """
    if getattr(tensor, "ragged", False) or getattr(tensor, "ragged_rank", None):
        raise UsageError("ragged inputs have no rows of one length: pad them, for example with ragged.to_tensor()")
    dtype = getattr(tensor, "dtype", None)
    if dtype is not None and keras.backend.standardize_dtype(dtype) == "string":
        raise UsageError(
            "string inputs hold no numbers: leave StringLookup, TextVectorization and their like outside of the model, "
            "and give it what they make"
        )


def functional_graph(operation: Any) -> Any | None:
    """The functional graph inside a model, or None if the operation must be taken as a whole.

    A model whose class overrides `call` may compute anything there, so it is taken as a whole too.
    """
    if isinstance(operation, keras.Sequential):
        overridden = type(operation).call is not keras.Sequential.call
        return None if overridden else getattr(operation, "_functional", None)
    is_functional = isinstance(operation, Functional) and type(operation).call is Functional.call
    return operation if is_functional else None


def ordered_nodes(graph: Any) -> list:
    """The nodes of one functional graph (nested models unopened), producers first, without its inputs."""
    by_depth = graph._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def nested_arguments(node: Any, inner: Any) -> list:
    """The tensors that a call passes to the inputs of a nested model, in their order.

    Other arguments (`mask`) are left out: at run time a mask travels with its tensor.

    Raises:
        UsageError: a tensor has another rank than the input.
    """
    arguments = node.arguments
    passed = arguments.args[0] if arguments.args else arguments.kwargs["inputs"]
    by_name = isinstance(passed, Mapping) and not isinstance(inner.input, Mapping)
    tensors = [passed[x.name] for x in inner.inputs] if by_name else tree.flatten(passed)
    for stated, tensor in zip(inner.inputs, tensors, strict=True):
        if len(stated.shape) != len(tensor.shape):
            raise UsageError(
                f"{node.operation.name!r} expects an input of shape {stated.shape} and is called on {tensor.shape}: "
                "give the two the same number of axes"
            )
    return tensors


def input_like(tensor: keras.KerasTensor, shape: Sequence[int | None]) -> keras.KerasTensor:
    """A new model input with the name and type of a given one, and another shape (batch axis included)."""
    layer = tensor._keras_history.operation
    return keras.Input(
        batch_shape=tuple(shape), dtype=tensor.dtype, name=layer.name, sparse=tensor.sparse, optional=layer.optional
    )
