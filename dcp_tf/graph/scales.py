"""Layers that multiply each channel by a number (LayerScale), folded into the layer before them."""

from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.linear import made_axes, makes_channels
from dcp_tf.graph.rule import across
from dcp_tf.graph.surgery import rebuild
from dcp_tf.graph.trace import Call, Trace, accepts_training
from dcp_tf.models.custom_objects import is_custom


def fold_scales(graph: ChannelGraph) -> tuple[keras.Model, list[str]]:
    """A model in which kernels do what layers that scale their outputs did.

    Args:
        graph: of the model.

    Returns:
        A copy of the same function, and the paths of the layers that it does without; the model itself without any.
    """
    found = {}
    for call in graph.trace.calls:
        maker = _maker(graph.trace, call)
        scale = None if maker is None else _scale(call, graph.trace.shapes[call.inputs[0]])
        if scale is not None:
            found[call] = graph.records[id(maker.operation)], scale
    if not found:
        return graph.trace.model, []
    model = rebuild(graph, graph.kept({}), {id(call.operation): lambda x: x for call in found})
    operations = {call.path: call.operation for call in Trace(model, opens_attention=True).calls}
    for record, scale in found.values():
        for index, axis in made_axes(record):
            weight = operations[record.path].weights[index]
            weight.assign(weight * across(axis, scale, len(weight.shape)))
    return model, [call.path for call in found]


def _maker(trace: Trace, call: Call) -> Call | None:
    """The layer whose outputs a custom layer reads alone, if its kernel makes them without an activation."""
    if not isinstance(call.operation, keras.Layer) or not is_custom(call.operation) or len(call.inputs) != 1:
        return None
    calls = [call]
    while len(calls) == 1 or isinstance(calls[-1].operation, layers.Dropout):
        tensor = calls[-1].inputs[0]
        if tensor not in trace.producer or tensor in trace.outputs:
            return None
        if sum(tensor in other.inputs for other in trace.calls) > 1:
            return None
        calls.append(trace.calls[trace.producer[tensor]])
    maker = calls[-1].operation
    called = [id(other.operation) for other in trace.calls]
    shared = any(called.count(id(operation)) > 1 for operation in (call.operation, maker))
    linear = getattr(maker, "activation", None) in (None, keras.activations.linear)
    has_kernel = makes_channels(maker) and not isinstance(maker, layers.Embedding)
    return calls[-1] if has_kernel and linear and not shared else None


def _scale(call: Call, shape: tuple) -> np.ndarray | None:
    """By what a layer multiplies the channels of its last axis; None if it does anything else."""
    if accepts_training(type(call.operation)) or None in shape[1:]:
        return None
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape[1:])).astype("float32")
    try:
        scale, y = (_run(call, value) for value in (np.ones_like(x[:1]), x))
    except Exception:  # of a user's own code, which may take other inputs than these
        return None
    scale = scale.reshape(-1, scale.shape[-1])[0] if scale.shape == x[:1].shape else np.full(shape[-1], np.nan)
    return scale if y.shape == x.shape and np.allclose(y, x * scale, 1e-5, 1e-7) else None


def _run(call: Call, x: np.ndarray) -> np.ndarray:
    outputs: Any = call.run({call.inputs[0]: keras.ops.convert_to_tensor(x)})
    return keras.ops.convert_to_numpy(outputs[0])
