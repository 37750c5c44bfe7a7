"""The one table of layers with kernels: of which family they are, and what their kernels look like."""

import dataclasses
from collections.abc import Mapping

import keras


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """A class of Keras layers whose kernels make channels.

    Attributes:
        family: "dense", "convolution", "transposed", "depthwise" or "separable".
        rank: how many spatial axes its inputs have; 0 where that is open.
        kernels: name of each kernel (as Keras 2 has them) -> its axes that name an output channel.
    """

    family: str
    rank: int
    kernels: Mapping[str, tuple[int, ...]]


KINDS: Mapping[str, LayerKind] = {
    "Dense": LayerKind("dense", 0, {"kernel": (1,)}),
    **{f"Conv{r}D": LayerKind("convolution", r, {"kernel": (r + 1,)}) for r in (1, 2, 3)},
    **{f"Conv{r}DTranspose": LayerKind("transposed", r, {"kernel": (r,)}) for r in (1, 2, 3)},
    **{f"DepthwiseConv{r}D": LayerKind("depthwise", r, {"depthwise_kernel": (r, r + 1)}) for r in (1, 2)},
    **{
        f"SeparableConv{r}D": LayerKind("separable", r, {"depthwise_kernel": (r, r + 1), "pointwise_kernel": (r + 1,)})
        for r in (1, 2)
    },
}

# The names of kernels among the weights of all layers: not biases, gamma and beta, or PReLU's alpha.
KERNEL_NAMES = {name for kind in KINDS.values() for name in kind.kernels} | {"recurrent_kernel"}


def output_axes(layer: keras.layers.Layer) -> int:
    """How many of the last axes of a kernel count outputs: two where an EinsumDense makes heads with channels."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return 1
    term, kernel, _ = layer.equation.replace("->", ",").split(",")
    return sum(letter not in term for letter in kernel.strip())


def layers_of(*families: str, max_rank: int = 3) -> tuple[type[keras.layers.Layer], ...]:
    """The classes of some families; without a name all convolutions.

    Args:
        *families: see `LayerKind`.
        max_rank: the most spatial axes.
    """
    families = families or ("convolution", "transposed", "depthwise", "separable")
    kinds = (name for name, kind in KINDS.items() if kind.family in families and kind.rank <= max_rank)
    return tuple(getattr(keras.layers, name) for name in kinds)
