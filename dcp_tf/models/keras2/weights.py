"""Copies the weights of a Keras 2 layer in the form that its Keras 3 layer needs.

Both versions have a function `hard_sigmoid`, and the two differ: clip(0.2 x + 0.5, 0, 1) in Keras 2, clip(x / 6 + 0.5,
0, 1) in Keras 3. Keras 2 at x equals Keras 3 at 1.2 x. So if x is linear in weights, these weights times 1.2 give the
same outputs.
"""

from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

_FACTOR = 1.2
# Layers whose activation is applied to something linear in the weights of these names. A separable convolution's
# outputs are linear in its second kernel.
_LINEAR = {
    **dict.fromkeys(("Dense", "EinsumDense", "SimpleRNN", "SimpleRNNCell"), ("kernel", "recurrent_kernel", "bias")),
    **{f"Conv{rank}D": ("kernel", "bias") for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": ("kernel", "bias") for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": ("depthwise_kernel", "bias") for rank in (1, 2)},
    **{f"SeparableConv{rank}D": ("pointwise_kernel", "bias") for rank in (1, 2)},
}
# Gates by their position along the last axis of each weight: of the recurrent activation, and the candidate state.
_GATES = {
    **dict.fromkeys(("LSTM", "LSTMCell", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), ((0, 1, 3), 2, 4)),
    **dict.fromkeys(("GRU", "GRUCell"), ((0, 1), 2, 3)),
}


def hard_sigmoid_entries(config: dict) -> list[str]:
    """The entries of a Keras 2 config that name `hard_sigmoid`."""
    return [key for key in ("activation", "recurrent_activation") if config.get(key) == "hard_sigmoid"]


def check_hard_sigmoid(kind: str, config: dict) -> None:
    """Checks that scaled weights can reproduce the `hard_sigmoid` in a config.

    Raises:
        ValueError: they cannot.
    """
    if hard_sigmoid_entries(config) and kind not in _LINEAR and kind not in _GATES:
        raise ValueError("hard_sigmoid is another function in Keras 3; make it an Activation layer of its own")


def needs_own_activation(kind: str, config: dict) -> bool:
    """Whether the activation `hard_sigmoid` is applied to the state of an LSTM cell, a sum that no weight scales."""
    return "LSTM" in kind and config.get("activation") == "hard_sigmoid"


def copy_weights(old, new: keras.layers.Layer) -> None:
    """Copies the weights of a Keras 2 layer to the built Keras 3 layer.

    Raises:
        ValueError: they are of other shapes.
    """
    if isinstance(new, layers.Normalization | keras.Model):
        return  # the first has its values in its config, the layers of the second have theirs
    for old_inner, new_inner in _inner_layers(old, new):
        copy_weights(old_inner, new_inner)
    if isinstance(new, layers.SpectralNormalization):
        new.vector_u.assign(old.vector_u.numpy())
    elif not (type(new) is layers.RNN or isinstance(new, _HOLDERS)):
        values = _scaled_values(old)
        have, want = [w.shape for w in values], [tuple(w.shape) for w in new.weights]
        if have != want:
            raise ValueError(f"its weights are of shapes {have}, in Keras 3 of {want}")
        new.set_weights(values)


# Layers that hold other layers, and no weights of their own; RNN too, but not LSTM and others that inherit from it.
_HOLDERS = (layers.Bidirectional, layers.TimeDistributed, layers.StackedRNNCells)


def _inner_layers(old, new: keras.layers.Layer) -> Iterator[tuple]:
    if isinstance(new, layers.Bidirectional):
        yield from ((old.forward_layer, new.forward_layer), (old.backward_layer, new.backward_layer))
    elif isinstance(new, layers.TimeDistributed | layers.SpectralNormalization):
        yield old.layer, new.layer
    elif isinstance(new, layers.StackedRNNCells):
        yield from zip(old.cells, new.cells, strict=True)
    elif type(new) is layers.RNN:
        yield old.cell, new.cell


def _scaled_values(layer) -> list[np.ndarray]:
    factors = _factors(layer)
    return [value * factors[id(weight)] for weight, value in zip(layer.weights, layer.get_weights(), strict=True)]


def _factors(layer) -> dict[int, float | np.ndarray]:
    """What each weight is multiplied by: a number, or one number for each position of its last axis."""
    factors: dict[int, float | np.ndarray] = {id(weight): 1.0 for weight in layer.weights}
    kind, entries = type(layer).__name__, hard_sigmoid_entries(layer.get_config())
    if not entries:
        return factors
    if kind in _GATES:
        gate_factors = _gate_factors(kind, entries)
        for weight in layer.weights:
            factors[id(weight)] = np.repeat(gate_factors, weight.shape[-1] // len(gate_factors))
        return factors
    holder = getattr(layer, "cell", layer)
    for name in _LINEAR[kind]:
        weight = getattr(holder, name, None)
        if weight is not None:
            factors[id(weight)] = _FACTOR
    return factors


def _gate_factors(kind: str, entries: list[str]) -> np.ndarray:
    recurrent, candidate, count = _GATES[kind]
    factors = np.ones(count, np.float32)
    if "recurrent_activation" in entries:
        factors[list(recurrent)] = _FACTOR
    if "activation" in entries and "LSTM" not in kind:
        factors[candidate] = _FACTOR
    return factors
