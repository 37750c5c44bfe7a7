"""The baseline without any pruning: a network of the same shape, trained from scratch."""

import keras

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph
from dcp_tf.models.layer_copies import new_layer
from dcp_tf.pruning.context import Context
from dcp_tf.training.heads import AugmentedModel, augment


def reinitialize_weights(graph: ChannelGraph, seed: int) -> None:
    """Sets all weights that training changes to new values from the layers' own initializers, in place.

    Frozen layers and layers without trainable weights (of a known mean and variance, say) keep theirs.

    Args:
        graph: of the model.
        seed: of the values.

    Raises:
        UsageError: a layer cannot be made from its config.
    """
    keras.utils.set_random_seed(seed)
    layers = [r.operation for r in graph.records.values() if isinstance(r.operation, keras.Layer)]
    for layer in layers:
        if any(map(_is_trained, layer._flatten_layers())):
            _reinitialize_layer(layer)
    frozen = [layer.name for layer in layers if layer.weights and not layer.trainable]
    kept = f"; those of the frozen layers {', '.join(frozen)} stay" if frozen else ""
    progress.say(f"all weights were reinitialized: the network is trained from scratch{kept}")


def with_heads(context: Context, graph: ChannelGraph) -> AugmentedModel:
    """The model of a graph with new auxiliary heads, as many as the method wants."""
    keras.utils.set_random_seed(context.seed)
    method, objective, data_format = context.method, context.objective, keras.config.image_data_format()
    loss_head = objective.loss_head(graph.trace.model, None)
    augmented = augment(graph, method.auxiliary_losses, objective, method.auxiliary_layers, data_format, loss_head)
    progress.say("auxiliary classifiers at " + augmented.describe_positions(len(graph.trace.outputs)))
    return augmented


def _is_trained(layer: keras.Layer) -> bool:
    """Whether training changes weights that are the layer's own, not those of layers inside of it."""
    is_norm = isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    return is_norm or any(variable.trainable for variable in layer._trainable_variables)


def _reinitialize_layer(layer: keras.Layer) -> None:
    fresh = _fresh(layer)
    for old, new in zip(layer._flatten_layers(), fresh._flatten_layers(), strict=True):
        if _is_trained(old):  # an adapted Normalization beside it keeps what it has learned
            own = old._trainable_variables + old._non_trainable_variables
            for variable, drawn in zip(own, new._trainable_variables + new._non_trainable_variables, strict=True):
                variable.assign(drawn)


def _fresh(layer: keras.Layer) -> keras.Layer:
    """A new layer with the same config and shapes of weights."""
    try:
        fresh = new_layer(layer)
        if not fresh.built:
            fresh.build_from_config(layer.get_build_config())
        shapes = [[tuple(weight.shape) for weight in one.weights] for one in (layer, fresh)]
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UsageError(
            f"new weights for layer {layer.name!r} ({type(layer).__name__}) need a layer that can be made from its "
            f"config and built from its build config: {type(error).__name__} {error}"
        ) from error
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"layer {layer.name!r} ({type(layer).__name__}) makes weights of shapes {shapes[1]} from its config, "
            f"where it has {shapes[0]}"
        )
    return fresh
