"""The quadratic model of attention logits in pairs of channels of a query and a key.

The logits of a head are sums over its pairs, `q k^T`. A smaller head has `q_A W_A k^T`: the channels A of the query
that stay, and a key whose channels are combinations of all that there were. The error is quadratic in W, which begins
as the identity. Assuming that queries and keys are independent, its terms are the second moments of both.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.labels import varying_axes
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.elimination.quadratic import Quadratic
from dcp_tf.pruning.problem.consumers import ConsumerKernel
from dcp_tf.pruning.problem.problem import ChannelProblem
from dcp_tf.training.targets import samples_in


def has_logits(problem: ChannelProblem) -> bool:
    """Whether the model covers the pairs of a problem: one kernel makes all keys, and all that is read are logits."""
    channels = [c.channel for c in problem.consumers]
    return are_logits(problem.graph, problem.name, channels, problem.measured)


def are_logits(graph: ChannelGraph, name: str, channels: Sequence[np.ndarray], products: Collection[int]) -> bool:
    """Whether the model covers the pairs of a group.

    Args:
        graph: of the model.
        name: of the group.
        channels: per kernel that makes the keys the channel of each position, -1 of other groups.
        products: the calls that multiply queries and keys.
    """
    if len(channels) != 1:
        return False
    every = np.arange(graph.group(name).size)
    factors = [_channels(graph, name, t) for i in products for t in graph.trace.calls[i].inputs[:2]]
    return np.array_equal(np.sort(channels[0][channels[0] >= 0]), every) and all(
        read is not None and np.array_equal(np.unique(read), every) for _, read in factors
    )


def _channels(graph: ChannelGraph, name: str, tensor: int) -> tuple[list[int], np.ndarray | None]:
    """The axes of a tensor along which its channels lie, and their numbers; None if not all are of the group."""
    labels = graph.labels[tensor]
    axes = varying_axes(labels) or [labels.ndim - 1]
    channels = graph.channel_of_label(graph.group(name))[labels].ravel()
    return axes, None if (channels < 0).any() else channels


def logits_model(problem: ChannelProblem) -> Quadratic:
    """The model over all heads; rows and outputs are the pairs in the order of the group."""
    trace, calls = problem.trace, sorted(problem.measured)
    needed = trace.needed([t for i in calls for t in trace.calls[i].inputs[:2]], problem.boundary)

    def moments(inputs):
        values = dict(zip(problem.boundary, inputs, strict=True))
        for index in needed:
            values.update(zip(trace.calls[index].outputs, trace.calls[index].run(values, training=False), strict=True))
        return second_moments(problem.graph, problem.name, calls, values)

    function, totals = compiled(moments, [problem.inputs[0]]), None
    for number in range(problem.inputs.count):
        parts = function(problem.inputs[number])
        totals = parts if totals is None else [a + b for a, b in zip(totals, parts, strict=True)]
    images = sum(map(samples_in, problem.labels))
    remains = np.zeros(problem.size, bool)
    remains[_own(problem.consumers[0])] = _remaining(problem.consumers[0])
    return model_of_moments([x.numpy() / images for x in totals], problem.head, remains)


def second_moments(
    graph: ChannelGraph, name: str, products: Sequence[int], values: Mapping[int, tf.Tensor]
) -> list[tf.Tensor]:
    """The sums of `q^T q` and of `k^T k` over all positions, each (pairs, pairs), added up over some products."""
    size = graph.group(name).size

    def of_tensor(tensor: int) -> tf.Tensor:
        axes, channels = _channels(graph, name, tensor)
        others = [axis for axis in range(len(values[tensor].shape)) if axis not in axes]
        rows = tf.reshape(tf.transpose(values[tensor], [*others, *axes]), (-1, len(channels)))
        # Where several queries share a key, each channel is there several times.
        order = np.argsort(channels, kind="stable").reshape(size, -1)
        parts = [tf.gather(tf.cast(rows, tf.float32), copy, axis=1) for copy in order.T]
        return tf.add_n([tf.matmul(part, part, transpose_a=True) for part in parts])

    factors = [[of_tensor(t) for t in graph.trace.calls[i].inputs[:2]] for i in products]
    return [tf.add_n(list(parts)) for parts in zip(*factors, strict=True)]


def model_of_moments(moments: Sequence[np.ndarray], head: np.ndarray | None, remains: np.ndarray) -> Quadratic:
    """The model of second moments of queries and keys; those of different heads never meet.

    Args:
        moments: of the queries and of the keys, (pairs, pairs).
        head: of each pair its head.
        remains: the pairs that are left.
    """
    head = np.zeros(len(remains)) if head is None else head
    of_one_head = head[:, None] == head[None]
    queries, keys = (np.where(of_one_head, x.astype(np.float64), 0) for x in moments)
    return Quadratic(queries, queries.copy(), np.arange(len(head))[:, None], remains[:, None], keys)


def _remaining(consumer: ConsumerKernel) -> np.ndarray:
    """Which of the channels on the consumer's axis were not masked before."""
    axes = (consumer.axis,) if isinstance(consumer.axis, int) else consumer.axis
    others = tuple(a for a in range(consumer.mask.ndim) if a not in axes)
    return np.broadcast_to(consumer.mask.any(others), consumer.channel.shape)[consumer.channel >= 0]


def _own(consumer: ConsumerKernel) -> np.ndarray:
    """The channels on the consumer's axis, without those of queries and values that the same layer makes."""
    return consumer.channel[consumer.channel >= 0]


@dataclasses.dataclass(frozen=True, eq=False)
class KeyCombinations(ConsumerKernel):
    """A key's kernel in terms of W: its new channels as combinations of those that it has."""

    @classmethod
    def of(cls, consumer: ConsumerKernel) -> "KeyCombinations":
        """The same consumer."""
        return cls(**{field.name: getattr(consumer, field.name) for field in dataclasses.fields(ConsumerKernel)})

    @property
    def matrix(self) -> np.ndarray:
        """W as it is: every channel is itself."""
        return np.eye(len(_own(self)))

    def from_matrix(self, values: np.ndarray) -> np.ndarray:
        """The kernel for a W, (pairs, channels of the key)."""
        flat, channel = self.kernel.numpy().reshape(-1, self.channel.size), _own(self)
        columns = self.channel.ravel() >= 0
        flat[:, columns] = flat[:, columns] @ values[np.ix_(channel, channel)].T
        return flat.reshape(self.kernel.shape).astype(np.float32)
