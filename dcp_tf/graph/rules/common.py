"""Helpers that several rules need."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import KerasTensor, layers

from dcp_tf.graph.rule import Labels, RuleCall


def channel_axis(data_format: str | None, rank: int) -> int:
    """The channel axis of a tensor of `rank` axes, counted from the front."""
    return 1 if data_format == "channels_first" else rank - 1


def axis_list(axes: int | Iterable[int] | None, rank: int) -> list[int]:
    """Axes as a list, counted from the front; None stands for all of them."""
    axes = range(rank) if axes is None else [axes] if isinstance(axes, int) else axes
    return [axis % rank for axis in axes]


def positions(shape: tuple, axis: int) -> int | None:
    """The number of positions per image: the product of all axes but batch and channels; None if one is unknown."""
    sizes = [size for i, size in enumerate(shape) if i not in (0, axis % len(shape))]
    return None if None in sizes else math.prod(sizes)


def constant_arrays(call: RuleCall) -> list[tuple[int | str, Any]]:
    """The arrays and nested lists among the arguments, with their position or keyword."""
    arguments = call.call.node.arguments
    items = [*enumerate(arguments.args), *arguments.kwargs.items()]
    return [(key, value) for key, value in items if not isinstance(value, KerasTensor) and np.ndim(value) > 0]


def public(names: Iterable[str]) -> list[type]:
    """The classes of `keras.layers` with these names, where this version of Keras has them."""
    return [getattr(layers, name) for name in names if hasattr(layers, name)]


def operations(module: Any, names: str) -> list[type]:
    """The operations of a module of `keras.ops` with these names, where this version of Keras has them."""
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def rearranged(labels: Labels, term: str, output_term: str) -> Labels:
    """Labels with the axes of the output: summed axes are dropped, axes of other factors have size 1."""
    summed = tuple(axis for axis, letter in enumerate(term) if letter not in output_term)
    labels = np.squeeze(labels, summed)
    left = [letter for letter in term if letter in output_term]
    labels = labels.transpose([left.index(letter) for letter in output_term if letter in left])
    return np.expand_dims(labels, tuple(axis for axis, letter in enumerate(output_term) if letter not in left))
