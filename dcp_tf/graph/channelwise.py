"""Custom layers that treat each channel alone, such as LayerScale or a table of positions: found by a trial.

A copy of the layer with fewer channels must compute what the whole layer computes of them.
"""

import dataclasses
import weakref
from typing import Any

import keras
import numpy as np
from keras import layers

from dcp_tf.graph.identity import OPEN_SIZE, run_in_inference
from dcp_tf.models.custom_objects import is_custom
from dcp_tf.models.layer_copies import new_layer

# What a layer that treats channels alone may hold; other layers inside of one would make the trial long.
_INSIDE = (
    *(layers.Embedding, layers.Dropout, layers.Activation, layers.BatchNormalization, layers.LayerNormalization),
    *(layers.Add, layers.Multiply, layers.Rescaling, layers.Identity),
)
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Follows:
    """How a layer follows the channels of its input.

    Attributes:
        weights: index of a weight -> its axis of channels.
        config: the entries of its config that hold the number of channels.
        takes_statistics: whether each channel also depends on all others, in the same way (a normalization).
        keeps_zeros: whether a channel of zeros stays one.
    """

    weights: dict[int, int]
    config: tuple[str, ...]
    takes_statistics: bool
    keeps_zeros: bool


_KNOWN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def follows(operation: keras.Operation, shape: tuple, output_shape: tuple, axis: int) -> Follows | None:
    """How a custom layer without a rule follows channels, None if it mixes them or a trial is impossible.

    Args:
        operation: a layer or operation without a rule.
        shape: of its only input, with the batch axis.
        output_shape: of its only output.
        axis: of the channels.
    """
    if not isinstance(operation, keras.Layer) or not is_custom(operation):
        return None
    if not all(isinstance(layer, _INSIDE) for layer in operation._flatten_layers(include_self=False)):
        return None
    if len(shape) != len(output_shape) or shape[axis] != output_shape[axis] or (shape[axis] or 0) < 2:
        return None
    known, key = _KNOWN.setdefault(operation, {}), (tuple(shape), axis)
    if key not in known:
        try:
            known[key] = _tried(operation, shape, axis)
        except Exception:  # of a user's own code, which may take other inputs than these
            known[key] = None
    return known[key]


def _tried(layer: keras.Layer, shape: tuple, axis: int) -> Follows | None:
    rng, size = np.random.default_rng(0), shape[axis]
    x = rng.normal(size=(2, *(n or OPEN_SIZE for n in shape[1:]))).astype("float32")
    whole = new_layer(layer)
    _run(whole, x)
    values = [rng.uniform(0.5, 1.5, w.shape) if "float" in w.dtype else w.numpy() for w in whole.weights]
    expected, found = _run(whole, x, values), []
    keeps_zeros = not _run(whole, np.zeros_like(x)).any()
    for keys in _candidates(layer.get_config(), size):
        # Without the first or the last channel, and a third of the others.
        others = [rng.permutation(np.delete(np.arange(size), gone)) for gone in (0, size - 1)]
        try:
            results = [_without_some(whole, x, values, axis, np.sort(o[: max(1, 2 * size // 3)]), keys) for o in others]
        except Exception:  # the layer cannot have fewer channels by these entries
            continue
        axes = results[0][0]
        if all(_close(y, np.take(expected, kept, axis)) for _, y, kept in results):
            return Follows(axes, keys, False, keeps_zeros)
        order = rng.permutation(size)
        outputs = _run(whole, np.take(x, order, axis), _taken(values, axes, order))
        if axes and _close(outputs, np.take(expected, order, axis)):
            found.append(Follows(axes, keys, True, keeps_zeros))
    return found[0] if found else None


def _without_some(
    whole: keras.Layer, x: np.ndarray, values: list[np.ndarray], axis: int, kept: np.ndarray, keys: tuple[str, ...]
) -> tuple[dict[int, int], np.ndarray, np.ndarray]:
    """The axes of weights that follow the channels, what the layer makes of the kept ones, and these."""
    size, x = x.shape[axis], np.take(x, kept, axis)
    small = new_layer(whole, lambda config: {key: resized(config[key], size, len(kept)) for key in keys})
    _run(small, x)
    axes = _changed_axes(whole, small, size, len(kept))
    return axes, _run(small, x, _taken(values, axes, kept)), kept


def _run(layer: keras.Layer, x: np.ndarray, values: list[np.ndarray] | None = None) -> np.ndarray:
    if values is not None:
        layer.set_weights(values)
    return run_in_inference(layer, x)


def _candidates(config: dict[str, Any], size: int) -> list[tuple[str, ...]]:
    """Which entries of a config may hold the number of channels: none, one of those that could, or all of those."""
    keys = [key for key, value in config.items() if resized(value, size, 0) != value]
    return list(dict.fromkeys([(), *((key,) for key in keys), tuple(keys)]))


def resized(value: Any, size: int, new: int) -> Any:
    """A config entry with `new` in place of the number `size`."""
    if isinstance(value, (list, tuple)):
        return type(value)(new if x == size and isinstance(x, int) else x for x in value)
    return new if value == size and isinstance(value, int) and not isinstance(value, bool) else value


def _changed_axes(whole: keras.Layer, small: keras.Layer, size: int, new: int) -> dict[int, int]:
    """The axis of each weight that is as long as there are channels.

    Raises:
        ValueError: a weight has several, or something else changed.
    """
    axes = {}
    for index, (a, b) in enumerate(zip(whole.weights, small.weights, strict=True)):
        changed = [axis for axis, (n, m) in enumerate(zip(a.shape, b.shape, strict=True)) if n != m]
        if len(changed) > 1 or any((a.shape[axis], b.shape[axis]) != (size, new) for axis in changed):
            raise ValueError("not one axis of channels")
        axes |= dict.fromkeys([index] if changed else [], *changed)
    return axes


def _taken(values: list[np.ndarray], axes: dict[int, int], positions: np.ndarray) -> list[np.ndarray]:
    return [np.take(v, positions, axes[i]) if i in axes else v for i, v in enumerate(values)]


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, _TOLERANCE, _TOLERANCE) and bool(np.isfinite(a).all())
