"""Selection without steps over images: elimination in the quadratic model, then passes of the exact sub-problem."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from dcp_tf.pruning.activations.cursor import compiled
from dcp_tf.pruning.activations.linear import dropout_variance, run_linear
from dcp_tf.pruning.elimination.fisher import fisher_matrices, tree_sum
from dcp_tf.pruning.elimination.kernels import MAX_WORK, eliminate_kernels, work
from dcp_tf.pruning.elimination.quadratic import Quadratic, eliminate, is_supported, patches, rows_of
from dcp_tf.pruning.problem.algorithm2 import Selection
from dcp_tf.pruning.problem.consumers import ConsumerKernel
from dcp_tf.pruning.problem.problem import ChannelProblem
from dcp_tf.pruning.problem.scores import largest
from dcp_tf.pruning.stopping import StoppingRule

_FEW_ROWS = 1e-2  # a ridge of this strength or more says that the layer has few rows of data for its inputs
_PLENTY = 50  # rows of data per input of a layer at which no fit needs cross-validation
_PATCH_VALUES = 2**26  # of the patches in memory at one time: 256 MiB


def is_fast(problem: ChannelProblem) -> bool:
    """Whether the quadratic model covers all layers that read the group, none of which may read another's outputs."""
    if not all(is_supported(consumer.operation) and _is_tractable(consumer) for consumer in problem.consumers):
        return False
    trace = problem.trace
    return all(not (trace.dependents([i]) - {i}) & problem.reading for i in problem.reading)


def _is_tractable(consumer: ConsumerKernel) -> bool:
    """Channels are eliminated where the kernel has whole ones, kernels where their number allows."""
    if consumer.atom.shape[-1] > 1:
        return work(rows_of(consumer.operation), consumer.kernel.shape[-1]) <= MAX_WORK
    return consumer.mask.shape[-1] == 1 or bool((consumer.mask == consumer.mask.any(-1, keepdims=True)).all())


def select_fast(problem: ChannelProblem, stopping: StoppingRule, per_step: int) -> Selection:
    """Chooses the atoms of one group by elimination and fits the kernels; then passes of SGD where they are asked for.

    Args:
        problem: of the group; `is_fast` holds.
        stopping: as for `select_greedily`; it sees the losses that the quadratic model foretells.
        per_step: B, how far apart the widths are at which an adaptive rule looks.

    Returns:
        The selected atoms; the history holds by how much each width raises the model's loss over that of all atoms.
    """
    parts = quadratics(problem)
    limit = stopping.limit(problem.size)
    order, losses = _ordered(parts, problem.size)
    likely, strengths = _toward_present(problem, parts, _first(order, limit, problem.size))
    if max(strengths) >= _FEW_ROWS:  # then H says little about what is removed without the ridge
        order, losses = _ordered(likely, problem.size)
    widths, seen = [0], [float(losses[0])]
    while not stopping.done(seen, widths[-1], problem.size):
        widths.append(min(widths[-1] + per_step, limit))
        seen.append(float(losses[widths[-1]]))
    selected = _first(order, widths[-1], problem.size)
    _adopt(problem, parts, selected)
    added = [[], *(order[a:b] for a, b in itertools.pairwise(widths))]
    return Selection(selected, {"kept": widths, "loss": seen, "added": added})


def _ordered(parts: Sequence[Quadratic], size: int) -> tuple[list[int], np.ndarray]:
    """The atoms in the order in which they are worth keeping, and the model's loss with the first t of them."""
    kernels = any(part.atom.shape[1] > 1 for part in parts)
    order, rises = eliminate_kernels(parts) if kernels else eliminate(parts, size)
    # Read backwards the elimination is a selection.
    return order[::-1], np.append(np.cumsum(rises)[::-1], 0.0)


def _first(order: Sequence[int], count: int, size: int) -> np.ndarray:
    selected = np.zeros(size, bool)
    selected[order[:count]] = True
    return selected


def _toward_present(
    problem: ChannelProblem, parts: Sequence[Quadratic], selected: np.ndarray
) -> tuple[list[Quadratic], list[float]]:
    """The models with a ridge toward the kernels as they are, and its strengths; see `Quadratic.toward`."""
    models = [
        part.toward(consumer.kernel.numpy().reshape(part.linear.shape).astype(np.float64), selected)
        for part, consumer in zip(parts, problem.consumers, strict=True)
    ]
    return [model for model, _ in models], [strength for _, strength in models]


def adopt_ranked(problem: ChannelProblem, stopping: StoppingRule, ranking: np.ndarray) -> Selection:
    """The channels that a criterion ranks highest, with the kernels fitted as `select_fast` does.

    Args:
        problem: of the group; `is_fast` holds.
        stopping: a fixed rate.
        ranking: scores of the channels.
    """
    selected = np.zeros(problem.size, bool)
    selected[largest(ranking, stopping.limit(problem.size))] = True
    parts = quadratics(problem)
    _adopt(problem, parts, selected)
    rise = sum(part.value(part.fit(selected)) - part.value(part.fit(np.ones_like(selected))) for part in parts)
    added = [np.flatnonzero(selected).tolist()]
    return Selection(selected, {"kept": [int(selected.sum())], "loss": [rise], "added": added})


def _adopt(problem: ChannelProblem, parts: list[Quadratic], selected: np.ndarray) -> None:
    """Fits the kernels to the selected atoms; `parts` are the models without a ridge."""
    parts, _ = _toward_present(problem, parts, selected)
    problem.adopt(
        selected, [_as_kernel(part.fit(selected), r) for part, r in zip(parts, problem.consumers, strict=True)]
    )


def quadratics(problem: ChannelProblem) -> list[Quadratic]:
    """The quadratic model of the joint loss for each kernel that reads the group.

    `L_M` in it is exact, from one pass over the selection set up to the layers that read the group; the Fisher matrix
    of `L_S` comes from some hundred of the images.
    """
    total = sum(int(labels.shape[0]) for labels in problem.labels)
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
        few = total * sum(_places(problem, i) for i in _calls_of(problem, consumer)) < _PLENTY * len(hessian)
        parts.append(Quadratic(hessian, linear_term, atom, mask, metric, halves if few and len(halves) == 2 else ()))
    return parts


def _under_dropout(
    problem: ChannelProblem, consumer: ConsumerKernel, hessian: np.ndarray, linear_term: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """H and B as dropout before the layer makes them in training, in the mean; the baseline meets the same dropout.

    Inputs x become x (1 + e), e of variance v: the diagonal of H grows by v times itself. Without that the fit may set
    large weights of similar inputs against each other, which dropout does not leave alone in any training step.
    """
    own = _calls_of(problem, consumer)
    noise = sum(dropout_variance(problem.trace, problem.trace.calls[i].inputs[0]) for i in own) / len(own)
    if not noise:
        return hessian, linear_term
    kernel = consumer.kernel.numpy().reshape(linear_term.shape).astype(np.float64)
    added_diagonal = noise * np.diag(hessian)
    return hessian + np.diag(added_diagonal), linear_term + added_diagonal[:, None] * kernel


def _in_halves(problem: ChannelProblem) -> Iterator[tuple[int, Sequence[tf.Tensor], Sequence[tf.Tensor]]]:
    """Inputs and wanted outputs of all batches in their order, every other one of one half (0 or 1).

    A single batch is cut in two, a single image makes one half.
    """
    count, images = problem.inputs.count, int(problem.labels[0].shape[0])
    if count > 1 or images == 1:
        for i in range(count):
            yield i % 2, problem.inputs[i], problem.baseline(i)
        return
    inputs, base = problem.inputs[0], problem.baseline(0)
    for half, part in enumerate((slice(0, images // 2), slice(images // 2, None))):
        yield half, [x[part] for x in inputs], [x[part] for x in base]


def _as_rows(values: np.ndarray, consumer: ConsumerKernel) -> np.ndarray:
    """An array that broadcasts against the kernel, for the kernel as a matrix: (rows, outputs or 1)."""
    shape = (*consumer.kernel.shape[:-1], consumer.atom.shape[-1])
    values = values.any(-1, keepdims=True) if shape[-1] == 1 and values.dtype == bool else values
    return np.broadcast_to(values, shape).reshape(-1, shape[-1]).copy()


def _gram_collector(problem: ChannelProblem) -> Callable:
    """A compiled function: per consumer the sums of `P^T P` and `P^T O` over a batch.

    P are the patches that the kernel multiplies, O the outputs to keep (O^b, or the present ones where the
    reconstruction loss is left out) without bias.
    """
    trace = problem.trace
    reading = sorted(problem.reading)
    read = [trace.calls[i].inputs[0] for i in reading]
    calls = [i for i in trace.needed(read, problem.boundary) if i not in problem.reading]

    def collect(inputs, base):
        values = dict(zip(problem.boundary, inputs, strict=True))
        run_linear(trace, calls, set(), values)
        wanted = base or run_linear(trace, reading, problem.reading, dict(values))
        found = {i: (values[t], o) for i, t, o in zip(reading, read, wanted, strict=True)}
        sums = []
        for consumer in problem.consumers:
            own = _calls_of(problem, consumer)
            mean = sum(_places(problem, i) for i in own) / len(own)
            # In L_M each call counts by the mean over its own places, so those of smaller maps count for more.
            weights = [mean / _places(problem, i) for i in own]
            sums.append(layer_sums(consumer.operation, [found[i] for i in own], weights))
        return sums

    return compiled(collect, [problem.inputs[0], problem.baseline(0)])


def layer_sums(
    layer: keras.Layer, calls: list[tuple[tf.Tensor, tf.Tensor]], weights: Sequence[float] | None = None
) -> list[tf.Tensor]:
    """The Gram matrix and the products over all calls of one layer: inputs and wanted outputs, and how each counts."""
    rows, outputs = rows_of(layer), layer.kernel.shape[-1]
    hessian, product = tf.zeros((rows, rows)), tf.zeros((rows, outputs))
    bias = 0.0 if layer.bias is None else tf.convert_to_tensor(layer.bias)
    for (inputs, wanted), weight in zip(calls, weights or [1.0] * len(calls), strict=True):
        images = tf.shape(inputs)[0]
        # Patches are many times larger than what they are cut from, so a few images are taken at a time.
        chunk = max(1, _PATCH_VALUES // (rows * (math.prod(wanted.shape[1:-1]) or 1)))

        def add(start, hessian, product, inputs=inputs, wanted=wanted - bias, chunk=chunk, scale=weight**0.5):
            part = slice(start, start + chunk)
            matrix = scale * tf.cast(patches(layer, inputs[part]), tf.float32)
            hessian += tf.matmul(matrix, matrix, transpose_a=True)
            product += tf.matmul(matrix, tf.reshape(scale * wanted[part], (-1, outputs)), transpose_a=True)
            return start + chunk, hessian, product

        more = lambda start, *_, images=images: start < images  # noqa: E731
        _, hessian, product = tf.while_loop(more, add, (0, hessian, product), parallel_iterations=1)
    return [hessian, product]


def _metrics(problem: ChannelProblem) -> list[np.ndarray]:
    """Per consumer the weight of its outputs' errors, (outputs, outputs): `lambda / Q` and the Fisher matrix of L_S.

    Both are per image and place: `Q` is here the number of values that the layers give for one image.
    """
    settings, found, places = problem.settings, [], []
    for consumer in problem.consumers:
        outputs, own = consumer.kernel.shape[-1], _calls_of(problem, consumer)
        places.append(sum(_places(problem, i) for i in own))
        found.append(settings.reconstruction * len(own) / (places[-1] * outputs) * np.eye(outputs))
    if settings.discrimination:
        stages = [(problem.reading, problem.stage_loss)]
        fisher = (
            fisher_matrices(problem.trace, problem.boundary, problem.inputs, problem.labels, stages)
            if problem.fisher is None
            else problem.fisher()
        )
        for consumer, metric, each in zip(problem.consumers, found, places, strict=True):
            metric += settings.discrimination / each * sum(fisher[i] for i in _calls_of(problem, consumer))
    return found


def _calls_of(problem: ChannelProblem, consumer: ConsumerKernel) -> list[int]:
    return [i for i in sorted(problem.reading) if problem.trace.calls[i].operation is consumer.operation]


def _places(problem: ChannelProblem, call: int) -> int:
    """At how many places of one image a call gives outputs."""
    return math.prod(problem.trace.shapes[problem.trace.calls[call].outputs[0]][1:-1])


def _as_kernel(weights: np.ndarray, consumer) -> np.ndarray:
    return weights.reshape(consumer.kernel.shape).astype(np.float32)
