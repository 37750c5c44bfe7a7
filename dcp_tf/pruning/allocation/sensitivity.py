"""By how much the model's own loss rises as each group loses its channels, the other groups left as they are."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dcp_tf import progress
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.kinds import output_axes
from dcp_tf.graph.labels import head_count
from dcp_tf.models.signature import pack
from dcp_tf.pruning.activations.cache import Cache
from dcp_tf.pruning.activations.cursor import ActivationCursor, compiled
from dcp_tf.pruning.activations.linear import linear
from dcp_tf.pruning.activations.memory import free_compiled, images_at_once, matrix_bytes
from dcp_tf.pruning.activations.selection_images import SelectionImages
from dcp_tf.pruning.context import Context
from dcp_tf.pruning.elimination.fisher import sampled_loss
from dcp_tf.pruning.elimination.logits import KeyCombinations, are_logits, model_of_moments, second_moments
from dcp_tf.pruning.elimination.quadratic import Quadratic, eliminate, is_supported, outputs_of, ridge_for, rows_of
from dcp_tf.pruning.elimination.select import layer_sums
from dcp_tf.pruning.importance.images import selection_set
from dcp_tf.pruning.problem.consumers import Consumer, ConsumerKernel, KernelMasks
from dcp_tf.pruning.problem.problem import products_of
from dcp_tf.pruning.problem.stages import Unit, channel_unit
from dcp_tf.training.targets import distance_targets, loss_on, samples_in

_MODELLED = 1024  # images of the quadratic models, and at most so large a share of those that there are:
_MODELLED_SHARE = 0.8
_MEASURED = (64, 128, 256)  # images of each measured loss: more until it is known well enough
_CERTAIN = 0.15  # standard error of a rise of the loss, as a share of it, that is well enough
_BATCH = 16  # images whose mean loss is one sample of it
_SHARES = (0.75, 0.5, 0.25, 0.0)  # of the channels that stay where the loss is measured; at least one


def loss_rises(context: Context, groups: Sequence[ChannelGroup]) -> dict[str, np.ndarray]:
    """The importance of each channel of a group, in the order in which elimination takes them.

    Every layer that reads a group has its quadratic model of the final loss around the trained weights: the Gram matrix
    of its input patches and the Fisher matrix of its outputs (see `quadratic`). Channels are eliminated in it, with the
    weights of the others fitted again. What the model says holds near the trained weights, and not between layers: so
    the loss itself is measured at some widths of each group, and the model only says how it rises in between.

    Args:
        context: the trained model and its images.
        groups: to be compared. Those that such models do not cover are left out.

    Returns:
        Group name -> rises of the loss, 0 or more, shape (size,).
    """
    graph, rises = context.graph, {}
    units = sorted((channel_unit(graph, g) for g in groups if _is_covered(graph, g)), key=lambda unit: unit.calls[0])
    modelled, count, measured, apart_from = parted_images(context)
    measure = MeasuredLosses(measured, apart_from)
    with progress.bar(what="comparing groups", total=len(units), unit="group") as bar:
        for some in _portions(units, matrix_bytes(context.method.cache_gib)):
            models = _models(modelled, count, [unit.consumers for unit in some if not unit.pairs])
            pairs = [unit for unit in some if unit.pairs]
            moments = _moments(modelled, count, pairs) if pairs else {}
            for unit in some:
                parts = _logits(unit, *moments[unit.name]) if unit.pairs else _linear(unit, models)
                rises[unit.name] = _rises(unit, *parts, measure)
                bar.update()
    measure.close()
    free_compiled()
    return rises


def _is_covered(graph: ChannelGraph, group: ChannelGroup) -> bool:
    """Whether there are quadratic models of all that reads a group, or of the logits of its pairs."""
    consumers = graph.consumers(group)
    if group.silenced:
        return are_logits(graph, group.name, [channel for *_, channel in consumers], _products(graph, consumers))
    return all(is_supported(record.operation) for record, *_ in consumers)


def _products(graph: ChannelGraph, consumers: Sequence[Consumer]) -> list[int]:
    """The calls that multiply the queries and the keys that some layers make."""
    return sorted(products_of(graph.trace, {i for record, *_ in consumers for i in graph.calls_of(record)}))


Parts = tuple[list[Quadratic], list[ConsumerKernel]]


def _logits(unit: Unit, *moments: np.ndarray) -> Parts:
    """The model of the logits in the pairs of a group."""
    kernels = [KeyCombinations.of(consumer) for consumer in KernelMasks().consumer_kernels(unit.consumers)]
    return [model_of_moments(moments, unit.head, np.ones(unit.size, bool))], kernels


def _moments(context: Context, count: int, units: Sequence[Unit]) -> dict[str, list[np.ndarray]]:
    """By group of pairs the second moments of its queries and keys, per image."""
    graph, totals, total, function = context.graph, None, 0, None
    products = {unit.name: _products(graph, unit.consumers) for unit in units}
    read = [t for calls in products.values() for i in calls for t in graph.trace.calls[i].inputs[:2]]
    needed = graph.trace.needed(read, graph.trace.inputs)

    def moments(images):
        values = graph.trace.bind_inputs(images)
        for i in needed:
            values.update(
                zip(graph.trace.calls[i].outputs, graph.trace.calls[i].run(values, training=False), strict=True)
            )
        return {name: second_moments(graph, name, calls, values) for name, calls in products.items()}

    batch = images_at_once(graph.trace, context.method.cache_gib, context.method.selection_batch)
    for images, _ in selection_set(context, "modelling attention", count, batch):
        function = function or compiled(moments, [images])
        parts = function(images)
        totals = parts if totals is None else tf.nest.map_structure(tf.add, totals, parts)
        total += samples_in(images)
    return {name: [part.numpy() / total for part in parts] for name, parts in totals.items()}


def _linear(unit: Unit, models: dict[str, tuple[np.ndarray, np.ndarray, int]]) -> Parts:
    """The models of the layers that read a group, and their kernels."""
    parts, kernels = [], KernelMasks().consumer_kernels(unit.consumers)
    for record, _, _, channel in unit.consumers:
        gram, metric, positions = models[record.path]
        gram, metric = gram.astype(np.float64), metric.astype(np.float64)
        rows = np.resize(channel, len(gram))[:, None]  # (a table of heads and channels too)
        weights = record.operation.kernel.numpy().reshape(len(gram), -1).astype(np.float64)
        part = Quadratic(gram, gram @ weights, rows, np.ones_like(rows, bool), metric)
        parts.append(part.with_ridge(weights, ridge_for(len(gram), positions)))
    return parts, kernels


def _rises(unit: Unit, parts: list[Quadratic], kernels: list[ConsumerKernel], measure: "MeasuredLosses") -> np.ndarray:
    """Of one group: the measured rises between some widths, each spread as the quadratic model predicts it."""
    order, predicted = eliminate(parts, unit.size, unit.head)
    heads = head_count(unit.head)
    removed = [0, *(unit.size - heads * max(1, round(share * unit.size / heads)) for share in _SHARES)]
    fitted = []
    for count in removed[1:]:
        selected = ~np.isin(np.arange(unit.size), order[:count])
        fitted.append([k.from_matrix(p.fit(selected)) for p, k in zip(parts, kernels, strict=True)])
    losses = np.maximum.accumulate([0.0, *measure(unit.calls[0], [k.kernel for k in kernels], fitted)])
    rises = np.full(unit.size, losses[-1])  # the last channel has all the importance
    for (a, b), (low, high) in zip(itertools.pairwise(removed), itertools.pairwise(losses), strict=True):
        shares = np.maximum(predicted[a:b], 1e-30)
        rises[a:b] = (high - low) * shares / shares.sum()
    return rises


@contextlib.contextmanager
def _unchanged(kernels: Sequence[keras.Variable]) -> Iterator[None]:
    """Gives the kernels their values back at the end, whatever happens: they are those of the user's model."""
    before = [kernel.numpy() for kernel in kernels]
    try:
        yield
    finally:
        for kernel, values in zip(kernels, before, strict=True):
            kernel.assign(values)


class MeasuredLosses:
    """How far other kernels take the model's outputs from those that it has, by the final loss.

    Margins take no predictions for labels: the loss says itself how far outputs are from others. One of the user's own,
    which does not, is taken of the labels. Only layers from the first one on whose weights change are computed.
    """

    def __init__(self, context: Context, apart_from: int):
        graph, objective, method = context.graph, context.objective, context.method
        model, self._distance = graph.trace.model, objective.loss
        teacher = objective.targets(model, context.data)
        self._cache = Cache.of_gib(method.cache_gib, method.cache_disk_gib)
        samples = min(_MEASURED[-1], max(1, min(method.selection_samples, context.data.size) - apart_from))
        batch = min(_BATCH, method.selection_batch)
        self._images = SelectionImages(
            context.data, samples, batch, context.seed, context.labels_from_model(), self._cache, apart_from
        )
        self._wanted = self._images.labels
        if hasattr(objective.loss, "distance"):
            # From its own predictions the trained model is not away at all; labels it may not even know.
            pairs = enumerate(self._wanted or [None] * len(self._images))
            self._wanted = [distance_targets(objective.loss, x, teacher(pack(self._images[i]))) for i, x in pairs]
            self._distance = functools.partial(objective.loss.distance, temperature=1.0)
        self._cursor = ActivationCursor(graph.trace, self._images, self._cache)
        self._outputs = graph.trace.outputs
        self._loss_head = objective.loss_head(model, context.data)
        self._cut, self._function = -1, None
        self._before: dict[int, float] = {}

    def __call__(
        self, cut: int, kernels: Sequence[keras.Variable], choices: Sequence[Sequence[np.ndarray]]
    ) -> list[float]:
        """By how much the mean loss rises with each choice of values for some kernels; they keep those they have.

        Args:
            cut: number of the first call that reads one of the kernels; cuts never fall.
            kernels: of the model.
            choices: per choice the values of each kernel.
        """
        if self._cut != cut:
            self._cursor.advance(cut)
            self._cut, self._function = cut, self._cursor.function(self._outputs)
        rises: list[list[float]] = [[] for _ in choices]
        sizes = [samples_in(x) for x in self._wanted]
        for images in _MEASURED:
            last = min(len(sizes), math.ceil(images / sizes[0]))
            batches = range(len(rises[0]), last)
            with _unchanged(kernels):
                self._before.update({i: self._loss(i) for i in batches if i not in self._before})
                for of_choice, values in zip(rises, choices, strict=True):
                    for kernel, value in zip(kernels, values, strict=True):
                        kernel.assign(value)
                    of_choice.extend(self._loss(i) - self._before[i] for i in batches)
            if last == len(sizes) or all(_is_certain(of_choice) for of_choice in rises):
                break
        return [float(np.average(of_choice, weights=sizes[: len(of_choice)])) for of_choice in rises]

    def _loss(self, index: int) -> float:
        """The mean loss of one batch with the kernels as they are."""
        outputs = pack(self._function(*self._cursor[index]))
        outputs = outputs if self._loss_head is None else self._loss_head(outputs)
        loss = float(loss_on(self._distance, self._wanted[index], outputs))
        return loss if math.isfinite(loss) else float(np.finfo(np.float32).max)

    def close(self) -> None:
        """Frees the memory."""
        self._cursor.close()
        self._images.close()
        self._cache.close()


def _is_certain(samples: Sequence[float]) -> bool:
    """Whether the mean of some samples is known well enough."""
    error = np.std(samples, ddof=1) / math.sqrt(len(samples)) if len(samples) > 1 else math.inf
    return error <= _CERTAIN * abs(np.mean(samples))


def _portions(units: Sequence[Unit], room: float) -> Iterator[list[Unit]]:
    """The groups in portions whose Gram matrices lie in memory together, at least one group in each."""
    portion, used = [], 0.0
    for unit in units:
        size = sum(4 * rows_of(record.operation) ** 2 for record, *_ in unit.consumers)
        if portion and used + size > room:
            yield portion
            portion, used = [], 0.0
        portion.append(unit)
        used += size
    if portion:
        yield portion


def parted_images(context: Context) -> tuple[Context, int, Context, int]:
    """The images of the models and their number, and those that measure, with as many as they are kept apart from.

    On the images that it was fitted to, a kernel of many inputs loses nothing.
    """
    crops = context.selection_data
    if crops is None:
        available = min(context.method.selection_samples, context.data.size)
        count = min(_MODELLED, max(1, round(_MODELLED_SHARE * available)))
        return context, count, context, count if count < context.data.size else 0
    first, second = crops.split(_MODELLED_SHARE, context.seed)
    modelled, measured = (dataclasses.replace(context, data=part) for part in (first, second if second.size else first))
    return modelled, min(_MODELLED, first.size), measured, 0


def _models(
    context: Context, count: int, consumers: Sequence[Sequence[Consumer]]
) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Of each layer that reads a group, by path, what `Quadratic` needs.

    That is the Gram matrix per image, the Fisher matrix per image and position, and how many rows of data there were.
    """
    graph = context.graph
    layers = {record.path: record.operation for of_group in consumers for record, *_ in of_group}
    collect, sums, total = None, None, 0
    batch = images_at_once(graph.trace, context.method.cache_gib, context.method.selection_batch)
    for images, labels in selection_set(context, "modelling layers", count, batch):
        collect = collect or _collector(context, list(layers.values()), [images, labels])
        terms = collect(images, labels, tf.constant([7, total]))
        sums = terms if sums is None else tf.nest.map_structure(tf.add, sums, terms)
        total += samples_in(images)
    models = {}
    for (path, layer), (gram, slopes) in zip(layers.items(), sums, strict=True):
        calls = [call for call in graph.trace.calls if call.operation is layer]
        made = output_axes(layer)
        positions = sum(math.prod(graph.trace.shapes[call.outputs[0]][1:-made]) for call in calls)
        models[path] = gram.numpy() / total, slopes.numpy() / (total * positions), total * positions
    return models


def _collector(context: Context, layers: Sequence[keras.Layer], examples: list[Any]) -> Callable:
    """A compiled function: per layer the sums over a batch of `P^T P` and of `g g^T`, g being the slope of the loss."""
    trace, objective = context.graph.trace, context.objective
    loss_head = objective.loss_head(trace.model, context.data)
    modelled = {id(layer) for layer in layers}

    def collect(images, labels, seed):
        values, shifts, linear_outputs = trace.bind_inputs(images), {}, {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for index, call in enumerate(trace.calls):
                if id(call.operation) not in modelled:
                    values.update(zip(call.outputs, call.run(values, training=False), strict=True))
                    continue
                with linear(call.operation) as activation:
                    (linear_outputs[index],) = call.run(values, training=False)
                shifts[index] = tf.zeros_like(linear_outputs[index])
                tape.watch(shifts[index])
                values[call.outputs[0]] = activation(linear_outputs[index] + shifts[index])
            outputs = trace.pack_outputs(values)
            drawn = sampled_loss(objective.loss, outputs if loss_head is None else loss_head(outputs), labels, seed)
        slopes = tape.gradient(drawn, shifts, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        sums = []
        for layer in layers:
            calls = [i for i in shifts if trace.calls[i].operation is layer]
            pairs = [(values[trace.calls[i].inputs[0]], tf.cast(linear_outputs[i], tf.float32)) for i in calls]
            rows = [tf.reshape(tf.cast(slopes[i], tf.float32), (-1, outputs_of(layer))) for i in calls]
            sums.append([layer_sums(layer, pairs)[0], tf.add_n([tf.matmul(g, g, transpose_a=True) for g in rows])])
        return sums

    return compiled(collect, examples, tf.TensorSpec((2,), tf.int32))
