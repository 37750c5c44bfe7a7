"""The Fisher matrices of the discrimination-aware losses at the outputs of layers, from one pass over the images."""

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.graph.kinds import output_axes
from dcp_tf.graph.trace import Trace
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.activations.linear import linear
from dcp_tf.pruning.problem.stages import StageLoss
from dcp_tf.training.targets import loss_on, samples_in, with_scaled_gradients

_IMAGES = 512  # by which the matrices are measured


def fisher_matrices(
    trace: Trace,
    known: Sequence[int],
    batches: Sequence[Sequence[tf.Tensor]],
    labels: Sequence[tf.Tensor],
    stages: Sequence[tuple[Collection[int], StageLoss]],
) -> Mapping[int, np.ndarray]:
    """`E[sum over positions of g g^T]` per reading call, g being the gradient of the stage's loss at its linear output.

    Args:
        trace: of the model.
        known: numbers of the tensors that it runs from.
        batches: their values, per batch.
        labels: per batch, perhaps `Weighted`.
        stages: reading calls and the loss that follows them.

    Returns:
        Index of the call -> matrix (outputs, outputs): the sum over positions, averaged over images.
    """
    collect = _collector(trace, known, stages, [list(batches[0]), labels[0]])
    sizes = np.cumsum([samples_in(x) for x in labels])
    last = int(np.searchsorted(sizes, min(_IMAGES, sizes[-1])))
    sums = tree_sum(collect(list(batches[i]), labels[i], tf.constant([7, i])) for i in range(last + 1))
    reading = [i for calls, _ in stages for i in sorted(calls)]
    return {i: s.numpy().astype(np.float64) / sizes[last] for i, s in zip(reading, sums, strict=True)}


def tree_sum(trees: Iterable[list]) -> list:
    """The sums of equally nested tensors."""
    return functools.reduce(functools.partial(tf.nest.map_structure, tf.add), trees)


def sampled_loss(loss: Callable, outputs: Any, targets: Any, seed: tf.Tensor) -> tf.Tensor:
    """The loss over the batch with labels drawn from the model's own predictions, as the Fisher matrix needs.

    For losses that cannot draw labels, the sum of the losses with the given ones.
    """
    outputs, labels = with_scaled_gradients(loss, targets, outputs), getattr(targets, "labels", targets)
    if not hasattr(loss, "sampled"):
        return tf.cast(tf.shape(tf.nest.flatten(outputs)[0])[0], tf.float32) * loss_on(loss, labels, outputs)
    # Parts of a joint loss that cannot draw labels need the given ones.
    return loss.sampled(outputs, seed, labels) if hasattr(loss, "names") else loss.sampled(outputs, seed)


def _collector(
    trace: Trace, known: Sequence[int], stages: Sequence[tuple[Collection[int], StageLoss]], examples: list
) -> Callable:
    """A compiled function: per reading call the sum of `g g^T` over a batch and all positions."""
    stages = [(sorted(calls), loss) for calls, loss in stages]
    reading = {i for calls, _ in stages for i in calls}
    read = [t for i in reading for t in trace.calls[i].outputs]
    needed = trace.needed([*read, *(t for _, loss in stages for t in loss.tensors)], known)

    def collect(inputs, labels, seed):
        values = dict(zip(known, inputs, strict=True))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            shifts = _run(trace, needed, reading, values, tape)
            losses = [sampled_loss(t.loss, t.outputs_from(values), labels, seed) for _, t in stages]
        sums = []
        for (calls, _), loss in zip(stages, losses, strict=True):
            gradients = tape.gradient(
                loss, [shifts[i] for i in calls], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            for index, slopes in zip(calls, gradients, strict=True):
                made = slopes.shape[-output_axes(trace.calls[index].operation) :]
                rows = tf.reshape(tf.cast(slopes, tf.float32), (-1, math.prod(made)))
                sums.append(tf.matmul(rows, rows, transpose_a=True))
        return sums

    return compiled(collect, examples, tf.TensorSpec((2,), tf.int32))


def _run(trace: Trace, calls: Sequence[int], reading: set[int], values: dict, tape: tf.GradientTape) -> dict:
    """Runs the calls; returns per reading call zeros, watched by `tape`, that were added to its linear outputs."""
    shifts = {}
    for index in calls:
        call = trace.calls[index]
        if index not in reading:
            values.update(zip(call.outputs, call.run(values, training=False), strict=True))
            continue
        with linear(call.operation) as activation:
            (output,) = call.run(values, training=False)
        shifts[index] = tf.zeros_like(output)
        tape.watch(shifts[index])
        values[call.outputs[0]] = activation(output + shifts[index])
    return shifts
