"""PReLU layers as operations that have fast kernels in 8 bits: the larger of x and alpha * x."""

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.channel_graph import ChannelGraph
from dcp_tf.graph.kinds import KINDS
from dcp_tf.graph.surgery import rebuild
from dcp_tf.graph.trace import Trace
from dcp_tf.models.functional import check_functional

_READ_THROUGH = (layers.ZeroPadding2D, layers.Dropout, layers.AveragePooling2D, layers.GlobalAveragePooling2D)


def replace_prelu(model: keras.Model) -> keras.Model:
    """The model with `maximum(x, alpha * x)` in place of each PReLU: the same function, fast in int8 files.

    PRELU has no fast kernel in 8 bits, MAXIMUM and a 1x1 depthwise convolution have. A PReLU stays that has a slope of
    its own at each position (no `shared_axes`), or whose inputs are no images.

    Args:
        model: functional or Sequential; it stays as it is.

    Returns:
        A model of Keras layers with weights of its own, not compiled; without such PReLUs a copy.

    Raises:
        UsageError: the model is neither functional nor Sequential, or a layer cannot be created from its config.
    """
    return with_maximum(ChannelGraph(check_functional(model)))[0]


def with_maximum(graph: ChannelGraph) -> tuple[keras.Model, int, list[str]]:
    """The model with `maximum(x, alpha * x)` in place of PReLUs, which computes the same.

    That is PReLU where alpha is at most 1. Where it is more, the larger of the negatives is PReLU's negative: the sign
    changes back in the kernels that read the channel if these allow it, else in one more convolution.

    x passes through a convolution of its own, because the operands of MAXIMUM share the range of its result in 8 bits,
    and alpha * x must not be made of values that were cut to it (MAXIMUM never takes such a value).

    Args:
        graph: of the model, which stays as it is.

    Returns:
        The new model, how many PReLUs are replaced, and the names of those that stay.
    """
    found = {call.operation: call.inputs[0] for call in graph.trace.calls if isinstance(call.operation, layers.PReLU)}
    forms, flips = {}, []
    for layer, tensor in found.items():
        slopes = _slopes(layer, graph.trace.shapes[tensor][-1])
        if slopes is not None:
            signs = np.where(slopes > 1, -1.0, 1.0)
            readers = _readers_of_layer(graph.trace, layer) if signs.min() < 0 else []
            forms[id(layer)] = _Maximum(layer, slopes, signs, restores=readers is None)
            flips += [(path, signs) for path in readers or ()]
    model = rebuild(graph, graph.kept({}), forms)
    if flips:
        by_path = {call.path: call.operation for call in Trace(model).calls}
        for path, signs in flips:  # a kernel ends in (input channel, output channel), or (channel, multiplier)
            by_path[path].kernel.assign(by_path[path].kernel * signs[:, None])
    for form in forms.values():
        form.set_weights()
    return model, len(forms), [layer.name for layer in found if id(layer) not in forms]


class _Maximum:
    """Called in place of a PReLU."""

    def __init__(self, layer: layers.PReLU, slopes: np.ndarray, signs: np.ndarray, restores: bool):
        self._factors = {"same": signs, "scaled": slopes * signs} | ({"restored": signs} if restores else {})
        settings = {"dtype": layer.dtype_policy, "trainable": layer.trainable}
        self._scales = {
            name: layers.DepthwiseConv2D(1, use_bias=False, name=f"{layer.name}_{name}", **settings)
            for name in self._factors
        }
        self._maximum = layers.Maximum(name=layer.name, dtype=layer.dtype_policy)

    def __call__(self, x: keras.KerasTensor) -> keras.KerasTensor:
        y = self._maximum([self._scales["same"](x), self._scales["scaled"](x)])
        return self._scales["restored"](y) if "restored" in self._scales else y

    def set_weights(self) -> None:
        for name, layer in self._scales.items():
            layer.kernel.assign(self._factors[name].reshape(1, 1, -1, 1))


def _slopes(layer: layers.PReLU, channels: int) -> np.ndarray | None:
    """One slope for each channel; None where it is another at each position, or the inputs are no images."""
    alpha = keras.ops.convert_to_numpy(layer.alpha)
    if alpha.ndim != 3 or alpha.shape[:2] != (1, 1):
        return None
    return np.broadcast_to(alpha.reshape(-1), channels)


def _readers_of_layer(trace: Trace, layer: layers.PReLU) -> list[str] | None:
    """The paths of the layers whose kernels can take the signs of its channels; None where one cannot."""
    operations = [call.operation for call in trace.calls]
    if operations.count(layer) > 1:
        return None
    readers = _readers(trace, trace.calls[operations.index(layer)].outputs[0])
    if readers is None or any(operations.count(call.operation) > 1 for call in readers):
        return None
    return [call.path for call in readers]


def _readers(trace: Trace, tensor: int) -> list | None:
    """The layers with kernels that read a tensor; None where something else does that is not indifferent to signs."""
    readers = []
    for call in trace.calls:
        if tensor not in call.inputs:
            continue
        further = [call]
        if isinstance(call.operation, _READ_THROUGH):
            further = _readers(trace, call.outputs[0])
        elif not _takes_signs(call.operation):
            further = None
        if further is None:
            return None
        readers += further
    return None if tensor in trace.outputs else readers


def _takes_signs(operation: keras.Operation) -> bool:
    """Whether its one kernel can change the signs of its input channels."""
    family = KINDS[type(operation).__name__].family if type(operation).__name__ in KINDS else None
    return family in ("dense", "depthwise") or (family == "convolution" and operation.groups == 1)
