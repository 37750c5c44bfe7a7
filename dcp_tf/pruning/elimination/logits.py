"""The quadratic model of attention logits in pairs of channels of a query and a key.

The logits of a head are sums over its pairs, `q k^T`. A smaller head has `q_A W_A k^T`: the channels A of the query
that stay, and a key whose channels are combinations of all that there were. The error is quadratic in W, which begins
as the identity. Assuming that queries and keys are independent, its terms are the second moments of both.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from dcp_tf.graph.labels import varying_axes
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.elimination.quadratic import Quadratic
from dcp_tf.pruning.problem.consumers import ConsumerKernel
from dcp_tf.pruning.problem.problem import ChannelProblem
from dcp_tf.training.targets import samples_in


def has_logits(problem: ChannelProblem) -> bool:
    """Whether the model covers the pairs of a problem: one kernel makes all keys, and all that is read are logits."""
    if len(problem.consumers) != 1:
        return False
    channels = np.sort(_own(problem.consumers[0]))
    factors = [_channels(problem, t) for i in problem.measured for t in problem.trace.calls[i].inputs[:2]]
    return np.array_equal(channels, np.arange(problem.size)) and all(
        read is not None and np.array_equal(np.unique(read), channels) for _, read in factors
    )


def _channels(problem: ChannelProblem, tensor: int) -> tuple[list[int], np.ndarray | None]:
    """The axes of a tensor along which its channels lie, and their numbers; None if not all are of the group."""
    labels = problem.graph.labels[tensor]
    axes = varying_axes(labels) or [labels.ndim - 1]
    channels = problem.graph.channel_of_label(problem.graph.group(problem.name))[labels].ravel()
    return axes, None if (channels < 0).any() else channels


def logits_model(problem: ChannelProblem) -> Quadratic:
    """The model over all heads; rows and outputs are the pairs in the order of the group."""
    trace, calls = problem.trace, sorted(problem.measured)
    needed = trace.needed([t for i in calls for t in trace.calls[i].inputs[:2]], problem.boundary)

    def second_moments(tensor: int, values: tf.Tensor) -> tf.Tensor:
        axes, channels = _channels(problem, tensor)
        others = [axis for axis in range(len(values.shape)) if axis not in axes]
        rows = tf.reshape(tf.transpose(values, [*others, *axes]), (-1, len(channels)))
        # Where several queries share a key, each channel is there several times.
        order = np.argsort(channels, kind="stable").reshape(problem.size, -1)
        parts = [tf.gather(tf.cast(rows, tf.float32), copy, axis=1) for copy in order.T]
        return tf.add_n([tf.matmul(part, part, transpose_a=True) for part in parts])

    def moments(inputs):
        values = dict(zip(problem.boundary, inputs, strict=True))
        for index in needed:
            values.update(zip(trace.calls[index].outputs, trace.calls[index].run(values, training=False), strict=True))
        factors = [[second_moments(t, values[t]) for t in trace.calls[i].inputs[:2]] for i in calls]
        return [tf.add_n(list(parts)) for parts in zip(*factors, strict=True)]

    function, totals = compiled(moments, [problem.inputs[0]]), None
    for number in range(problem.inputs.count):
        parts = function(problem.inputs[number])
        totals = parts if totals is None else [a + b for a, b in zip(totals, parts, strict=True)]
    images = sum(map(samples_in, problem.labels))
    head = np.zeros(problem.size) if problem.head is None else problem.head
    of_one_head = head[:, None] == head[None]
    queries, keys = (np.where(of_one_head, x.numpy().astype(np.float64) / images, 0) for x in totals)
    remains = np.zeros(problem.size, bool)
    remains[_own(problem.consumers[0])] = _remaining(problem.consumers[0])
    return Quadratic(queries, queries.copy(), np.arange(problem.size)[:, None], remains[:, None], keys)


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
