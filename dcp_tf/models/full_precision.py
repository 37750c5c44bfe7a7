"""Models in half or mixed precision, rebuilt in float32."""

from typing import Any

import keras
from keras.src.saving.serialization_lib import SafeModeScope

from dcp_tf.models.layer_state import transfer_state

HALVES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")


def in_full_precision(model: keras.Model) -> keras.Model:
    """A model whose layers all compute in float32, with the same weights.

    TFLite has no kernels for mixed precision, and Keras keeps it in each layer's config.

    Args:
        model: functional or Sequential, with layers of any dtype policy; it is not changed.

    Returns:
        `model` itself if no layer of it computes in float16 or bfloat16, else a new one with layers of the same names.
    """
    if not any(layer.compute_dtype in HALVES for layer in model._flatten_layers()):
        return model
    with SafeModeScope(safe_mode=False):  # the code that the model holds is in memory already
        rebuilt = type(model).from_config(widen(model.get_config()))
    transfer_state(model, rebuilt)
    return rebuilt


def widen(config: Any, key: str = "") -> Any:
    """A Keras config (of Keras 2 too) with float32 where it states half floats as the dtype of something."""
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "Policy") and config["config"]["name"] in HALVES:
            return "float32"
        return {name: widen(value, name) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(widen(value) for value in config)
    return "float32" if key == "dtype" and config in HALVES else config
