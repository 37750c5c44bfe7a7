"""The networks of keras.applications, each with the normalization that its weights were trained with."""

import pathlib

import keras

from dcp_tf.errors import UsageError

_BY_NORMALIZATION = {
    "caffe": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
    "imagenet": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "tf": (
        *("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2", "NASNetLarge", "NASNetMobile"),
        *("ResNet50V2", "ResNet101V2", "ResNet152V2", "Xception"),
    ),
    # These rescale inside.
    "raw": (
        *("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
        *(f"EfficientNetB{number}" for number in range(8)),
        *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
        *("MobileNetV3Small", "MobileNetV3Large"),
    ),
}
# Left alone, these leave height and width open; this is the size that they were trained on.
_OPEN_SIZES = {"MobileNetV3Small": (224, 224, 3), "MobileNetV3Large": (224, 224, 3)}
# Constructor name -> normalization.
APPLICATIONS = {name: normalization for normalization, names in _BY_NORMALIZATION.items() for name in names}


def build_application(
    name: str,
    *,
    weights: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
) -> keras.Model:
    """Builds `keras.applications.NAME` with its classifier.

    Args:
        name: a key of `APPLICATIONS`.
        weights: None (random), "imagenet" (downloaded once), or the path of a weights file.
        input_shape: (H, W, C); None for the network's own.
        num_classes: None for ImageNet's 1000.

    Raises:
        UsageError: there is no such network, or it cannot be had with these weights, this shape or these classes.
    """
    if name not in APPLICATIONS:
        raise UsageError(f"keras.applications has no network {name!r}; choose one of {', '.join(sorted(APPLICATIONS))}")
    if weights == "imagenet" and num_classes not in (None, 1000):
        raise UsageError(
            f"keras:{name} with weights 'imagenet' has 1000 classes, not {num_classes}; "
            "train it for your classes first and give the .keras file, or leave the weights out"
        )
    if weights not in (None, "imagenet") and not pathlib.Path(weights).is_file():
        raise UsageError(f"there is no weights file {weights}; give a path, 'imagenet' or nothing")
    constructor = getattr(keras.applications, name)
    if input_shape is None:
        input_shape = _OPEN_SIZES.get(name)
    try:
        return constructor(weights=weights, input_shape=input_shape, classes=num_classes or 1000)
    except Exception as error:  # keras.applications raises a bare Exception where a download fails
        if "URL fetch failure" in str(error):
            raise UsageError(
                f"the ImageNet weights of keras:{name} cannot be downloaded ({error}); download them where there is a "
                "network and give the file's path as weights"
            ) from error
        if isinstance(error, (ValueError, TypeError, OSError, KeyError)):
            reason = " ".join(str(error).split())
            raise UsageError(f"keras:{name} cannot be built so: {reason}") from error
        raise
