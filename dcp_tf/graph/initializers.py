"""Initializers that hold arrays of the old size: the rebuilt layer gets the part that stays."""

from typing import Any

import keras
import numpy as np

from dcp_tf.graph.rule import KeptChannels, OperationRecord


def fitting_initializers(record: OperationRecord, kept: KeptChannels) -> dict[str, Any]:
    """Config entries for the initializers of a layer that cannot make its weights in their new shape.

    An initializer with an array inside (`Constant(array)`, a filter bank) makes weights of one shape only. The rebuilt
    layer would fail to build, here or when its file is loaded, though the values it makes are not used.

    Args:
        record: the layer and the axes of its weights that shrink.
        kept: what stays.

    Returns:
        Config key -> serialized initializer.
    """
    changed = {}
    for index, by_axis in record.weights.items():
        variable = record.operation.weights[index]
        key = _config_key(record.operation, variable.name)
        if key is None or all(kept.mask(labels).all() for labels in by_axis.values()):
            continue
        initializer = getattr(record.operation, key)
        if _holds_arrays(initializer):
            values = kept.take(keras.ops.convert_to_numpy(initializer(variable.shape, dtype=variable.dtype)), by_axis)
            changed[key] = keras.initializers.serialize(keras.initializers.Constant(values))
    return changed


def _config_key(layer: keras.Layer, name: str) -> str | None:
    """`kernel` -> `kernel_initializer`, `depthwise_kernel` -> `depthwise_initializer`; None if there is none."""
    candidates = (f"{name}_initializer", f"{name.removesuffix('_kernel')}_initializer")
    return next((key for key in candidates if getattr(layer, key, None) is not None), None)


def _holds_arrays(initializer: Any) -> bool:
    return any(np.ndim(value) > 0 for value in vars(initializer).values() if not isinstance(value, str))
