"""Models with a fixed batch size, rebuilt for any batch size where they allow it."""

from typing import Any

import keras
import numpy as np
from keras import tree

from dcp_tf.errors import UsageError, first_line
from dcp_tf.models.functional import input_like, ordered_nodes

# What replaces an open size in the comparison: the first of these that the model accepts.
_TRIAL_SIZES = (32, 64, 128, 224)
# Two batch sizes, both small, since the images may be large.
_MANY, _FEW = 5, 3


def with_open_batch(model: keras.Model) -> keras.Model:
    """Returns the model without the batch size that its inputs state.

    Args:
        model: functional or Sequential, built; it is not changed.

    Returns:
        `model` itself if no batch size is stated, else a model of the same layers with equal outputs.

    Raises:
        UsageError: the model works with one batch size only.
    """
    stated = next((x.shape[0] for x in model.inputs if x.shape and x.shape[0] is not None), None)
    suspect = _fixing_operation(model)
    if stated is None and suspect is None:
        return model
    opened = model if stated is None else share_layers(model)
    _require_any_batch(model, opened, stated)
    return opened


def share_layers(model: keras.Model) -> keras.Model:
    """Another model of the same layers, for any batch size; the given one is not changed."""
    inputs = tree.map_structure(lambda tensor: input_like(tensor, (None, *tensor.shape[1:])), _inputs(model))
    opened = keras.models.clone_model(model, inputs, clone_function=lambda layer: layer)
    opened._trainable = model._trainable
    return opened


def _inputs(model: keras.Model) -> Any:
    # A Sequential model that was not called yet has no `input`.
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _fixing_operation(model: keras.Model) -> keras.Operation | None:
    """The first operation that makes a number of rows which does not depend on the batch."""
    for node in ordered_nodes(getattr(model, "_functional", None) or model):
        before = [tensor.shape[0] for tensor in node.input_tensors if tensor.shape]
        after = [tensor.shape[0] for tensor in node.output_tensors if tensor.shape]
        if None in before and after and None not in after:
            return node.operation
    return None


def _require_any_batch(model: keras.Model, opened: keras.Model, stated: int | None) -> None:
    suspect = _fixing_operation(opened)
    size = stated or (suspect and next(x.shape[0] for x in tree.flatten(suspect.output) if x.shape))
    stateful = next((layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)), None)
    reason = f"layer {stateful.name!r} is stateful" if stateful else suspect and f"{suspect.name!r} fixes it"
    problem = f"{model.name!r} is built for batches of {size or 'one number of'} images" + (
        f" ({reason})" if reason else ""
    )
    advice = "build it for any batch: keras.Input(shape) without batch_size, reshapes to (-1, ...)"
    try:
        many = _trial(opened)
        together, alone = _run(opened, many), _run(opened, tree.map_structure(lambda x: x[:_FEW], many))
    except Exception as error:  # Keras and TensorFlow raise many kinds
        raise UsageError(f"{problem}: {advice}" + ("" if reason else f" ({first_line(error)[:200]})")) from error
    ratios = [len(x) * _FEW / max(len(y), 1) for x, y in zip(together, alone, strict=True) if x.ndim and y.ndim]
    all_answered = all(ratio == _MANY for ratio in ratios)
    if not (all_answered and _agree(together, alone)):
        raise UsageError(f"{problem}, and computes something else for other batch sizes: {advice}")


def _trial(opened: keras.Model) -> Any:
    random = np.random.default_rng(0)
    error = None
    for size in _TRIAL_SIZES:
        inputs = tree.map_structure(lambda x, size=size: _random_like(x, size, random), _inputs(opened))
        try:
            _run(opened, inputs)
            return inputs
        except Exception as raised:  # as above
            error = raised
    raise error


def _random_like(tensor: keras.KerasTensor, size: int, random: np.random.Generator) -> np.ndarray:
    shape = (_MANY, *(length or size for length in tensor.shape[1:]))
    if tensor.dtype == "string":
        return np.full(shape, "a")
    if "float" not in tensor.dtype:
        return random.integers(0, 2, shape).astype(tensor.dtype)
    return random.uniform(0.0, 1.0, shape).astype(tensor.dtype if tensor.dtype != "bfloat16" else "float32")


def _run(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    outputs = model(tree.map_structure(keras.ops.convert_to_tensor, inputs), training=False)
    return [np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in tree.flatten(outputs)]


def _agree(many: list[np.ndarray], few: list[np.ndarray]) -> bool:
    """Whether the first rows are equal, up to the rounding of half precision."""
    for a, b in zip(many, few, strict=True):
        rows = min(len(a), len(b))
        if a.shape[1:] != b.shape[1:] or not np.allclose(a[:rows], b[:rows], rtol=1e-2, atol=1e-3, equal_nan=True):
            return False
    return True
