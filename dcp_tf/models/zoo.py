"""The networks that come with dcp_tf, by name."""

import re
from collections.abc import Callable
from functools import partial

import keras

from dcp_tf.errors import UsageError
from dcp_tf.models.mobilenet import mobilenet_v2_small
from dcp_tf.models.preresnet import preresnet

# Each takes `input_shape=` and `num_classes=`. A new network needs one line here.
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "preresnet20": partial(preresnet, 20),
    "preresnet56": partial(preresnet, 56),
    "preresnet110": partial(preresnet, 110),
    "mobilenet_v2_small": mobilenet_v2_small,
}


def build(name: str, input_shape: tuple[int, int, int] = (32, 32, 3), num_classes: int = 10) -> keras.Model:
    """Builds a network of `NETWORKS`, or `preresnetN` of any depth N = 6n + 2.

    Raises:
        UsageError: there is no network of that name, or it cannot take such images.
    """
    constructor = NETWORKS.get(name)
    if constructor is None and (depth := re.fullmatch(r"preresnet(\d+)", name)):
        constructor = partial(preresnet, int(depth[1]))
    if constructor is None:
        raise UsageError(
            f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}, or preresnetN with N = 6n + 2"
        )
    if len(input_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise UsageError(f"a network needs an input shape of (height, width, channels), received {tuple(input_shape)}")
    if num_classes < 1:
        raise UsageError(f"a network needs at least 1 class, received {num_classes}")
    return constructor(input_shape=tuple(input_shape), num_classes=num_classes)


def zoo_normalization(channels: int) -> str:
    """The normalization that goes with the networks above: `digits` for gray images, `cifar10` for RGB, else `none`.

    They are trained here from the first step, so one mean and std for all gray, and one for all colour images will do.
    """
    return {1: "digits", 3: "cifar10"}.get(channels, "none")
