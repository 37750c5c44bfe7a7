"""The same images in other pixel ranges, as another normalization would give them."""

import dataclasses
from typing import Any

import numpy as np

from dcp_tf.data.image_split import ImageSplit
from dcp_tf.settings.normalization import NORMALIZATIONS, Normalization

_RANGES = {
    "unit": "0 to 1",
    "raw": "0 to 255",
    "tf": "-1 to 1",
    "imagenet": "mean and std of ImageNet",
    "caffe": "BGR less the mean of ImageNet",
    "cifar10": "mean and std of CIFAR-10",
    "digits": "mean and std of the digits",
}
_SLACK = 0.02  # of the range, for pixels that went through a resize
_CIFAR_SIDE = 32
_FEWEST_PIXELS = 36  # of an image; shorter vectors are none


@dataclasses.dataclass(frozen=True, eq=False)
class PixelRange:
    """One way to give images to a model.

    Attributes:
        name: what the pixels are, in words.
        settings: of `dcp_tf.data.load` for this range, as in "normalization='tf'"; None if there are none.
        images: (N, ...) as the model would get them.
    """

    name: str
    settings: str | None
    images: np.ndarray = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class _Pixels:
    """The values of black and white in float arrays, one value or one per channel."""

    black: Any
    white: Any


def other_ranges(data: Any, images: np.ndarray, number: int = 0) -> list[PixelRange]:
    """The images in the usual pixel ranges of models, except the one that they have.

    Args:
        data: the split that they come from, whose normalization is known.
        images: (N, H, W, C), (N, H, W) or (N, pixels) as a batch holds them.
        number: which of several inputs they are.

    Returns:
        An empty list if the scale of the images cannot be guessed.
    """
    channels = images.shape[-1] if images.ndim == 4 else 1
    if images.ndim > 4 or channels not in (1, 3) or images[0].size < _FEWEST_PIXELS:
        return []
    unit, source = _as_unit(data, images)
    if unit is None:
        return []
    ranges = []
    for name, text in _RANGES.items():
        target = NORMALIZATIONS[name]
        is_meant = {"digits": channels == 1, "cifar10": images.shape[1] == _CIFAR_SIDE}.get(name, True)
        if not is_meant or max(len(target.mean), len(target.std)) not in (1, channels):
            continue
        changed = target.apply(unit, 1.0).astype(np.float32)
        if not np.allclose(changed, images, atol=1e-2 * max(1e-6, float(np.ptp(changed)))):
            settings = _settings(target, source) if isinstance(data, ImageSplit) else _of_arrays(data, number, target)
            ranges.append(PixelRange(text, settings, changed))
    return ranges


def _of_arrays(data: Any, number: int, target: Normalization) -> str | None:
    """The settings for an input of plain arrays: a name, where these have a normalization and it would do."""
    used = getattr(data, "normalizations", ())
    if not used or used[number] is None:
        return None
    pixels = data.input_arrays[number]
    is_raw = pixels.dtype.kind in "ui" or (target.float_white > 1) == (float(pixels[:64].max()) > 1)
    return f"normalization={target.name!r}" if is_raw else None


def _as_unit(data: Any, images: np.ndarray) -> tuple[np.ndarray | None, _Pixels | None]:
    """The images with black at 0 and white at 1 (None if unknown), and the scale of floats in the data."""
    if not isinstance(data, ImageSplit):
        pixels = _guessed(images)
        return (None, None) if pixels is None else ((images - pixels.black) / (pixels.white - pixels.black), pixels)
    white = data.source.white
    multiplier, offset = data.normalization.affine(data.normalization.float_white if white is None else white)
    values = (images - offset) / multiplier
    if data.normalization.bgr:
        values = values[..., ::-1]
    if white is not None:
        return values / white, None
    pixels = _guessed(values)
    return (None, None) if pixels is None else ((values - pixels.black) / (pixels.white - pixels.black), pixels)


def _guessed(values: np.ndarray) -> _Pixels | None:
    """The values of black and white in floats, by their range; None if it is not a usual one."""
    low, high = float(values.min()), float(values.max())
    for black, white in ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)):
        slack = _SLACK * (white - black)
        is_used = high > 0.1 * white  # dark images of 0..255 reach further than bright ones of 0..1
        if black - slack <= low and high <= white + slack and is_used:
            return _Pixels(black, white)
    imagenet = NORMALIZATIONS["imagenet"]
    mean, std = (np.asarray(x) for x in (imagenet.mean, imagenet.std))
    if values.ndim == 4 and values.shape[-1] == 3:
        unit = values * std + mean
        if unit.min() >= -_SLACK and unit.max() <= 1 + _SLACK and low < 0:
            return _Pixels(-mean / std, (1 - mean) / std)
    return None


def _settings(target: Normalization, pixels: _Pixels | None) -> str | None:
    """The settings that normalize the data's pixels to `target`; a name does for integers, perhaps not for floats."""
    if pixels is None:
        return f"normalization={target.name!r}"
    span = np.asarray(pixels.white, np.float64) - pixels.black
    # target = (u scale - mean) / std with u = (x - black) / span, which is (x - own mean) / own std.
    std = np.asarray(target.std) * span / target.scale
    mean = pixels.black + np.asarray(target.mean) * span / target.scale
    multiplier, offset = target.affine(target.float_white)
    if np.allclose(multiplier, 1 / std, rtol=1e-4) and np.allclose(offset, -mean / std, atol=1e-4):
        return f"normalization={target.name!r}"
    if target.bgr:
        return None
    return ", ".join(
        f"{name}={tuple(float(f'{value:.6g}') for value in np.atleast_1d(values))}"
        for name, values in (("mean", mean), ("std", std))
    )
