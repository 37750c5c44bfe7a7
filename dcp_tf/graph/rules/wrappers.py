"""Layers that call other layers: what those do to channels, the wrapper does."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.rule import KeptChannels, Labels, OperationRecord, RuleCall, register_rule, run_rule


@register_rule(layers.SpectralNormalization)
def spectral_normalization(call: RuleCall) -> list[Labels]:
    """In inference it only calls its layer; `vector_u` (1, C) normalizes the kernel in training."""
    wrapper = call.operation
    outputs = _run_inside(call, call)
    kernel = next(i for i, weight in enumerate(wrapper.weights) if weight is wrapper.kernel)
    last = call.record.weights.get(kernel, {}).get(len(wrapper.kernel.shape) - 1)
    if last is not None:
        call.weight("vector_u", {1: last})
    return outputs


@register_rule(layers.TimeDistributed)
def time_distributed(call: RuleCall) -> list[Labels]:
    """(N, steps, ...): each step goes through the same layer. The graph of a model inside is hidden."""
    if isinstance(call.operation.layer, keras.Model):
        return call.opaque(
            "which hides its model (dcp_tf.models.steps_as_rows opens it where the number of steps is known)"
        )
    steps = call.input_shapes[0][1]
    of_step = copy.copy(call)
    of_step.inputs = [_of_one_step(call, labels) for labels in call.inputs]
    of_step.input_shapes = [(shape[0], *shape[2:]) for shape in call.input_shapes]
    of_step.output_shapes = [(shape[0], *shape[2:]) for shape in call.output_shapes]
    of_step.multiplications = []
    outputs = _run_inside(call, of_step)
    for multiplication in of_step.multiplications:
        positions = None if None in (steps, multiplication.positions) else steps * multiplication.positions
        call.multiplications.append(dataclasses.replace(multiplication, positions=positions))
    return [np.expand_dims(labels, 1) for labels in outputs]


def _of_one_step(call: RuleCall, labels: Labels) -> Labels:
    """The labels of one step; the labels of all steps are tied, since one layer reads them."""
    call.tie(labels[:, :1], labels)
    return labels[:, 0]


@register_rule(layers.Pipeline)
def pipeline(call: RuleCall) -> list[Labels]:
    """A chain of layers without weights; weights of different layers could not be distinguished."""
    if call.operation.weights:
        return call.opaque("which holds layers with weights")
    labels, changes = call.inputs, []
    tensor = keras.KerasTensor(call.input_shapes[0], call.call.node.arguments.keras_tensors[0].dtype)
    for layer in call.operation.layers:
        inside = _inside(call, layer)
        inside.inputs, inside.input_shapes = labels, [tuple(tensor.shape)]
        tensor = layer.compute_output_spec(tensor)
        inside.output_shapes = [tuple(tensor.shape)]
        labels = run_rule(inside)
        call.record.counted &= inside.record.counted
        changes.append(_change_inside(inside.record))
    if call.record.counted:  # else all channels stay, and the layers with them
        call.record.config.setdefault(
            "layers", lambda kept, old: [change(kept, layer) for change, layer in zip(changes, old, strict=True)]
        )
    return labels


def _run_inside(call: RuleCall, inside: RuleCall) -> list[Labels]:
    """Runs the rule of the layer inside a wrapper, for the weights and the config of the wrapper."""
    inside = _inside(inside, call.operation.layer)
    outputs = run_rule(inside)
    call.record.counted &= inside.record.counted
    if call.record.counted:  # else all channels stay, and the layer with them
        call.record.config.setdefault("layer", _change_inside(inside.record))
    return outputs


def _inside(call: RuleCall, layer: keras.Layer) -> RuleCall:
    inside = copy.copy(call)
    inside.operation = layer
    inside.record = dataclasses.replace(call.record, config={})
    return inside


def _change_inside(record: OperationRecord) -> Callable[[KeptChannels, dict[str, Any]], dict[str, Any]]:
    """A change of the serialized layer: its config entries, and no build config."""

    def change(kept: KeptChannels, old: dict[str, Any]) -> dict[str, Any]:
        changed = {key: change_entry(kept, old["config"][key]) for key, change_entry in record.config.items()}
        unbuilt = {key: value for key, value in old.items() if key != "build_config"}
        return {**unbuilt, "config": {**old["config"], **changed}}

    return change
