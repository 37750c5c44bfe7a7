"""The first-order change of the loss without a channel."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from dcp_tf.graph import ChannelGroup
from dcp_tf.graph.rule import Axis
from dcp_tf.models.signature import flat
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.importance.criterion import Criterion, Scores, register_importance
from dcp_tf.pruning.importance.images import mean_over_batches
from dcp_tf.training.targets import loss_on


@register_importance
class Taylor(Criterion):
    """The channels whose removal changes the loss most, to first order, stay (Molchanov et al. 2019, arXiv:1906.10771).

    Looks at `selection_samples` images in batches of `selection_batch`.
    """

    name: ClassVar[str] = "taylor"
    looks_at_images: ClassVar[bool] = True

    def score_channels(self, context: Context, groups: Sequence[ChannelGroup]) -> Scores:
        """The squared changes (eq. 9).

        The gate z = 1 of a channel sits where layers read it, so that its gradient is the sum of gradient times weight
        over their kernels' slices of the channel; it is squared for each batch, and averaged over batches. Behind
        BatchNormalization and ReLU that is the paper's gate between the two (Taylor-FO-BN), as ReLU(z x) = z ReLU(x).
        """
        reads = [
            [
                (r.operation.weights[index].value, axis, channel)
                for r, index, axis, channel in context.graph.consumers(g)
            ]
            for g in groups
        ]
        kernels = list({id(kernel): kernel for of_group in reads for kernel, _, _ in of_group}.values())
        loss, with_loss = context.objective.loss, context.objective.with_loss_head(context.model, context.data)

        def squared_changes(images, labels):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(kernels)
                value = loss_on(loss, labels, flat(with_loss(images, training=False)))
            gradients = tape.gradient(value, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            changes = {id(k): tf.cast(g * k, tf.float32) for g, k in zip(gradients, kernels, strict=True)}
            return [
                tf.square(tf.add_n([_by_channel(changes[id(k)], *where, group.size) for k, *where in of_group]))
                for group, of_group in zip(groups, reads, strict=True)
            ]

        means = mean_over_batches(context, squared_changes)
        return {group.name: mean for group, mean in zip(groups, means, strict=True)}


def _by_channel(changes: tf.Tensor, axis: Axis, channel: np.ndarray, size: int) -> tf.Tensor:
    """Sums of a kernel-shaped tensor by the group's channel along an axis; positions of others (-1) are dropped."""
    own = (axis,) if isinstance(axis, int) else axis
    along = tf.reduce_sum(changes, [a for a in range(len(changes.shape)) if a not in own])
    return tf.math.unsorted_segment_sum(along, tf.constant(channel), size)
