"""Normalization of pixels: one affine map per channel."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dcp_tf.errors import UsageError

# Floats that went through a resize or a JPEG decoder overshoot their range a little.
_SLACK = 0.01


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Maps pixels between 0 (black) and 1 (white) to what a network was trained on.

    A pixel `x` in 0..1 becomes `(x * scale - mean) / std`, per channel, in the order RGB or (`bgr`) BGR.

    Attributes:
        name: as in `--normalization`.
        scale: the value of white before the mean is subtracted.
        mean: one value, or one per channel, in output order.
        std: one value, or one per channel, in output order.
        bgr: whether the channels are reversed first.
        float_white: the value of white in arrays of floats. Integer pixels bring their own (255, or 16 in the digits).
        checks_floats: whether floats must be between 0 and `float_white`.
    """

    name: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False
    float_white: float = 1.0
    checks_floats: bool = True

    def affine(self, white: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns `(multiplier, offset)`, float32 of shape (1,) or (C,), for pixels whose white is `white`."""
        std = np.asarray(self.std, np.float64)
        # One rounding only: whole numbers stay whole where 255 meets 255.
        multiplier = self.scale / (white * std)
        offset = -np.asarray(self.mean, np.float64) / std
        return multiplier.astype(np.float32), offset.astype(np.float32)

    def apply(self, images, white: float | None = None):
        """Normalizes images.

        Args:
            images: (..., H, W, C) of float32, a tensor or an array.
            white: the value of white; None means `float_white`.

        Returns:
            The images, of the same type and shape.
        """
        multiplier, offset = self.affine(self.float_white if white is None else white)
        if self.bgr:
            images = images[..., ::-1]
        return images * multiplier + offset

    def undo(self, images: np.ndarray) -> np.ndarray:
        """The pixels between 0 and 1 of images that `apply` returned, in the order RGB, to look at them."""
        pixels = (images * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)) / self.scale
        return pixels[..., ::-1] if self.bgr else pixels

    def check_channels(self, channels: int) -> None:
        """Raises UsageError if the values per channel do not fit images of `channels` channels."""
        values = max(len(self.mean), len(self.std))
        if values not in (1, channels):
            raise UsageError(
                f"the normalization {self.name} has values for {values} channels, but the images have {channels}; "
                f"choose another one or give a mean and a std of 1 or {channels} values"
            )

    def check_floats(self, images: np.ndarray) -> None:
        """Raises UsageError if float pixels are not on the scale that this normalization expects."""
        if not self.checks_floats:
            return
        low, high = float(images.min()), float(images.max())
        slack = _SLACK * self.float_white
        if low < -slack or high > self.float_white + slack:
            raise UsageError(
                f"the normalization {self.name} expects float pixels between 0 and {self.float_white:g}, received "
                f"{low:g} to {high:g}; rescale them, pass integers of 0 to 255, or choose another normalization"
            )
        if self.float_white > 1.0 and high <= 1.0:
            raise UsageError(
                f"the normalization {self.name} expects float pixels between 0 and {self.float_white:g}, but none is "
                f"above 1 (received {low:g} to {high:g}); multiply them by 255 or choose another normalization"
            )


_TABLE = (
    Normalization("none", checks_floats=False),
    Normalization("unit", float_white=255.0),
    Normalization("raw", scale=255.0, float_white=255.0),
    Normalization("digits", mean=(0.3053,), std=(0.3761,)),
    Normalization("cifar10", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    Normalization("cifar100", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
    Normalization("imagenet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Normalization("tf", scale=2.0, mean=(1.0,)),
    Normalization("face", scale=255.0, mean=(127.5,), std=(128.0,)),
    Normalization("caffe", scale=255.0, mean=(103.939, 116.779, 123.68), bgr=True),
)
NORMALIZATIONS = {normalization.name: normalization for normalization in _TABLE}


def find_normalization(
    name: str | Normalization = "none", mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Normalization:
    """Returns the normalization of that name, or the one that `mean` and `std` (on pixels of 0..1) define.

    Raises:
        UsageError: the name is unknown, a name comes with a mean, or mean and std make no normalization.
    """
    if isinstance(name, Normalization):
        name, chosen = name.name, name
    else:
        chosen = NORMALIZATIONS.get(name)
    if mean is None and std is None:
        if chosen is None:
            raise UsageError(f"unknown normalization {name!r}; choose one of {', '.join(NORMALIZATIONS)}")
        return chosen
    if name != "none":
        raise UsageError(f"give either the normalization {name!r} or a mean and a std, not both")
    if mean is None or std is None:
        raise UsageError("a mean and a std go together; one of them is missing")
    mean, std = tuple(float(value) for value in mean), tuple(float(value) for value in std)
    if not mean or not std or 1 < len(mean) != len(std) > 1:
        raise UsageError(f"mean and std need one value or one per channel, received {mean} and {std}")
    if not all(np.isfinite(mean)) or not all(np.isfinite(std)) or min(std) <= 0:
        raise UsageError(f"mean and std must be finite and std above 0, received mean {mean} and std {std}")
    return Normalization("mean/std", mean=mean, std=std, checks_floats=False)
