"""Pre-activation residual networks for small images."""

import keras
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.models.networks.building_blocks import bn_relu, classifier, conv


def preresnet(
    depth: int, input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10, width: int = 16
) -> keras.Model:
    """Builds the pre-activation ResNet for CIFAR (He et al. 2016, "Identity Mappings in Deep Residual Networks").

    A 3x3 stem, then three stages of basic blocks (BN-ReLU-conv-BN-ReLU-conv) with `width`, `2 * width` and
    `4 * width` channels; stages 2 and 3 begin with stride 2. Where a block changes the shape, its shortcut is a 1x1
    convolution of the pre-activated input. No convolution has a bias.

    Args:
        depth: 6n + 2, with n blocks per stage: 8, 14, 20, ..., 56, ..., 110.
        input_shape: (H, W, C).
        num_classes: the number of logits.
        width: the channels of the stem and of stage 1.

    Returns:
        An untrained functional model that ends in logits.

    Raises:
        UsageError: the depth is not 6n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise UsageError(f"a preresnet has a depth of 6n + 2 (8, 14, 20, ..., 56, 110), received {depth}")
    inputs = keras.Input(input_shape, name="image")
    x = conv(width, 3, 1, "stem_conv")(inputs)
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width * 2 ** (stage - 1), stride, f"stage{stage}_block{block}")
    x = bn_relu(x, "head")
    return keras.Model(inputs, classifier(x, num_classes), name=f"preresnet{depth}")


def _basic_block(x, filters: int, stride: int, name: str):
    activated = bn_relu(x, f"{name}_pre1")
    shortcut = x
    if stride != 1 or x.shape[-1] != filters:
        shortcut = conv(filters, 1, stride, f"{name}_shortcut")(activated)
    y = conv(filters, 3, stride, f"{name}_conv1")(activated)
    y = bn_relu(y, f"{name}_pre2")
    y = conv(filters, 3, 1, f"{name}_conv2")(y)
    return layers.Add(name=f"{name}_add")([shortcut, y])
