"""The layers that read a residual stream right behind blocks that go, fitted to what they put out with these blocks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dcp_tf.graph import ChannelGraph
from dcp_tf.graph.blocks import ResidualBlock, without_calls
from dcp_tf.graph.trace import Trace
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.activations.linear import linear
from dcp_tf.pruning.activations.memory import images_at_once
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.elimination.quadratic import Quadratic, is_supported, ridge_for
from dcp_tf.pruning.elimination.select import layer_sums
from dcp_tf.pruning.importance.images import selection_set
from dcp_tf.training.targets import samples_in

READ = 1024  # images, at most, of the fits


def fitted_readers(context: Context, count: int, choices: Sequence[Sequence[ResidualBlock]]) -> list[dict[str, Any]]:
    """Fits kernels by least squares, with a ridge toward the trained ones, as the selection fits those of a group.

    Args:
        context: the graph with the trained weights, and the images.
        count: images that are looked at.
        choices: several sets of blocks that might go.

    Returns:
        For each set the fitted kernels, path of the layer -> values. Layers that are called several times, and those
        without a quadratic model, are left out.
    """
    trace = context.graph.trace
    readers = [_readers(context.graph, blocks) for blocks in choices]
    wanted = {index for calls in readers for index in calls}
    if not wanted:
        return [{} for _ in choices]
    collect, sums, total = None, None, 0
    batch = images_at_once(trace, context.method.cache_gib, context.method.selection_batch)
    for images, _ in selection_set(context, "modelling blocks", count, batch):
        collect = collect or compiled(
            lambda images: _sums(trace, trace.bind_inputs(images), choices, readers, wanted), [images]
        )
        terms = collect(images)
        sums = terms if sums is None else tf.nest.map_structure(tf.add, sums, terms)
        total += samples_in(images)
    fitted = []
    for calls, of_choice in zip(readers, sums, strict=True):
        kernels = {}
        for index, (gram, product) in zip(calls, of_choice, strict=True):
            call = trace.calls[index]
            positions = total * math.prod(trace.shapes[call.outputs[0]][1:-1])
            kernels[call.path] = _fit(call.operation.kernel, gram.numpy() / total, product.numpy() / total, positions)
        fitted.append(kernels)
    return fitted


def _fit(kernel: Any, gram: np.ndarray, product: np.ndarray, positions: int) -> np.ndarray:
    gram, weights = gram.astype(np.float64), kernel.numpy().reshape(len(gram), -1).astype(np.float64)
    rows = np.zeros((len(gram), 1), int)
    part = Quadratic(gram, product.astype(np.float64), rows, np.ones_like(rows, bool))
    part = part.with_ridge(weights, ridge_for(len(gram), positions))
    return part.fit(np.ones(1, bool)).reshape(kernel.shape).astype(np.float32)


def _sums(
    trace: Trace,
    values: dict[int, tf.Tensor],
    choices: Sequence[Sequence[ResidualBlock]],
    readers: Sequence[Sequence[int]],
    wanted: set[int],
) -> list:
    """Per set of blocks and reader the sums of `P^T P` and `P^T O` of a batch: patches without them, outputs with."""
    outputs = {}
    for index, call in enumerate(trace.calls[: max(wanted) + 1]):
        if index not in wanted:
            values.update(zip(call.outputs, call.run(values, training=False), strict=True))
            continue
        with linear(call.operation) as activation:
            (outputs[index],) = call.run(values, training=False)
        values[call.outputs[0]] = activation(outputs[index])
    sums = []
    for blocks, calls in zip(choices, readers, strict=True):
        changed = _without(trace, values, blocks, max(calls, default=-1))
        pairs = [(trace.calls[i], tf.cast(outputs[i], tf.float32)) for i in calls]
        sums.append([layer_sums(call.operation, [(changed[call.inputs[0]], output)]) for call, output in pairs])
    return sums


def _without(trace: Trace, values: Mapping[int, tf.Tensor], blocks: Sequence[ResidualBlock], last: int) -> dict:
    """The values that change without some blocks, up to call number `last`."""
    gone, ends, changed = without_calls(blocks), {block.calls[-1]: block for block in blocks}, {}
    for index, call in enumerate(trace.calls[: last + 1]):
        if index in ends:
            block = ends[index]
            changed[block.output] = changed.get(block.stream, values[block.stream])
        elif index not in gone and not changed.keys().isdisjoint(call.inputs):
            changed.update(zip(call.outputs, call.run({**values, **changed}, training=False), strict=True))
    return changed


def _readers(graph: ChannelGraph, blocks: Sequence[ResidualBlock]) -> list[int]:
    """The calls of layers with a quadratic model that read a block's output, behind layers without kernels at most."""
    trace, gone, found = graph.trace, without_calls(blocks), set()
    waiting = {block.output for block in blocks}
    for index, call in enumerate(trace.calls):
        if index in gone or waiting.isdisjoint(call.inputs) or len(call.inputs) > 1:
            continue
        record = graph.records[id(call.operation)]
        if not record.consumes:
            waiting.update(call.outputs)
        elif is_supported(call.operation) and len(graph.calls_of(record)) == 1:
            found.add(index)
    return sorted(found)
