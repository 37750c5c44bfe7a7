"""How often a channel's activations are not zero."""

from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.trace import Trace
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.importance.criterion import Criterion, Scores, register_importance
from dcp_tf.pruning.importance.images import mean_over_batches

# Layers behind an activation that move or pool its values: zeros are counted before them.
_VIEWS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith(("AveragePooling", "MaxPooling", "GlobalAveragePooling", "GlobalMaxPooling", "ZeroPadding"))
    or name in ("Flatten", "Reshape", "Permute", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
)


@register_importance
class APoZ(Criterion):
    """The channels whose activations are zero least often stay (Hu et al. 2016, arXiv:1607.03250).

    Looks at `selection_samples` images in batches of `selection_batch`.
    """

    name: ClassVar[str] = "apoz"
    looks_at_images: ClassVar[bool] = True

    def score_channels(self, context: Context, groups: Sequence[ChannelGroup]) -> Scores:
        """The share of a channel's activations that are not zero: 1 - APoZ (eq. 1).

        They are counted where layers read them, before pooling, padding and the like.

        Raises:
            UsageError: no activation of a group is ever zero.
        """
        graph = context.graph
        read = {group.name: _activations(graph, group) for group in groups}
        tensors = sorted({t for of_group in read.values() for t in of_group})

        def shares(images, labels):
            del labels
            values = graph.trace.run(graph.trace.bind_inputs(images), tensors, training=False)
            # Positions that share their labels are averaged at once: what is left has one value for each label.
            return [
                tf.reduce_mean(
                    tf.cast(tf.not_equal(values[t], 0), tf.float32),
                    [axis for axis, size in enumerate(graph.labels[t].shape) if size == 1],
                    keepdims=True,
                )
                for t in tensors
            ]

        means = dict(zip(tensors, mean_over_batches(context, shares), strict=True))
        scores = {group.name: _of_labels(graph, group, {t: means[t] for t in read[group.name]}) for group in groups}
        for name, active in scores.items():
            if (active == 1).all():
                raise UsageError(
                    f"apoz ranks by how often an activation is zero, and those of {name!r} never are (it has no ReLU); "
                    "leave it out with exclude=NAME, or choose another method",
                    setting="exclude",
                )
        return scores


def _activations(graph: ChannelGraph, group: ChannelGroup) -> list[int]:
    """The tensors with the group's channels that layers read, followed back over pooling and the like."""
    tensors = set()
    for record, *_ in graph.consumers(group):
        for index in graph.calls_of(record):
            read = [source for tensor in graph.trace.calls[index].inputs for source in _sources(graph.trace, tensor)]
            tensors.update(t for t in read if np.isin(graph.class_of_label[graph.labels[t]], group.classes).any())
    return sorted(tensors)


def _sources(trace: Trace, tensor: int) -> list[int]:
    """The tensors whose values a tensor moves or pools, also where pooled ones are joined with others."""
    if tensor not in trace.producer:
        return [tensor]
    call = trace.calls[trace.producer[tensor]]
    if isinstance(call.operation, _VIEWS):
        return _sources(trace, call.inputs[0])
    if isinstance(call.operation, keras.layers.Concatenate):
        sources = [_sources(trace, joined) for joined in call.inputs]
        if any(source != [joined] for source, joined in zip(sources, call.inputs, strict=True)):
            return [tensor for source in sources for tensor in source]
    return [tensor]


def _of_labels(graph: ChannelGraph, group: ChannelGroup, means: dict[int, np.ndarray]) -> np.ndarray:
    """Means over everything that carries each of the group's channels."""
    channel_of_label = graph.channel_of_label(group)
    sums, counts = np.zeros(group.size), np.zeros(group.size)
    for tensor, mean in means.items():
        channel = np.broadcast_to(channel_of_label[graph.labels[tensor]], mean.shape).ravel()
        own = channel >= 0
        sums += np.bincount(channel[own], mean.ravel()[own], group.size)
        counts += np.bincount(channel[own], minlength=group.size)
    return sums / np.maximum(counts, 1)
