"""Which pixels a model expects, as far as its first layer tells."""

import keras
import numpy as np

_LARGEST_UNIT = 0.1  # a layer that multiplies by less than this was made for 0..255, not for 0..1


def takes_raw_pixels(model: keras.Model) -> str | None:
    """Why a model must be given pixels of 0..255; None where nothing says so.

    Integer inputs say so, and a `Rescaling` or `Normalization` before everything else that multiplies by 1/255 or the
    like. Layers that only change images while a model is trained, and nested models, are looked through.

    Args:
        model: functional or Sequential.
    """
    if np.issubdtype(np.dtype(keras.backend.standardize_dtype(model.inputs[0].dtype)), np.integer):
        return f"the model takes {model.inputs[0].dtype}"
    layer = _first_layer(model)
    if isinstance(layer, keras.layers.Rescaling):
        multiplier = np.max(np.abs(np.asarray(layer.scale, np.float64)))
    elif isinstance(layer, keras.layers.Normalization) and not layer.invert:
        multiplier = 1 / np.sqrt(np.min(keras.ops.convert_to_numpy(layer.variance)))
    else:
        return None
    if multiplier >= _LARGEST_UNIT:
        return None
    return f"the model begins with {type(layer).__name__} by {multiplier:.3g}"


def _first_layer(model: keras.Model) -> keras.Layer | None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            return _first_layer(layer)
        if not isinstance(layer, _LOOKED_THROUGH):
            return layer
    return None


_LOOKED_THROUGH = (keras.layers.InputLayer, keras.layers.RandomFlip, keras.layers.RandomRotation)
_LOOKED_THROUGH += (keras.layers.RandomZoom, keras.layers.RandomTranslation, keras.layers.RandomCrop)
_LOOKED_THROUGH += (keras.layers.Resizing, keras.layers.CenterCrop, keras.layers.ZeroPadding2D)
