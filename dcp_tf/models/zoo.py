"""The networks that come with dcp_tf, by name."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial

import keras

from dcp_tf.errors import UsageError
from dcp_tf.models.networks import faces, mobilenet_v1, mobilenet_v2, resnet, vgg
from dcp_tf.models.networks.autoencoder import autoencoder
from dcp_tf.models.networks.cifar_resnet import cifar_resnet, resnet8
from dcp_tf.models.networks.detector import detector_mobilenet_v2
from dcp_tf.models.networks.ds_cnn import ds_cnn
from dcp_tf.models.networks.image_and_metadata import image_and_metadata
from dcp_tf.models.networks.mobilevit import mobilevit_cifar
from dcp_tf.models.networks.preresnet import preresnet
from dcp_tf.models.networks.unet import unet
from dcp_tf.models.networks.vit import vit_cifar


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and what it is built for.

    Attributes:
        build: takes `input_shape=` and `num_classes=` (networks without classes: `input_shape=` alone).
        input_shape: (H, W, C) of its data set, of the image where there are several inputs; (N,) for vectors.
        num_classes: of its data set; None for networks that end in embeddings or reconstruct their input.
        normalization: of color images, a name that `dcp_tf.data` knows; None where the inputs are not only images.
    """

    build: Callable[..., keras.Model]
    input_shape: tuple[int, ...] = (32, 32, 3)
    num_classes: int | None = 10
    normalization: str | None = "cifar10"


_small = Network
_imagenet = partial(Network, input_shape=(224, 224, 3), num_classes=1000, normalization="imagenet")
_face = partial(Network, num_classes=None, normalization="face")

# A new network needs one line here.
NETWORKS: dict[str, Network] = {
    "preresnet20": _small(partial(preresnet, 20)),
    "preresnet56": _small(partial(preresnet, 56)),
    "preresnet56_cifar": _small(partial(preresnet, 56)),
    "preresnet110": _small(partial(preresnet, 110)),
    "resnet20": _small(partial(cifar_resnet, 20)),
    "resnet56": _small(partial(cifar_resnet, 56)),
    "resnet110": _small(partial(cifar_resnet, 110)),
    "resnet20b": _small(partial(cifar_resnet, 20, shortcuts="B")),
    "resnet56b": _small(partial(cifar_resnet, 56, shortcuts="B")),
    "resnet110b": _small(partial(cifar_resnet, 110, shortcuts="B")),
    "vgg16_cifar": _small(vgg.vgg16_cifar),
    "vgg19_cifar": _small(vgg.vgg19_cifar),
    "mobilenet_v1_cifar": _small(mobilenet_v1.mobilenet_v1_cifar),
    "mobilenet_v2_cifar": _small(mobilenet_v2.mobilenet_v2_cifar),
    "mobilenet_v2_small": _small(mobilenet_v2.mobilenet_v2_small),
    "vit_cifar": _small(vit_cifar),
    "mobilevit_cifar": _small(mobilevit_cifar),
    "resnet18": _imagenet(resnet.resnet18),
    "resnet50": _imagenet(resnet.resnet50),
    "mobilenet_v1": _imagenet(mobilenet_v1.mobilenet_v1),
    "mobilenet_v1_sparse": _imagenet(mobilenet_v1.mobilenet_v1_sparse),
    "mobilenet_v2": _imagenet(mobilenet_v2.mobilenet_v2),
    "mobilefacenet": _face(faces.mobilefacenet, (112, 112, 3)),
    "lresnet34e_ir": _face(faces.lresnet34e_ir, (112, 112, 3)),
    "spherenet4": _face(faces.spherenet4, (112, 96, 3)),
    "spherenet20": _face(faces.spherenet20, (112, 96, 3)),
    "unet": Network(unet, (256, 256, 3), 2, "imagenet"),
    "detector_mobilenet_v2": Network(detector_mobilenet_v2, (320, 320, 3), 81, "imagenet"),
    "ds_cnn": Network(ds_cnn, (49, 10, 1), 12, None),
    "resnet8": _small(resnet8),
    "mobilenet_v1_025": Network(mobilenet_v1.mobilenet_v1_025, (96, 96, 3), 2, "imagenet"),
    "autoencoder": Network(autoencoder, (640,), None, None),
    "image_and_metadata": Network(image_and_metadata, (64, 64, 3), 8, None),
}


def build(name: str, input_shape: tuple[int, ...] | None = None, num_classes: int | None = None) -> keras.Model:
    """Builds a network of `NETWORKS`, or `preresnetN` of any depth N = 6n + 2.

    Args:
        name: its name.
        input_shape: (H, W, C), of `autoencoder` (N,); None for that of the network's data set.
        num_classes: the number of logits; None for that of the network's data set. Networks for faces have none, nor
            has `autoencoder`.

    Raises:
        UsageError: there is no network of that name, or it cannot take such images or classes.
    """
    network = find_network(name)
    input_shape = network.input_shape if input_shape is None else tuple(input_shape)
    rank = len(network.input_shape)
    if len(input_shape) != rank or not all(isinstance(size, int) and size > 0 for size in input_shape):
        sizes = "(height, width, channels)" if rank == 3 else "(values,)"
        raise UsageError(f"{name} needs an input shape of {sizes}, received {input_shape}")
    if network.num_classes is None:
        if num_classes is not None:
            gives = "embeddings" if rank == 3 else "what it is given"
            raise UsageError(f"{name} gives {gives}, which has no classes; leave out the {num_classes} classes")
        return network.build(input_shape=input_shape)
    num_classes = network.num_classes if num_classes is None else num_classes
    if num_classes < 1:
        raise UsageError(f"a network needs at least 1 class, received {num_classes}")
    return network.build(input_shape=input_shape, num_classes=num_classes)


def find_network(name: str) -> Network:
    """The entry of `NETWORKS`, or one for `preresnetN` of any depth.

    Raises:
        UsageError: there is no network of that name.
    """
    network = NETWORKS.get(name)
    if network is None and (depth := re.fullmatch(r"preresnet(\d+)", name)):
        network = _small(partial(preresnet, int(depth[1])))
    if network is None:
        raise UsageError(
            f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}, or preresnetN with N = 6n + 2"
        )
    return network


def zoo_normalization(name: str, channels: int) -> str:
    """The normalization of a network's images: `digits` for gray ones, its data set's for RGB, else `none`.

    The networks are trained here from the first step, so one mean and std for all gray images will do. Networks for
    spectrograms, or for more than an image, have `none`.
    """
    normalization = find_network(name).normalization
    return {1: normalization and "digits", 3: normalization}.get(channels) or "none"
