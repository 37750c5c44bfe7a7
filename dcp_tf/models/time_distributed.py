"""Models with `TimeDistributed` layers, rebuilt to call each layer once on all steps."""

from typing import Any

import keras
from keras import ops, tree

from dcp_tf.models.functional import functional_graph, input_like


def steps_as_rows(model: keras.Model) -> keras.Model:
    """Replaces `TimeDistributed(layer)` by the layer, called once with the steps as rows of the batch.

    The wrapper unrolls the steps, one call of the layer each, and hides the layer. Here (B, T, ...) becomes (B T, ...)
    before the layer and (B, T, ...) again after it: the same numbers, and one convolution in a TFLite file instead of
    T. The layer takes the wrapper's name. A wrapper stays if the number of steps or a size is open, or if there is a
    mask.

    Args:
        model: functional or Sequential.

    Returns:
        `model` itself if no wrapper is replaced, else a new functional model that shares its layers.
    """
    rows = _Rows()
    rebuilt = rows.model(model)
    return rebuilt if rows.opened else model


def note_of_wrapped_models(model: keras.Model) -> str:
    """A line where `TimeDistributed` hides whole models, whose layers can be pruned once it is gone; else empty."""
    wrappers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.TimeDistributed)]
    hidden = [layer.name for layer in wrappers if isinstance(layer.layer, keras.Model)]
    if not hidden:
        return ""
    return (
        f"the model inside of the TimeDistributed layer {hidden[0]} stays whole; dcp_tf.models.steps_as_rows(model) "
        "opens it where the number of steps is fixed"
    )


class _Rows:
    """One rebuild: every nested model and wrapped layer is handled once, however often it is called.

    Attributes:
        opened: layers that were taken out of their wrappers, by id.
    """

    def __init__(self):
        self.opened: dict[int, keras.Layer] = {}
        self._models: dict[int, keras.Model] = {}

    def model(self, model: keras.Model) -> keras.Model:
        if id(model) not in self._models:
            self._models[id(model)] = self._rebuilt(model) if _holds_wrappers(model) else model
        return self._models[id(model)]

    def _rebuilt(self, model: keras.Model) -> keras.Model:
        functional = model
        if isinstance(model, keras.Sequential):  # which cannot hold the reshapes
            functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        inputs = tree.map_structure(lambda tensor: input_like(tensor, tensor.shape), functional.input)
        rebuilt = keras.models.clone_model(functional, inputs, lambda layer: layer, self._call)
        # The public setter would also reach every layer; those keep their own setting.
        rebuilt._trainable = model._trainable
        return rebuilt

    def _call(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if functional_graph(operation) is not None:
            return self.model(operation)(*args, **kwargs)
        if not isinstance(operation, keras.layers.TimeDistributed) or not _can_go(operation, *args, **kwargs):
            return operation(*args, **kwargs)
        (sequence,) = args
        kwargs.pop("mask", None)
        output = self._call(self._inside(operation), ops.reshape(sequence, (-1, *sequence.shape[2:])), **kwargs)
        return ops.reshape(output, (-1, sequence.shape[1], *output.shape[1:]))

    def _inside(self, wrapper: keras.layers.TimeDistributed) -> keras.Layer:
        """The wrapped layer under the wrapper's name: names are unique among wrappers, not among what they hold."""
        layer = wrapper.layer
        if id(layer) not in self.opened:
            self.opened[id(layer)] = layer
            layer.name = wrapper.name
        return layer


def _holds_wrappers(model: keras.Model) -> bool:
    """Whether a wrapper is among the layers of a model or of those that it calls."""
    return any(
        isinstance(layer, keras.layers.TimeDistributed)
        or (functional_graph(layer) is not None and _holds_wrappers(layer))
        for layer in model.layers
    )


def _can_go(wrapper: keras.layers.TimeDistributed, *args: Any, **kwargs: Any) -> bool:
    """Whether one call of a wrapper can be one of its layer: all sizes are known, and all steps count."""
    if len(args) != 1 or kwargs.get("mask") is not None:
        return False
    shapes = args[0].shape, wrapper.compute_output_shape(args[0].shape)
    return all(None not in shape[1:] for shape in shapes)
