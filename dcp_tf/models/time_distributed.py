"""Models that call a layer on each step of a sequence, rebuilt to call it once on all steps."""

from typing import Any

import keras
from keras import ops, tree

# Keras has no public name for the class of functional models.
from keras.src.models.functional import Functional


def steps_as_rows(model: keras.Model) -> keras.Model:
    """A model in which `TimeDistributed(layer)` became the layer itself, called once with steps as rows of the batch.

    The wrapper unrolls the steps, one call of the layer for each, and hides the layer. Here (B, T, ...) becomes
    (B T, ...) before the layer and (B, T, ...) again behind it: the same numbers, and one convolution in a TFLite file
    in place of T. The layer takes the wrapper's name. A wrapper stays where the number of steps or a size is open, or
    where a mask says which steps count.

    Args:
        model: functional or Sequential.

    Returns:
        `model` itself if no wrapper goes, else a new functional model that shares its layers.
    """
    rows = _Rows()
    rebuilt = rows.model(model)
    return rebuilt if rows.opened else model


class _Rows:
    """One rebuilding: every nested model and wrapped layer is looked at once, however often it is called.

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
        if isinstance(model, keras.Sequential):  # which has no place for the reshapes
            functional = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        inputs = tree.map_structure(_same_input, functional.input)
        rebuilt = keras.models.clone_model(functional, inputs, lambda layer: layer, self._call)
        # The public setter would also reach every layer; those keep their own setting.
        rebuilt._trainable = model._trainable
        return rebuilt

    def _call(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if _is_functional(operation):
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


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)


def _is_functional(operation: Any) -> bool:
    """Whether the graph inside a nested model says what the model computes."""
    if isinstance(operation, keras.Sequential):
        return operation.built and type(operation).call is keras.Sequential.call
    return isinstance(operation, Functional) and type(operation).call is Functional.call


def _holds_wrappers(model: keras.Model) -> bool:
    """Whether a wrapper is among the layers of a model or of those that it calls."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.TimeDistributed) or (_is_functional(layer) and _holds_wrappers(layer)):
            return True
    return False


def _can_go(wrapper: keras.layers.TimeDistributed, *args: Any, **kwargs: Any) -> bool:
    """Whether one call of a wrapper can be one of its layer: all sizes are known, and all steps count."""
    if len(args) != 1 or kwargs.get("mask") is not None:
        return False
    shapes = args[0].shape, wrapper.compute_output_shape(args[0].shape)
    return all(None not in shape[1:] for shape in shapes)
