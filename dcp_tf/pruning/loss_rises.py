"""By how much the model's own loss rises as each group loses its channels, for all groups from one pass over images."""

import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.pruning.channel_problem import linear
from dcp_tf.pruning.criteria.data import selection_set
from dcp_tf.pruning.criteria.evidence import Evidence
from dcp_tf.pruning.fast_selection import layer_sums, sampled_loss
from dcp_tf.pruning.layer_inputs import compiled_for
from dcp_tf.pruning.quadratic import Quadratic, eliminate, is_supported, rows_of

_IMAGES = 1024  # are enough to compare groups


def loss_rises(evidence: Evidence, groups: Sequence[ChannelGroup]) -> dict[str, np.ndarray]:
    """What each channel of a group is worth, in the order in which elimination takes them.

    Every layer that reads a group has its quadratic model of the final loss around the trained weights: the Gram matrix
    of its input patches and the Fisher matrix of its outputs (see `quadratic`). Channels are eliminated in it, with the
    weights of the others fitted anew. The rises are all of one loss, so they compare between groups.

    Args:
        evidence: the trained model and its images.
        groups: to be compared. Those that such models do not cover are left out.

    Returns:
        Group name -> rises of the loss, shape (size,).
    """
    graph, rises = evidence.graph, {}
    covered = [g for g in groups if all(is_supported(record.operation) for record, *_ in graph.consumers(g))]
    for some in _portions(graph, covered, evidence.method.cache_gib * 2**30 / 2):
        models = _models(evidence, some)
        for group in some:
            parts = []
            for record, _, _, channel in graph.consumers(group):
                gram, metric = models[record.path]
                rows = np.resize(channel, len(gram))[:, None]
                weights = record.operation.kernel.numpy().reshape(len(gram), -1).astype(np.float64)
                parts.append(Quadratic(gram, gram @ weights, rows, np.ones_like(rows, bool), metric))
            rises[group.name] = np.asarray(eliminate(parts, group.size)[1])
    return rises


def _portions(graph: ChannelGraph, groups: Sequence[ChannelGroup], room: float) -> Iterator[list[ChannelGroup]]:
    """The groups in portions whose Gram matrices lie in memory together, at least one group in each."""
    portion, used = [], 0.0
    for group in groups:
        size = sum(8 * rows_of(record.operation) ** 2 for record, *_ in graph.consumers(group))
        if portion and used + size > room:
            yield portion
            portion, used = [], 0.0
        portion.append(group)
        used += size
    if portion:
        yield portion


def _models(evidence: Evidence, groups: Sequence[ChannelGroup]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Path of each layer that reads a group -> Gram matrix per image and Fisher matrix per image and place."""
    graph = evidence.graph
    layers = {record.path: record.operation for group in groups for record, *_ in graph.consumers(group)}
    collect, sums, total = None, None, 0
    for images, labels in selection_set(evidence, "comparing groups", _IMAGES):
        collect = collect or _collector(evidence, list(layers.values()), [images, labels])
        found = collect(images, labels, tf.constant([7, total]))
        sums = found if sums is None else tf.nest.map_structure(tf.add, sums, found)
        total += int(images.shape[0])
    models = {}
    for (path, layer), (gram, slopes) in zip(layers.items(), sums, strict=True):
        calls = [call for call in graph.trace.calls if call.operation is layer]
        places = sum(math.prod(graph.trace.shapes[call.outputs[0]][1:-1]) for call in calls)
        gram, slopes = (x.numpy().astype(np.float64) for x in (gram, slopes))
        models[path] = gram / total, slopes / (total * places)
    return models


def _collector(evidence: Evidence, layers: Sequence[keras.Layer], examples: list[tf.Tensor]) -> Callable:
    """A compiled function: per layer the sums over a batch of `P^T P` and of `g g^T`, g being the slope of the loss."""
    trace, objective = evidence.graph.trace, evidence.objective
    ending = objective.ending(trace.model, evidence.data)
    mine = {id(layer) for layer in layers}

    def collect(images, labels, seed):
        values, shifts, linear_outputs = {trace.inputs[0]: images}, {}, {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for index, call in enumerate(trace.calls):
                if id(call.operation) not in mine:
                    values.update(zip(call.outputs, call.run(values, training=False), strict=True))
                    continue
                with linear(call.operation) as activation:
                    (linear_outputs[index],) = call.run(values, training=False)
                shifts[index] = tf.zeros_like(linear_outputs[index])
                tape.watch(shifts[index])
                values[call.outputs[0]] = activation(linear_outputs[index] + shifts[index])
            outputs = values[trace.outputs[0]]
            drawn = sampled_loss(objective.loss, outputs if ending is None else ending(outputs), labels, seed)
        slopes = tape.gradient(drawn, shifts, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        found = []
        for layer in layers:
            calls = [i for i in shifts if trace.calls[i].operation is layer]
            pairs = [(values[trace.calls[i].inputs[0]], tf.cast(linear_outputs[i], tf.float32)) for i in calls]
            rows = [tf.reshape(tf.cast(slopes[i], tf.float32), (-1, slopes[i].shape[-1])) for i in calls]
            found.append([layer_sums(layer, pairs)[0], tf.add_n([tf.matmul(g, g, transpose_a=True) for g in rows])])
        return found

    return compiled_for(collect, examples, tf.TensorSpec((2,), tf.int32))
