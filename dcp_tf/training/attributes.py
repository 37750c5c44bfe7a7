"""Settings of layers that hold for a while."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras


@contextlib.contextmanager
def override_attribute(layers: Sequence[keras.Layer], attribute: str, value: Any) -> Iterator[None]:
    """Sets an attribute of layers; each gets its own value back at the end."""
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            setattr(layer, attribute, own)
