"""LayerNormalization as differences and products, for the time of a conversion.

Keras' own form subtracts `mean * scale` at the end and takes a SQUARED_DIFFERENCE. In integers TFLite has no NEG, which
made such a file one with floats, and XNNPACK takes no SQUARED_DIFFERENCE, whose plain kernel took a third of a vision
transformer's instructions. Centred first, the same function needs neither, and one operation less.
"""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def centred_layer_normalization() -> Iterator[None]:
    """Lets each Keras LayerNormalization subtract the mean first."""
    import keras

    kind = keras.layers.LayerNormalization
    original = kind.call

    def call(layer: Any, inputs: Any) -> Any:
        if layer.rms_scaling or inputs.dtype != "float32":
            return original(layer, inputs)
        rank = len(inputs.shape)
        axes = [axis % rank for axis in ([layer.axis] if isinstance(layer.axis, int) else layer.axis)]
        shape = [size if axis in axes else 1 for axis, size in enumerate(inputs.shape)]
        centred = inputs - keras.ops.mean(inputs, axes, keepdims=True)
        variance = keras.ops.mean(keras.ops.multiply(centred, centred), axes, keepdims=True)
        outputs = centred * keras.ops.rsqrt(variance + layer.epsilon)
        if layer.gamma is not None:
            outputs *= keras.ops.reshape(layer.gamma, shape)
        if layer.beta is not None:
            outputs += keras.ops.reshape(layer.beta, shape)
        return outputs

    kind.call = call
    try:
        yield
    finally:
        kind.call = original
