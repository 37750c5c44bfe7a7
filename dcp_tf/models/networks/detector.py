"""An object detector without anchors on a MobileNetV2."""

import keras
from keras import layers

from dcp_tf.errors import UsageError
from dcp_tf.models.networks.building_blocks import bn_relu, conv, depthwise
from dcp_tf.models.networks.mobilenet_v2 import STAGES, feature_maps

_LEVELS = ("stage3_block3", "stage5_block3", "stage7_block1")  # of strides 8, 16 and 32


def detector_mobilenet_v2(
    input_shape: tuple[int, int, int] = (320, 320, 3), num_classes: int = 81, alpha: float = 1.0, width: int = 128
) -> keras.Model:
    """Builds a detector that gives a class and a box at every eighth pixel.

    The backbone is MobileNetV2 (Sandler et al. 2018). Its maps of strides 8, 16 and 32 are summed from the coarsest to
    the finest, each through a 1x1 convolution, as in a feature pyramid (Lin et al. 2017). Two towers of depthwise
    separable convolutions, as in SSDLite, read the sum; one ends in classes, one in the distances to the four sides
    of the object's box, as in FCOS (Tian et al. 2019), here of one level and without its centerness.

    Args:
        input_shape: (H, W, C); H and W are multiples of 32.
        num_classes: the number of logits of each cell; where the background is a class, it counts.
        alpha: scales the channel counts of the backbone.
        width: channels of pyramid and towers.

    Returns:
        An untrained functional model whose outputs are a dict. `classes` are logits of shape
        (H / 8, W / 8, num_classes), `boxes` of shape (H / 8, W / 8, 4) are the
        distances left, top, right, bottom, in the unit of the training.

    Raises:
        UsageError: height or width is no multiple of 32.
    """
    if any(size % 32 for size in input_shape[:2]):
        raise UsageError(
            f"the detector needs images whose height and width are multiples of 32, "
            f"received {input_shape[0]} x {input_shape[1]}"
        )
    inputs = keras.Input(input_shape, name="image")
    maps = feature_maps(inputs, STAGES, 32, 2, alpha)
    fine, middle, x = (conv(width, 1, 1, f"pyramid_{name}", use_bias=True)(maps[name]) for name in _LEVELS)
    for level, finer in (("middle", middle), ("fine", fine)):
        x = layers.UpSampling2D(name=f"pyramid_{level}_upsample")(x)
        x = layers.Add(name=f"pyramid_{level}_add")([x, finer])
    outputs = {"classes": _tower(x, width, num_classes, "classes"), "boxes": _tower(x, width, 4, "boxes")}
    return keras.Model(inputs, outputs, name="detector_mobilenet_v2")


def _tower(x, width: int, channels: int, name: str):
    for number in (1, 2):
        block = f"{name}_block{number}"
        x = bn_relu(depthwise(3, 1, f"{block}_depthwise")(x), f"{block}_depthwise", 6.0)
        x = bn_relu(conv(width, 1, 1, f"{block}_pointwise_conv")(x), f"{block}_pointwise", 6.0)
    return conv(channels, 1, 1, name, use_bias=True)(x)
