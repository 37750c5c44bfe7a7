"""The table of layer kinds says of each layer what Keras builds."""

import keras
import pytest
from keras import layers

from dcp_tf.graph.kinds import KERNEL_NAMES, KINDS, layers_of


@pytest.mark.parametrize("name", KINDS)
def test_the_axes_of_output_channels_are_those_that_keras_builds(name):
    kind, inputs, outputs = KINDS[name], 3, 5
    image = keras.Input((*[8] * kind.rank, inputs))
    if kind.family == "depthwise":
        layer, outputs = getattr(layers, name)(2, depth_multiplier=2), inputs * 2
    else:
        layer = getattr(layers, name)(outputs, *[2] * (kind.family != "dense"))
    channels = layer(image).shape[-1]
    assert channels == outputs
    for kernel, axes in kind.kernels.items():
        shape = getattr(layer, kernel, getattr(layer, "kernel", None)).shape
        count = 1
        for axis in axes:
            count *= shape[axis]
        assert count == (inputs if kernel == "depthwise_kernel" and kind.family == "separable" else outputs)


def test_the_table_has_every_convolution_of_keras():
    convolutions = {name for name in dir(layers) if "Conv" in name and "LSTM" not in name and "Convolution" not in name}
    assert {layer.__name__ for layer in layers_of()} == convolutions
    assert set(KINDS) == {*convolutions, "Dense"}


def test_families_and_ranks_choose():
    assert layers_of("dense", "convolution", max_rank=2) == (layers.Dense, layers.Conv1D, layers.Conv2D)
    assert {"kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel"} == KERNEL_NAMES
