"""DS-CNN, for keywords in spectrograms."""

import keras
from keras import layers

from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv, depthwise


def ds_cnn(
    input_shape: tuple[int, int, int] = (49, 10, 1), num_classes: int = 12, width: int = 64, blocks: int = 4
) -> keras.Model:
    """Builds DS-CNN (Zhang et al. 2017, "Hello Edge"): depthwise separable convolutions over time and frequency.

    A 10x4 convolution of stride 2, then blocks of a 3x3 depthwise and a 1x1 convolution, each with
    BatchNormalization and ReLU. The defaults are the paper's small network; its medium and large ones are `width` 172
    and 276 (with one block more in the large one), with other strides.

    Args:
        input_shape: (frames, frequencies, 1).
        num_classes: the number of logits.
        width: channels of all layers.
        blocks: how many depthwise separable blocks.

    Returns:
        An untrained functional model that ends in logits.
    """
    inputs = keras.Input(input_shape, name="spectrogram")
    stem = layers.Conv2D(
        width, (10, 4), 2, padding="same", use_bias=False, kernel_initializer="he_normal", name="stem_conv"
    )
    x = bn_relu(stem(inputs), "stem")
    for number in range(1, blocks + 1):
        block = f"block{number}"
        x = bn_relu(depthwise(3, 1, f"{block}_depthwise")(x), f"{block}_depthwise")
        x = bn_relu(conv(width, 1, 1, f"{block}_pointwise_conv")(x), f"{block}_pointwise")
    return keras.Model(inputs, classifier(x, num_classes), name="ds_cnn")
