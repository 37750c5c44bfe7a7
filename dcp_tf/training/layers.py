"""Layer settings during training: temporary attributes, the compute dtype, random states.

Op determinism (`tf.config.experimental.enable_op_determinism`) stays off: CPUs do not need it, and on GPUs operations
without a deterministic kernel would raise (docs/decisions/053). Users who want it switch it on before training.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras


@contextlib.contextmanager
def override_attribute(layers: Sequence[keras.Layer], attribute: str, value: Any) -> Iterator[None]:
    """Sets an attribute of layers; each gets its own value back at the end."""
    originals = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    try:
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            setattr(layer, attribute, original)


@contextlib.contextmanager
def batch_statistics(model: keras.Model) -> Iterator[None]:
    """Lets each BatchNormalization use the statistics of its batch, and store none; all else is as in inference."""
    norms = batch_norms(model)
    with override_attribute(norms, "momentum", 1.0), override_attribute(norms, "trainable", True):
        for norm in norms:
            norm.call = functools.partial(_call_in_training, norm.call)
        try:
            yield
        finally:
            for norm in norms:
                del norm.call


def _call_in_training(call: Callable, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
    return call(*args, training=True, **kwargs)


@contextlib.contextmanager
def compute_dtype_scope(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the layers of a model compute in `precision` while it is traced.

    The output layers stay in float32, as softmax and losses need its range. Layers whose policy is not float32 keep it.
    """
    if precision == "float32":
        yield
        return
    outputs, policy = _output_operations(model), keras.DTypePolicy(f"mixed_{precision}")
    layers = [
        layer
        for layer in model._flatten_layers()
        if not isinstance(layer, keras.Model) and id(layer) not in outputs and layer.dtype_policy.name == "float32"
    ]
    with override_attribute(layers, "dtype_policy", policy):
        yield


def _output_operations(model: keras.Model) -> set[int]:
    """`id()` of the operations that make a model's outputs, also inside of nested models."""
    operations = set()
    for output in keras.tree.flatten(model.outputs):
        operation = output._keras_history.operation
        is_nested = isinstance(operation, keras.Model) and operation is not model
        operations |= _output_operations(operation) if is_nested else {id(operation)}
    return operations


def batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """All BatchNormalization layers, of nested models too."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and so the initial weights of later layers."""
    keras.utils.set_random_seed(seed)


def seed_random_layers(model: keras.Model, seed: int) -> None:
    """Restarts the random states of the model's layers (Dropout, noise) from `seed`, whatever they drew before."""
    states = [v for v in model.variables if v.name == "seed_generator_state"]
    for index, state in enumerate(states):
        state.assign([(seed + index) % 2**31, 0])
