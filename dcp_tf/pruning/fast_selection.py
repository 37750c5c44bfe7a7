"""Selection without steps over images: elimination in the quadratic model, then passes of the exact sub-problem."""

import itertools

import numpy as np
import tensorflow as tf

from dcp_tf.pruning.channel_problem import ChannelProblem, linear
from dcp_tf.pruning.criteria import largest
from dcp_tf.pruning.kernel_elimination import MAX_WORK, eliminate_kernels, work
from dcp_tf.pruning.layer_inputs import compiled_for
from dcp_tf.pruning.quadratic import Quadratic, eliminate, is_supported, patches, rows_of
from dcp_tf.pruning.readers import Reader
from dcp_tf.pruning.selection import Selection
from dcp_tf.pruning.stopping import StoppingRule

_PATCH_VALUES = 2**26  # of the patches in memory at one time: 256 MiB


def is_fast(problem: ChannelProblem) -> bool:
    """Whether the quadratic model covers all layers that read the group, none of which may read another's outputs."""
    if not all(is_supported(reader.operation) and _is_tractable(reader) for reader in problem.readers):
        return False
    trace = problem.trace
    return all(not (trace.dependents([i]) - {i}) & problem.reading for i in problem.reading)


def _is_tractable(reader: Reader) -> bool:
    """Channels are eliminated where the kernel has whole ones, kernels where their number allows."""
    if reader.atom.shape[-1] > 1:
        return work(rows_of(reader.operation), reader.kernel.shape[-1]) <= MAX_WORK
    return reader.held.shape[-1] == 1 or bool((reader.held == reader.held.any(-1, keepdims=True)).all())


def select_fast(problem: ChannelProblem, stopping: StoppingRule, per_step: int) -> Selection:
    """Chooses the atoms of one group by elimination, fits the kernels, and runs the sub-problem once.

    Args:
        problem: of the group; `is_fast` holds.
        stopping: as for `select_greedily`; it sees the losses that the quadratic model foretells.
        per_step: B, how far apart the widths are at which an adaptive rule looks.

    Returns:
        The selected atoms; the history holds the model's losses, the last entry the measured one.
    """
    full = problem.loss().joint
    parts = quadratics(problem)
    kernels = any(part.atom.shape[1] > 1 for part in parts)
    order, rises = eliminate_kernels(parts) if kernels else eliminate(parts, problem.size)
    # Read backwards the elimination is a selection: losses[t] is the model's loss with t atoms.
    order.reverse()
    losses = full + np.append(np.cumsum(rises)[::-1], 0.0)
    widths, seen = [0], [float(losses[0])]
    limit = stopping.limit(problem.size)
    while not stopping.done(seen, widths[-1], problem.size):
        widths.append(min(widths[-1] + per_step, limit))
        seen.append(float(losses[widths[-1]]))
    selected = np.zeros(problem.size, bool)
    selected[order[: widths[-1]]] = True
    _adopt(problem, parts, selected)
    history = {
        "kept": [*widths, widths[-1]],
        "loss": [*seen, problem.loss().joint],
        "added": [[], *(order[a:b] for a, b in itertools.pairwise(widths)), []],
    }
    return Selection(selected, history)


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
    kept = int(selected.sum())
    return Selection(
        selected, {"kept": [kept], "loss": [problem.loss().joint], "added": [np.flatnonzero(selected).tolist()]}
    )


def _adopt(problem: ChannelProblem, parts: list[Quadratic], selected: np.ndarray) -> None:
    problem.adopt(selected, [_as_kernel(part.fit(selected), r) for part, r in zip(parts, problem.readers, strict=True)])


def quadratics(problem: ChannelProblem) -> list[Quadratic]:
    """The quadratic model of the joint loss for each kernel that reads the group, from one pass over the images."""
    collect = _collector(problem)
    total = sum(int(labels.shape[0]) for labels in problem.labels)
    sums = None
    for i, labels in enumerate(problem.labels):
        found = collect(problem.inputs[i], problem.baseline(i), labels, tf.constant([7, i]))
        sums = found if sums is None else tf.nest.map_structure(tf.add, sums, found)
    parts = []
    for reader, terms in zip(problem.readers, sums, strict=True):
        hessian, linear_term = (x.numpy().astype(np.float64) / total for x in terms)
        parts.append(Quadratic(hessian, linear_term, *(_as_rows(x, reader) for x in (reader.atom, reader.held))))
    return parts


def _as_rows(values: np.ndarray, reader: Reader) -> np.ndarray:
    """An array that broadcasts against the kernel, for the kernel as a matrix: (rows, outputs or 1)."""
    shape = (*reader.kernel.shape[:-1], reader.atom.shape[-1])
    values = values.any(-1, keepdims=True) if shape[-1] == 1 and values.dtype == bool else values
    return np.broadcast_to(values, shape).reshape(-1, shape[-1]).copy()


def _collector(problem: ChannelProblem):
    """A compiled function: per reader the sums of `P^T S P` and `P^T S O` over a batch.

    P are the patches that the kernel multiplies, O the outputs to keep (O^b, or the present ones where the
    reconstruction loss is left out) without bias, S the weight of each place: lambda / (n * places) for L_M, and for
    L_S the mean square of its slope there: its Fisher matrix with the outputs taken as independent and alike.
    """
    trace, settings = problem.trace, problem.settings

    def collect(inputs, base, labels, seed):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            values = dict(zip(problem.boundary, inputs, strict=True))
            calls = _run(problem, values, tape)
            drawn = tf.constant(0.0)
            if settings.discrimination:
                outputs = problem.target.outputs(values[problem.target.tensor])
                drawn = _sampled(problem.target.loss, outputs, labels, seed)
        shifts = [shift for _, _, shift in calls.values()]
        slopes = tape.gradient(drawn, shifts, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        wanted = base or [output for _, output, _ in calls.values()]
        places = {}
        for index, slope, target in zip(calls, slopes, wanted, strict=True):
            size = slope.shape[1:].num_elements()
            weight = settings.discrimination * tf.reduce_mean(tf.square(slope), -1) + settings.reconstruction / size
            places[index] = calls[index][0], target, weight
        return [
            _sums(r.operation, [p for i, p in places.items() if trace.calls[i].operation is r.operation])
            for r in problem.readers
        ]

    examples = [problem.inputs[0], problem.baseline(0), problem.labels[0]]
    return compiled_for(collect, examples, tf.TensorSpec((2,), tf.int32))


def _sums(layer, calls: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> list[tf.Tensor]:
    """The Gram matrix and the products over all calls of one layer: inputs, wanted outputs, weights of the places."""
    rows, outputs = rows_of(layer), layer.kernel.shape[-1]
    hessian, product = tf.zeros((rows, rows)), tf.zeros((rows, outputs))
    bias = 0.0 if layer.bias is None else tf.convert_to_tensor(layer.bias)
    for inputs, wanted, weight in calls:
        images = tf.shape(inputs)[0]
        # Patches are many times larger than what they are cut from, so a few images are taken at a time.
        chunk = max(1, _PATCH_VALUES // (rows * (weight.shape[1:].num_elements() or 1)))

        def add(start, hessian, product, inputs=inputs, wanted=wanted - bias, weight=weight, chunk=chunk):
            part = slice(start, start + chunk)
            matrix = tf.cast(patches(layer, inputs[part]), tf.float32)
            weighted = tf.reshape(weight[part], (-1, 1)) * matrix
            hessian += tf.matmul(weighted, matrix, transpose_a=True)
            product += tf.matmul(weighted, tf.reshape(wanted[part], (-1, outputs)), transpose_a=True)
            return start + chunk, hessian, product

        more = lambda start, *_, images=images: start < images  # noqa: E731
        _, hessian, product = tf.while_loop(more, add, (0, hessian, product), parallel_iterations=1)
    return [hessian, product]


def _run(problem: ChannelProblem, values: dict, tape: tf.GradientTape) -> dict[int, tuple[tf.Tensor, ...]]:
    """Runs the problem's calls; per reading call its inputs, its linear outputs, and zeros that were added to them."""
    found = {}
    for index in problem.calls:
        call = problem.trace.calls[index]
        if index not in problem.reading:
            values.update(zip(call.outputs, call.run(values, training=False), strict=True))
            continue
        with linear(call.operation) as activation:
            (output,) = call.run(values, training=False)
        shift = tf.zeros_like(output)
        tape.watch(shift)
        found[index] = values[call.inputs[0]], tf.stop_gradient(output), shift
        values[call.outputs[0]] = activation(output + shift)
    return found


def _sampled(loss, outputs: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The loss over the batch with labels drawn from the model's own predictions, as the Fisher matrix needs.

    For losses that cannot draw, the sum of the losses with the given labels.
    """
    if hasattr(loss, "sampled"):
        return loss.sampled(outputs, seed)
    return tf.cast(tf.shape(outputs)[0], tf.float32) * tf.cast(loss(labels, outputs), tf.float32)


def _as_kernel(weights: np.ndarray, reader) -> np.ndarray:
    return weights.reshape(reader.kernel.shape).astype(np.float32)
