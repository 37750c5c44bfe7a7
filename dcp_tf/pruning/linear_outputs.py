"""Layers run without the activation that they have themselves: what L_M compares is linear in the kernel."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from dcp_tf.graph.trace import Trace, unwrapped


def run_linear(trace: Trace, calls: Sequence[int], reading: set[int], values: dict[int, tf.Tensor]) -> list[tf.Tensor]:
    """Runs `calls` in inference mode and adds their outputs to `values`.

    Returns:
        The outputs of the calls in `reading` before the activation that the layer itself has, in running order: O of
        the reconstruction loss is linear in W.
    """
    linear_outputs = []
    for index in calls:
        call = trace.calls[index]
        if index not in reading:
            values.update(zip(call.outputs, call.run(values, training=False), strict=True))
            continue
        with linear(call.operation) as activation:
            outputs = call.run(values, training=False)
        linear_outputs.extend(tf.cast(x, tf.float32) for x in outputs)
        values.update(zip(call.outputs, map(activation, outputs), strict=True))
    return linear_outputs


@contextlib.contextmanager
def linear(layer: keras.Layer) -> Iterator[Callable[[tf.Tensor], tf.Tensor]]:
    """Takes a layer's own activation out for a while and hands it over.

    A recurrent layer keeps it: it works between the steps, and a state without it grows beyond all bounds.
    """
    layer = unwrapped(layer)
    if not hasattr(layer, "activation") or isinstance(layer, keras.layers.RNN):
        yield keras.activations.linear
        return
    activation = layer.activation
    layer.activation = keras.activations.linear
    try:
        yield activation or keras.activations.linear
    finally:
        layer.activation = activation
