"""The fast selection: elimination in the quadratic model, then optional passes of SGD over the images."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.graph.kinds import output_axes
from dcp_tf.graph.labels import best_of_each
from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.activations.linear import dropout_variance, run_linear
from dcp_tf.pruning.elimination.fisher import fisher_matrices, tree_sum
from dcp_tf.pruning.elimination.kernels import MAX_WORK, eliminate_kernels, work
from dcp_tf.pruning.elimination.logits import KeyCombinations, has_logits, logits_model
from dcp_tf.pruning.elimination.quadratic import Quadratic, eliminate, is_supported, outputs_of, patches, rows_of
from dcp_tf.pruning.problem.algorithm2 import Selection, whole_steps
from dcp_tf.pruning.problem.consumers import ConsumerKernel
from dcp_tf.pruning.problem.problem import ChannelProblem
from dcp_tf.pruning.stopping import StoppingRule
from dcp_tf.training.targets import samples_in

_FEW_ROWS = 1e-2  # the strength of a ridge from which a layer has too few rows of data for its inputs
_PLENTY = 50  # rows of data per input of a layer from which fits need no cross-validation
_PATCH_VALUES = 2**26  # in memory at once: 256 MiB


def is_fast(problem: ChannelProblem) -> bool:
    """Whether the quadratic model covers all consumers of the group, or the logits of its pairs.

    One may read another's outputs beside the group, as the decoder of a U-Net does, whose skips are those of one map:
    its inputs are then taken as they are before. In a residual stream what they read is what others wrote; where it is
    normalized by sums of squares they are taken as they are before all the same, as steps would pass the whole network.
    """
    if problem.pairs:
        return has_logits(problem)
    if not all(is_supported(consumer.operation) and _is_tractable(consumer) for consumer in problem.consumers):
        return False
    trace = problem.trace
    return problem.is_map or all(not (trace.dependents([i]) - {i}) & problem.reading for i in problem.reading)


def _is_tractable(consumer: ConsumerKernel) -> bool:
    """Whether a kernel can be eliminated by whole channels, or has few enough kernels."""
    if output_axes(consumer.operation) > 1:
        rows = np.broadcast_to(consumer.mask, consumer.kernel.shape).reshape(rows_of(consumer.operation), -1)
        rows = rows[:, rows.any(0)]  # of a key whose channels went with their pairs the others are fitted
        return bool((rows == rows[:, :1]).all())
    if consumer.atom.shape[-1] > 1:
        return work(rows_of(consumer.operation), consumer.kernel.shape[-1]) <= MAX_WORK
    return consumer.mask.shape[-1] == 1 or bool((consumer.mask == consumer.mask.any(-1, keepdims=True)).all())


def select_fast(problem: ChannelProblem, stopping: StoppingRule, per_step: int) -> Selection:
    """Selects the atoms of one group by elimination and fits the kernels; then passes of SGD if the settings ask.

    Args:
        problem: of the group; `is_fast` holds.
        stopping: as for `select_greedily`; it sees the losses that the quadratic model predicts.
        per_step: B, the distance between the widths that an adaptive rule compares.

    Returns:
        The selected atoms; the history holds the rise of the model's loss at each width over that with all atoms.
    """
    parts, per_step = quadratics(problem), whole_steps(per_step, problem.head)
    limit = stopping.limit(problem.size)
    order, losses = _ordered(parts, problem)
    regularized, strengths = _toward_current(problem, parts, _first(order, limit, problem.size))
    if max(strengths) >= _FEW_ROWS:  # then H without the ridge is unreliable
        order, losses = _ordered(regularized, problem)
    widths, width_losses = [0], [float(losses[0])]
    while not stopping.done(width_losses, widths[-1], problem.size):
        widths.append(min(widths[-1] + per_step, limit))
        width_losses.append(float(losses[widths[-1]]))
    selected = _first(order, widths[-1], problem.size)
    _adopt(problem, parts, selected)
    added = [[], *(order[a:b] for a, b in itertools.pairwise(widths))]
    return Selection(selected, {"kept": widths, "loss": width_losses, "added": added})


def _ordered(parts: Sequence[Quadratic], problem: ChannelProblem) -> tuple[list[int], np.ndarray]:
    """The atoms in order of importance, and the model's loss with the first t of them."""
    kernels = any(part.atom.shape[1] > 1 for part in parts)
    order, rises = eliminate_kernels(parts) if kernels else eliminate(parts, problem.size, problem.head)
    # Elimination in reverse is a selection.
    return order[::-1], np.append(np.cumsum(rises)[::-1], 0.0)


def _first(order: Sequence[int], count: int, size: int) -> np.ndarray:
    selected = np.zeros(size, bool)
    selected[order[:count]] = True
    return selected


def _toward_current(
    problem: ChannelProblem, parts: Sequence[Quadratic], selected: np.ndarray
) -> tuple[list[Quadratic], list[float]]:
    """The models with a ridge toward the current kernels, and its strengths; see `Quadratic.toward`."""
    models = [part.toward(consumer.matrix, selected) for part, consumer in zip(parts, fitted(problem), strict=True)]
    return [model for model, _ in models], [strength for _, strength in models]


def adopt_ranked(problem: ChannelProblem, stopping: StoppingRule, ranking: np.ndarray) -> Selection:
    """Selects the channels with the highest scores of a criterion, and fits the kernels as `select_fast` does.

    Args:
        problem: of the group; `is_fast` holds.
        stopping: a fixed rate.
        ranking: scores of the channels.
    """
    selected = np.zeros(problem.size, bool)
    order = np.argsort(-ranking, kind="stable")
    selected[best_of_each(order, stopping.limit(problem.size), problem.head)] = True
    parts = quadratics(problem)
    _adopt(problem, parts, selected)
    rise = sum(part.value(part.fit(selected)) - part.value(part.fit(np.ones_like(selected))) for part in parts)
    added = [np.flatnonzero(selected).tolist()]
    return Selection(selected, {"kept": [int(selected.sum())], "loss": [rise], "added": added})


def _adopt(problem: ChannelProblem, parts: list[Quadratic], selected: np.ndarray) -> None:
    """Fits the kernels to the selected atoms; `parts` are the models without a ridge."""
    parts, _ = _toward_current(problem, parts, selected)
    kernels = [c.from_matrix(p.fit(selected)) for c, p in zip(fitted(problem), parts, strict=True)]
    problem.adopt(selected, [k * c.mask for k, c in zip(kernels, problem.consumers, strict=True)])


def fitted(problem: ChannelProblem) -> Sequence[ConsumerKernel]:
    """What the quadratic models are of: the consumers' kernels, or how the channels of keys are combined."""
    return [KeyCombinations.of(c) for c in problem.consumers] if problem.pairs else problem.consumers


def quadratics(problem: ChannelProblem) -> list[Quadratic]:
    """The quadratic model of the joint loss for each consumer of the group.

    `L_M` in it is exact, from one pass over the selection set up to the consumers; the Fisher matrix of `L_S` comes
    from a few hundred of the images.
    """
    if problem.pairs:
        return [logits_model(problem)]
    total = sum(map(samples_in, problem.labels))
    grams = _gram_collector(problem)
    sums: dict[int, list] = {}
    for half, *inputs in _in_halves(problem):
        terms = grams(*inputs)
        sums[half] = tree_sum([sums[half], terms]) if half in sums else terms
    metrics = _metrics(problem)
    parts = []
    for consumer, metric, *terms in zip(problem.consumers, metrics, *sums.values(), strict=True):
        halves = [tuple(x.numpy().astype(np.float64) / total for x in of_half) for of_half in terms]
        halves = [_under_dropout(problem, consumer, *of_half) for of_half in halves]
        hessian, linear_term = (sum(of_halves) for of_halves in zip(*halves, strict=True))
        atom, mask = (_as_rows(x, consumer) for x in (consumer.atom, consumer.mask))
        few = total * sum(_positions(problem, i) for i in _calls_of(problem, consumer)) < _PLENTY * len(hessian)
        parts.append(Quadratic(hessian, linear_term, atom, mask, metric, halves if few and len(halves) == 2 else ()))
    return parts


def _under_dropout(
    problem: ChannelProblem, consumer: ConsumerKernel, hessian: np.ndarray, linear_term: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The expected H and B under the dropout before the layer; the baseline has the same dropout.

    Inputs x become x (1 + e), e of variance v: the diagonal of H grows by v times itself. Otherwise large weights of
    similar inputs may cancel each other in the fit, which dropout breaks in training.
    """
    own = _calls_of(problem, consumer)
    noise = sum(dropout_variance(problem.trace, problem.trace.calls[i].inputs[0]) for i in own) / len(own)
    if not noise:
        return hessian, linear_term
    added_diagonal = noise * np.diag(hessian)
    return hessian + np.diag(added_diagonal), linear_term + added_diagonal[:, None] * consumer.matrix


def _in_halves(problem: ChannelProblem) -> Iterator[tuple[int, Sequence[tf.Tensor], Sequence[tf.Tensor]]]:
    """The half (0 or 1), inputs and baseline outputs of all batches, in order and alternating between the halves.

    A single batch is split in two, a single image is one half.
    """
    count, images = problem.inputs.count, samples_in(problem.labels[0])
    if count > 1 or images == 1:
        for i in range(count):
            yield i % 2, problem.inputs[i], problem.baseline(i)
        return
    inputs, base = problem.inputs[0], problem.baseline(0)
    for half in range(2):
        yield half, [_half(x, half, images) for x in inputs], [_half(x, half, images) for x in base]


def _half(values: tf.Tensor, number: int, images: int) -> tf.Tensor:
    """Half of a batch; an image may have several rows, as windows of an attention."""
    cut = values.shape[0] // images * (images // 2)
    return values[cut:] if number else values[:cut]


def _as_rows(values: np.ndarray, consumer: ConsumerKernel) -> np.ndarray:
    """An array that broadcasts against the kernel, in the form of `ConsumerKernel.matrix`: (rows, outputs or 1)."""
    if output_axes(consumer.operation) > 1:
        whole = np.broadcast_to(values, consumer.kernel.shape).reshape(rows_of(consumer.operation), -1)
        return whole.any(1, keepdims=True) if values.dtype == bool else whole[:, :1].copy()
    shape = (*consumer.kernel.shape[:-1], consumer.atom.shape[-1])
    values = values.any(-1, keepdims=True) if shape[-1] == 1 and values.dtype == bool else values
    return np.broadcast_to(values, shape).reshape(-1, shape[-1]).copy()


def _gram_collector(problem: ChannelProblem) -> Callable:
    """A compiled function: per consumer the sums of `P^T P` and `P^T O` over a batch.

    P are the patches that the kernel multiplies, O the target outputs without bias: O^b, or the current outputs if
    there is no reconstruction loss.
    """
    trace = problem.trace
    reading = sorted(problem.reading)
    read = [trace.calls[i].inputs[0] for i in reading]
    calls = trace.needed(read, problem.boundary)

    def collect(inputs, base):
        values = dict(zip(problem.boundary, inputs, strict=True))
        run_linear(trace, calls, set(), values)
        targets = base or run_linear(trace, reading, problem.reading, dict(values))
        pairs = {i: (values[t], o) for i, t, o in zip(reading, read, targets, strict=True)}
        sums = []
        for consumer in problem.consumers:
            own = _calls_of(problem, consumer)
            mean = sum(_positions(problem, i) for i in own) / len(own)
            # L_M is a mean over each call's own positions, so positions of smaller maps count more.
            weights = [mean / _positions(problem, i) for i in own]
            sums.append(layer_sums(consumer.operation, [pairs[i] for i in own], weights))
        return sums

    return compiled(collect, [problem.inputs[0], problem.baseline(0)])


def layer_sums(
    layer: keras.Layer, calls: list[tuple[tf.Tensor, tf.Tensor]], weights: Sequence[float] | None = None
) -> list[tf.Tensor]:
    """The Gram matrix and the products over the calls of one layer: pairs of inputs and target outputs, and weights."""
    rows, outputs = rows_of(layer), outputs_of(layer)
    hessian, product = tf.zeros((rows, rows)), tf.zeros((rows, outputs))
    bias = 0.0 if layer.bias is None else tf.convert_to_tensor(layer.bias)
    for (inputs, target), weight in zip(calls, weights or [1.0] * len(calls), strict=True):
        images = tf.shape(inputs)[0]
        # Patches are many times larger than the inputs, so this takes a few images at a time.
        chunk = max(1, _PATCH_VALUES // (rows * (math.prod(target.shape[1:-1]) or 1)))

        def add(start, hessian, product, inputs=inputs, target=target - bias, chunk=chunk, scale=weight**0.5):
            part = slice(start, start + chunk)
            matrix = scale * tf.cast(patches(layer, inputs[part]), tf.float32)
            hessian += tf.matmul(matrix, matrix, transpose_a=True)
            product += tf.matmul(matrix, tf.reshape(scale * target[part], (-1, outputs)), transpose_a=True)
            return start + chunk, hessian, product

        more = lambda start, *_, images=images: start < images  # noqa: E731
        _, hessian, product = tf.while_loop(more, add, (0, hessian, product), parallel_iterations=1)
    return [hessian, product]


def _metrics(problem: ChannelProblem) -> list[np.ndarray]:
    """Per consumer the weight of its outputs' errors, (outputs, outputs): `lambda / Q` and the Fisher matrix of L_S.

    Both are per image and position: `Q` is here the number of output values for one image.
    """
    settings, metrics, positions = problem.settings, [], []
    for consumer in problem.consumers:
        outputs, own = outputs_of(consumer.operation), _calls_of(problem, consumer)
        positions.append(sum(_positions(problem, i) for i in own))
        metrics.append(settings.reconstruction * len(own) / (positions[-1] * outputs) * np.eye(outputs))
    if settings.discrimination:
        stages = [(problem.reading, problem.stage_loss)]
        fisher = (
            fisher_matrices(problem.trace, problem.known, problem.loss_inputs, problem.labels, stages)
            if problem.fisher is None
            else problem.fisher()
        )
        for consumer, metric, count in zip(problem.consumers, metrics, positions, strict=True):
            metric += settings.discrimination / count * sum(fisher[i] for i in _calls_of(problem, consumer))
    return metrics


def _calls_of(problem: ChannelProblem, consumer: ConsumerKernel) -> list[int]:
    return [i for i in sorted(problem.reading) if problem.trace.calls[i].operation is consumer.operation]


def _positions(problem: ChannelProblem, call: int) -> int:
    """The number of output positions of a call for one image."""
    made = problem.trace.calls[call]
    return math.prod(problem.trace.shapes[made.outputs[0]][1 : -output_axes(made.operation)])
