"""What kind of Keras model can be worked on: one whose graph of layers is known."""

import keras

# Keras has no public name for the class of functional models.
from keras.src.models.functional import Functional

from dcp_tf.errors import UsageError


def check_functional(model: keras.Model, input_shape: tuple[int | None, ...] | None = None) -> keras.Model:
    """Makes sure that the graph of a model is known, and builds a Sequential model that is not built yet.

    Args:
        model: any Keras model.
        input_shape: (H, W, C), what an unbuilt Sequential model is built for.

    Returns:
        The same model.

    Raises:
        UsageError: it is no functional or Sequential model, or is not built and no input shape is known.
    """
    if isinstance(model, keras.Sequential):
        if not _has_graph(model) and not _build(model, input_shape):
            raise UsageError(
                f"the Sequential model {model.name!r} has no input shape yet; start it with keras.Input or call it once"
            )
        return model
    if not isinstance(model, keras.Model):
        hint = "; convert it with dcp_tf.models.from_tf_keras" if type(model).__module__.startswith("tf_keras.") else ""
        raise UsageError(
            f"expected a Keras 3 model, received {type(model).__module__}.{type(model).__qualname__}{hint}"
        )
    if not isinstance(model, Functional) or type(model).call is not Functional.call:
        raise UsageError(
            f"{type(model).__qualname__} is a subclassed model, whose graph of layers cannot be seen; "
            "build it as keras.Model(inputs, outputs)"
        )
    return model


def _has_graph(model: keras.Sequential) -> bool:
    # An unbuilt Sequential model raises where it is asked for its inputs.
    return bool(getattr(model, "inputs", None))


def _build(model: keras.Sequential, input_shape: tuple[int | None, ...] | None) -> bool:
    if input_shape is None or not model.layers:
        return False
    try:
        model.build((None, *input_shape))
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"the Sequential model {model.name!r} cannot take {tuple(input_shape)}: {reason}") from error
    return _has_graph(model)
