"""Criteria that look at what the model does with images: one pass over the class-balanced selection set."""

import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.importance.evidence import Evidence, Scores

# Layers behind an activation that move or pool its values: zeros are counted before them.
_VIEWS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith(("AveragePooling", "MaxPooling", "GlobalAveragePooling", "GlobalMaxPooling", "ZeroPadding"))
    or name in ("Flatten", "Reshape", "Permute", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
)


def taylor(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The squared first-order change of the loss without a channel (Molchanov et al. 2019, arXiv:1906.10771, eq. 9).

    The gate z = 1 of a channel sits where layers read it, so that its gradient is the sum of gradient times weight
    over their kernels' slices of the channel; it is squared for each batch, and averaged over batches. Behind
    BatchNormalization and ReLU that is the paper's gate between the two (Taylor-FO-BN), as ReLU(z x) = z ReLU(x).
    """
    graph, model = evidence.graph, evidence.graph.trace.model
    reads = [
        [(record.operation.weights[index].value, axis, channel) for record, index, axis, channel in graph.consumers(g)]
        for g in groups
    ]
    kernels = list({id(kernel): kernel for of_group in reads for kernel, _, _ in of_group}.values())
    loss, with_head = evidence.objective.loss, evidence.objective.with_loss_head(model, evidence.data)

    def squared_changes(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernels)
            value = loss(labels, with_head(images, training=False))
        gradients = tape.gradient(value, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        changes = {id(k): tf.cast(g * k, tf.float32) for g, k in zip(gradients, kernels, strict=True)}
        return [
            tf.square(tf.add_n([_by_channel(changes[id(kernel)], *where, group.size) for kernel, *where in of_group]))
            for group, of_group in zip(groups, reads, strict=True)
        ]

    means = _mean_over_batches(evidence, squared_changes)
    return {group.name: mean for group, mean in zip(groups, means, strict=True)}


def apoz(evidence: Evidence, groups: Sequence[ChannelGroup]) -> Scores:
    """The share of a channel's activations that are not zero: 1 - APoZ (Hu et al. 2016, arXiv:1607.03250, eq. 1).

    They are counted where layers read them, before pooling, padding and the like.

    Raises:
        UsageError: no activation of a group is ever zero.
    """
    graph = evidence.graph
    read = {group.name: _activations(graph, group) for group in groups}
    tensors = sorted({t for of_group in read.values() for t in of_group})

    def shares(images, labels):
        del labels
        found = graph.trace.run({graph.trace.inputs[0]: images}, tensors, training=False)
        # Positions that share their labels are averaged at once: what is left has one value for each label.
        return [
            tf.reduce_mean(
                tf.cast(tf.not_equal(found[t], 0), tf.float32),
                [axis for axis, size in enumerate(graph.labels[t].shape) if size == 1],
                keepdims=True,
            )
            for t in tensors
        ]

    means = dict(zip(tensors, _mean_over_batches(evidence, shares), strict=True))
    scores = {group.name: _of_labels(graph, group, {t: means[t] for t in read[group.name]}) for group in groups}
    for name, active in scores.items():
        if (active == 1).all():
            raise UsageError(
                f"apoz ranks by how often an activation is zero, and those of {name!r} never are (it has no ReLU); "
                "leave it out with exclude=NAME, or choose another method",
                setting="exclude",
            )
    return scores


def _by_channel(changes: tf.Tensor, axis: int, channel: np.ndarray, size: int) -> tf.Tensor:
    """Sums of a kernel-shaped tensor by the group's channel along an axis; positions of others (-1) are dropped."""
    along = tf.reduce_sum(changes, [a for a in range(len(changes.shape)) if a != axis])
    return tf.math.unsorted_segment_sum(along, tf.constant(channel), size)


def _mean_over_batches(evidence: Evidence, function: Callable) -> list[np.ndarray]:
    """Averages what a function says of each batch, compiled once and summed on the device; batches count by size."""
    sums, step, total = None, None, 0
    for images, labels in selection_set(evidence, f"ranking channels by {evidence.method.name}"):
        if step is None:
            specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in (images, labels)]
            step = tf.function(function, input_signature=specs, autograph=False)
        size = int(images.shape[0])
        found = [size * tf.cast(x, tf.float64) for x in step(images, labels)]
        sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        total += size
    return [x.numpy() / total for x in sums]


def selection_set(
    evidence: Evidence, what: str, most: int | None = None, batch_size: int | None = None
) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The selection set in batches of images and labels; the model's own predictions where there are no labels.

    Args:
        evidence: the images, their labels and how many of them the method looks at.
        what: is done with them, for the progress bar.
        most: images.
        batch_size: in place of the method's.
    """
    data, method = evidence.data, evidence.method
    subset = data.balanced_subset(min(method.selection_samples, data.size, most or data.size), evidence.seed)
    order = np.random.default_rng([evidence.seed, 0]).permutation(subset)
    batch_size = batch_size or method.selection_batch
    batches = data.batches(batch_size, indices=order)
    teacher = evidence.objective.targets(evidence.graph.trace.model, data) if data.labels is None else None
    count = math.ceil(len(order) / batch_size)
    for batch in progress.bar(batches, what=what, total=count, unit="batch"):
        yield (batch, teacher(batch)) if teacher else batch


def _activations(graph: ChannelGraph, group: ChannelGroup) -> list[int]:
    """The tensors with the group's channels that layers read, followed back over pooling and the like."""
    found = set()
    for record, *_ in graph.consumers(group):
        for index in graph.calls_of(record):
            for tensor in graph.trace.calls[index].inputs:
                maker = graph.trace.producer.get(tensor)
                while maker is not None and isinstance(graph.trace.calls[maker].operation, _VIEWS):
                    tensor = graph.trace.calls[maker].inputs[0]
                    maker = graph.trace.producer.get(tensor)
                if np.isin(graph.class_of_label[graph.labels[tensor]], group.classes).any():
                    found.add(tensor)
    return sorted(found)


def _of_labels(graph: ChannelGraph, group: ChannelGroup, means: dict[int, np.ndarray]) -> np.ndarray:
    """Means over everything that carries each of the group's channels."""
    channel_of_label = graph.channel_of_label(group)
    sums, counts = np.zeros(group.size), np.zeros(group.size)
    for tensor, mean in means.items():
        channel = np.broadcast_to(channel_of_label[graph.labels[tensor]], mean.shape).ravel()
        mine = channel >= 0
        sums += np.bincount(channel[mine], mean.ravel()[mine], group.size)
        counts += np.bincount(channel[mine], minlength=group.size)
    return sums / np.maximum(counts, 1)
