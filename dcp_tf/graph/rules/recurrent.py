"""Recurrent layers: their kernels read the channels of a sequence, and each unit's gates live and die with it."""

from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import is_elementwise
from dcp_tf.graph.rules.common import positions

_STATES = {layers.LSTM: 2, layers.GRU: 1, layers.SimpleRNN: 1}


@register_rule(*_STATES)
def recurrent(call: RuleCall) -> list[Labels]:
    """Kernel (C, gates * units), recurrent kernel (units, gates * units), a bias or two of (gates * units,)."""
    layer = call.operation
    reason = _cannot_be_pruned(call, [layer])
    if reason is not None:
        return call.opaque(reason)
    made = _units(call, layer, "output")
    call.config("units", made)
    _tie_states(call, [made] * _STATES[type(layer)])
    return [call.place(made, -1, output) for output in range(len(call.output_shapes))]


@register_rule(layers.Bidirectional)
def bidirectional(call: RuleCall) -> list[Labels]:
    """One recurrent layer from the front, one from the back: unit i of both goes, for Keras wants as many in each."""
    wrapper = call.operation
    pair = [wrapper.forward_layer, wrapper.backward_layer]
    reason = _cannot_be_pruned(call, pair)
    if reason is not None:
        return call.opaque(reason)
    forth, back = (_units(call, layer, layer.name) for layer in pair)
    call.tie(forth, back)
    for key, made in (("layer", forth), ("backward_layer", back)):
        call.config(key, lambda kept, old, made=made: _with_units(old, kept.count(made)), depends_on=made)
    outputs = {"concat": [np.concatenate([forth, back])], None: [forth, back]}.get(wrapper.merge_mode, [forth])
    states = _STATES[type(pair[0])]
    sides = [forth] * states + [back] * states
    _tie_states(call, sides)
    if wrapper.return_state:
        outputs += sides
    return [call.place(labels, -1, output) for output, labels in enumerate(outputs)]


@register_rule(layers.TimeDistributed)
def time_distributed(call: RuleCall) -> list[Labels]:
    """The layer inside is called once for each step: no graph shows those calls."""
    return call.opaque(
        "which hides its layer (dcp_tf.models.steps_as_rows opens it where the number of steps is known)"
    )


def _cannot_be_pruned(call: RuleCall, parts: list[keras.Layer]) -> str | None:
    """Why nothing is known of the units, or None."""
    if any(type(part) not in _STATES for part in parts) or type(parts[0]) is not type(parts[-1]):
        return "which is no LSTM, GRU or SimpleRNN"
    if parts[0].units != parts[-1].units:
        return "with another number of units from the back"
    if call.operation.stateful:
        return "whose state outlives the call"
    if len(_without_masks(call)) not in (1, 1 + len(parts) * _STATES[type(parts[0])]):
        return "with other inputs than a sequence and its states"
    functions = [f for part in parts for f in (part.activation, getattr(part, "recurrent_activation", None)) if f]
    if not all(map(is_elementwise, functions)):
        return "whose activation mixes its units"
    return None


def _without_masks(call: RuleCall) -> list[int]:
    """Which inputs are the sequence and the states. A mask (boolean, of steps) holds no channels that could go."""
    tensors = call.call.node.arguments.keras_tensors
    return [which for which, tensor in enumerate(tensors) if tensor.dtype != "bool"]


def _tie_states(call: RuleCall, units: list[Labels]) -> None:
    """The states that a layer begins with, if it is given any, belong to its units; masks stay as they are."""
    followers = _without_masks(call)
    for which in set(range(len(call.inputs))) - set(followers):
        call.pin(call.inputs[which], f"it masks steps of {call.call.path}")
    for which, made in zip(followers[1:], units, strict=False):
        call.tie(call.channels(which, -1), made)


def _units(call: RuleCall, layer: keras.Layer, key: str) -> Labels:
    """What one direction reads and makes.

    A state is what was there before plus what each step adds: a residual stream along the steps.
    """
    cell = layer.cell
    made = call.fresh(cell.units, key)
    call.residual.append(made)
    gates = np.tile(made, cell.kernel.shape[-1] // cell.units)
    sequence = _without_masks(call)[0]
    steps = positions(call.input_shapes[sequence], -1)
    for kernel, read in ((cell.kernel, call.channels(sequence, -1)), (cell.recurrent_kernel, made)):
        index = call.consume(kernel, 0, read)
        call.weight(kernel, {1: gates})
        call.multiplies(index, steps, output_axis=1, bias=kernel is cell.kernel and cell.use_bias)
    if cell.use_bias:
        call.weight(cell.bias, {-1: gates})
    return made


def _with_units(config: dict[str, Any], units: int) -> dict[str, Any]:
    """The serialized config of a recurrent layer with another number of units, built for no shape yet."""
    unbuilt = {key: value for key, value in config.items() if key != "build_config"}
    return {**unbuilt, "config": {**config["config"], "units": units}}
