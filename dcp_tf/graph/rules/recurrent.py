"""Recurrent layers: their kernels read the channels of a sequence, and each unit stays or goes with its gates."""

from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.rule import Labels, RuleCall, register_rule
from dcp_tf.graph.rules.activation import is_elementwise
from dcp_tf.graph.rules.common import positions

_CONVOLUTIONAL = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)
_OF_ONE_CELL = (layers.LSTM, layers.GRU, layers.SimpleRNN, *_CONVOLUTIONAL)
# How many states a cell of each kind has. The cell of a ConvLSTM is known by its layer, for Keras does not name it.
_STATES = {layers.LSTMCell: 2, layers.GRUCell: 1, layers.SimpleRNNCell: 1}


@register_rule(*_OF_ONE_CELL, layers.RNN)
def recurrent(call: RuleCall) -> list[Labels]:
    """One cell, or a stack of cells, each of which reads the outputs of the one before."""
    layer = call.operation
    reason = _cannot_be_pruned(call, [layer])
    if reason is not None:
        return call.opaque(reason)
    units = _units(call, layer, "output")
    if type(layer) is layers.RNN:
        _follow_cells(call, "cell", units)
    else:
        call.config("filters" if isinstance(layer, _CONVOLUTIONAL) else "units", units[0])
    states = _states(layer, units)
    _tie_states(call, states)
    outputs = [units[-1], *states]
    return [call.place(outputs[number], _axis(layer), number) for number in range(len(call.output_shapes))]


@register_rule(layers.Bidirectional)
def bidirectional(call: RuleCall) -> list[Labels]:
    """A forward and a backward layer: unit i is removed from both, since Keras needs equal widths."""
    wrapper = call.operation
    pair = [wrapper.forward_layer, wrapper.backward_layer]
    reason = _cannot_be_pruned(call, pair)
    if reason is not None:
        return call.opaque(reason)
    units = [_units(call, layer, layer.name) for layer in pair]
    for key, of_layer in zip(("layer", "backward_layer"), units, strict=True):
        _follow_cells(call, key, of_layer)
    forth, back = (of_layer[-1] for of_layer in units)
    call.tie(forth, back)
    outputs = {"concat": [np.concatenate([forth, back])], None: [forth, back]}.get(wrapper.merge_mode, [forth])
    states = [state for layer, of_layer in zip(pair, units, strict=True) for state in _states(layer, of_layer)]
    _tie_states(call, states)
    if wrapper.return_state:
        outputs += states
    return [call.place(labels, -1, output) for output, labels in enumerate(outputs)]


def _cells(layer: keras.Layer) -> list[keras.Layer] | None:
    """The cells of a recurrent layer in running order; None if the layer is unknown."""
    if type(layer) in _OF_ONE_CELL:
        return [layer.cell]
    if type(layer) is not layers.RNN:
        return None
    cells = layer.cell.cells if type(layer.cell) is layers.StackedRNNCells else [layer.cell]
    return list(cells) if all(type(cell) in _STATES for cell in cells) else None


def _width(cell: keras.Layer) -> int:
    return cell.units if hasattr(cell, "units") else cell.filters


def _axis(layer: keras.Layer) -> int:
    """The channel axis of a sequence, its outputs and its states, counted from the back."""
    channels_first = isinstance(layer, _CONVOLUTIONAL) and layer.data_format == "channels_first"
    return -1 - layer.cell.rank if channels_first else -1


def _cannot_be_pruned(call: RuleCall, parts: list[keras.Layer]) -> str | None:
    """Why the units cannot be pruned, or None."""
    cells = [_cells(part) for part in parts]
    if None in cells or type(parts[0]) is not type(parts[-1]):
        return "which has other cells than those of LSTM, GRU and SimpleRNN"
    if _width(cells[0][-1]) != _width(cells[-1][-1]):
        return "with another number of units from the back"
    if len(parts) > 1 and _axis(parts[0]) != -1:
        return "which joins both directions along an axis of space"
    if call.operation.stateful:
        return "whose state outlives the call"
    states = sum(len(_states(part, of_part)) for part, of_part in zip(parts, cells, strict=True))
    if len(_without_masks(call)) not in (1, 1 + states):
        return "with other inputs than a sequence and its states"
    activations = [getattr(c, key, None) for of_part in cells for c in of_part for key in _ACTIVATIONS]
    if not all(is_elementwise(function) for function in activations if function):
        return "whose activation mixes its units"
    return None


_ACTIVATIONS = ("activation", "recurrent_activation")


def _states(layer: keras.Layer, of_cells: list) -> list:
    """The entry of each cell, once for each of its states."""
    cells = _cells(layer)
    return [of_cell for cell, of_cell in zip(cells, of_cells, strict=True) for _ in range(_STATES.get(type(cell), 2))]


def _without_masks(call: RuleCall) -> list[int]:
    """Which inputs are the sequence and the states. A mask (boolean, per step) holds no channels."""
    tensors = call.call.node.arguments.keras_tensors
    return [which for which, tensor in enumerate(tensors) if tensor.dtype != "bool"]


def _tie_states(call: RuleCall, units: list[Labels]) -> None:
    """Ties the initial states, if there are any, to the units of the layer; pins masks."""
    followers = _without_masks(call)
    for which in set(range(len(call.inputs))) - set(followers):
        call.pin(call.inputs[which], f"it masks steps of {call.call.path}")
    axis = _axis(getattr(call.operation, "forward_layer", call.operation))
    for which, state in zip(followers[1:], units, strict=False):
        call.tie(call.channels(which, axis), state)


def _units(call: RuleCall, layer: keras.Layer, key: str) -> list[Labels]:
    """States what the cells of one direction read and make; returns the units of each cell."""
    channels_in = call.channels(_without_masks(call)[0], _axis(layer))
    positions_of_kernels = _positions(call, layer)
    units = []
    for number, cell in enumerate(_cells(layer)):
        channels_in = _units_of_cell(call, cell, f"{key} {number}", channels_in, positions_of_kernels)
        call.part(channels_in)
        units.append(channels_in)
    return units


def _positions(call: RuleCall, layer: keras.Layer) -> int | None:
    """How often a kernel is multiplied: at each step, and at each position of convolutional states."""
    steps = call.input_shapes[_without_masks(call)[0]][1]
    if not isinstance(layer, _CONVOLUTIONAL):
        return steps
    rank = layer.cell.rank
    state = call.output_shapes[0][-rank - 1 :]
    of_space = positions((None, *state), _axis(layer))
    return None if steps is None or of_space is None else steps * of_space


def _units_of_cell(call: RuleCall, cell: keras.Layer, key: str, channels_in: Labels, positions: int | None) -> Labels:
    """Kernel (*space, C, gates * units), recurrent kernel (*space, units, gates * units), a bias or two.

    A state is what was there before plus what each step adds: a residual stream along the steps.
    """
    width = _width(cell)
    units = call.fresh(width, key)
    call.recurrent.append(units)
    gates = np.tile(units, cell.kernel.shape[-1] // width)
    for kernel, channels in ((cell.kernel, channels_in), (cell.recurrent_kernel, units)):
        index = call.consume(kernel, -2, channels)
        call.weight(kernel, {-1: gates})
        call.multiplies(index, positions, output_axis=-1, bias=kernel is cell.kernel and cell.use_bias)
    if cell.use_bias:
        call.weight(cell.bias, {-1: gates})
    return units


def _follow_cells(call: RuleCall, key: str, units: list[Labels]) -> None:
    """States that a config entry, a serialized layer or cell, follows the units of its cells."""

    def change(kept: Any, old: dict[str, Any]) -> dict[str, Any]:
        return _narrowed(old, [kept.count(labels) for labels in units])

    call.config(key, change, depends_on=np.concatenate(units))


def _narrowed(serialized: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    """A serialized recurrent layer or cell with other widths, unbuilt."""
    config = dict(serialized["config"])
    if "cell" in config:
        config["cell"] = _narrowed(config["cell"], widths)
    elif "cells" in config:
        config["cells"] = [_narrowed(cell, [width]) for cell, width in zip(config["cells"], widths, strict=True)]
    else:
        config["units" if "units" in config else "filters"] = widths[0]
    return {**{key: value for key, value in serialized.items() if key != "build_config"}, "config": config}
