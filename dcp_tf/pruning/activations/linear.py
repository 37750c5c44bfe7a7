"""Runs layers without their own activation: L_M compares outputs that are linear in the kernel."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from dcp_tf.graph.trace import Trace, unwrapped

# Layers that multiply their inputs by random factors of mean 1 in training, and do nothing in inference.
DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_SAME_VALUES = (keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.Identity)


def run_linear(
    trace: Trace, calls: Sequence[int], reading: set[int], values: dict[int, tf.Tensor], dropout: bool = False
) -> list[tf.Tensor]:
    """Runs `calls` in inference mode and adds their outputs to `values`.

    Args:
        trace: of the model.
        calls: their indices, in running order.
        reading: the calls whose linear outputs are returned.
        values: tensor number -> tensor; updated in place.
        dropout: whether the layers in `DROPOUTS` run as in training.

    Returns:
        The outputs of the calls in `reading` before the layer's own activation, in running order: O of the
        reconstruction loss, which is linear in W.
    """
    linear_outputs = []
    for index in calls:
        call = trace.calls[index]
        if index not in reading:
            training = dropout and isinstance(call.operation, DROPOUTS)
            values.update(zip(call.outputs, call.run(values, training=training), strict=True))
            continue
        with linear(call.operation) as activation:
            outputs = call.run(values, training=False)
        linear_outputs.extend(tf.cast(x, tf.float32) for x in outputs)
        values.update(zip(call.outputs, map(activation, outputs), strict=True))
    return linear_outputs


@contextlib.contextmanager
def linear(layer: keras.Layer) -> Iterator[Callable[[tf.Tensor], tf.Tensor]]:
    """Removes a layer's own activation inside of a `with`, and yields it.

    A recurrent layer keeps its activation: it works between the steps, and without it the state diverges.
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


def dropout_variance(trace: Trace, tensor: int) -> float:
    """The variance of the dropout factors of a tensor in training; 0 without dropout before it."""
    while tensor in trace.producer:
        call = trace.calls[trace.producer[tensor]]
        if isinstance(call.operation, DROPOUTS):
            return call.operation.rate / (1 - call.operation.rate)
        if not isinstance(call.operation, _SAME_VALUES):
            return 0.0
        tensor = call.inputs[0]
    return 0.0
