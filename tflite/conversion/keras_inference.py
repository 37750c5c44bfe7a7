"""Calls a Keras model in inference mode with a flat list of inputs, whatever the structure of its inputs."""

from collections.abc import Callable
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.graph_function import graph_function


def check_model(model: Any) -> None:
    """Rejects models that cannot be converted.

    Raises:
        UsageError: `model` is no Keras model, is not built, or has an open size other than the batch.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a Keras model. Received: {type(model).__name__}")
    if not getattr(model, "inputs", None):
        raise UsageError(
            f"the model {model.name!r} has no fixed inputs; build it as a functional model, "
            "keras.Model(inputs, outputs)"
        )
    for tensor in model.inputs:
        if None in tensor.shape[1:]:
            raise UsageError(
                f"the input {tensor.name!r} of {model.name!r} has the open shape {tuple(tensor.shape)}; "
                "TFLite needs fixed sizes: build the model with a fixed input shape"
            )


def infer(model: Any, inputs: list) -> list:
    """Calls `model` with `training=False`.

    Args:
        model: a functional or sequential Keras model.
        inputs: one tensor for each of `model.inputs`, in that order.

    Returns:
        The output tensors, in the order of `model.outputs`.
    """
    import keras

    structure = model.inputs if isinstance(model, keras.Sequential) else model.input
    if len(inputs) == 1 and isinstance(structure, list):
        return keras.tree.flatten(model(inputs[0], training=False))
    return keras.tree.flatten(model(keras.tree.pack_sequence_as(structure, inputs), training=False))


def compiled_infer(model: Any) -> Callable[..., list]:
    """`infer` as one graph for batches of any size, inputs as separate arguments."""
    import tensorflow as tf

    from dcp_tf.models.names import with_valid_names

    model, _ = with_valid_names(model)
    signature = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in model.inputs]
    return graph_function(lambda *inputs: infer(model, list(inputs)), input_signature=signature)
