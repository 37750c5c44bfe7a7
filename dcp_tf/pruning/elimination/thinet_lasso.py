"""ThiNet and LASSO: channels that reconstruct the next layers' outputs, from these layers' Gram matrices.

What channel k adds to the outputs is `z_k = P_k W_k`, P_k being its columns of the layer's input patches. Both methods
need only the inner products of these contributions, and `<z_k, z_l> = <W_k, H_kl W_l>` with the Gram matrix H of the
patches, over all images and positions. If several layers consume a group, theirs are summed, weighted as in the
reconstruction loss (eq. 5 of Liu et al. 2021).
"""

from collections.abc import Callable, Sequence

import numpy as np

from dcp_tf.errors import UsageError
from dcp_tf.graph import ChannelGraph, ChannelGroup
from dcp_tf.graph.labels import best_of_each
from dcp_tf.pruning.elimination.quadratic import Quadratic, in_turn, is_supported
from dcp_tf.pruning.elimination.select import fitted, quadratics
from dcp_tf.pruning.problem.algorithm2 import Selection
from dcp_tf.pruning.problem.problem import ChannelProblem

# From the models of the group's consumers, their kernels as matrices, the number of channels, the width and the head of
# each channel (or None) to which channels remain, and the new kernels.
Chooser = Callable[..., tuple[np.ndarray, list[np.ndarray]]]

_NOISE = 1e-6  # relative: inner products are summed up in float32


def thinet(
    parts: Sequence[Quadratic],
    kernels: Sequence[np.ndarray],
    size: int,
    width: int,
    head: np.ndarray | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Greedy removal by the error of the next layers' outputs (Luo et al. 2017, arXiv:1707.06342, Algorithm 1).

    Removes, one by one, the channel that increases `||sum of the removed z_k||^2` least. Then scales the weights of
    each kept channel by one factor, all factors by least squares (eq. 7).

    Args:
        parts: the models of the reconstruction loss.
        kernels: the current ones, (rows, outputs).
        size: channels of the group.
        width: how many remain.
        head: of channels in attention heads the number of each one's: as many remain of each.

    Returns:
        Which channels remain, boolean of shape (size,), and the new kernels.
    """
    gram, _ = contributions(parts, kernels, size)
    energy, inner = np.diag(gram), np.zeros(size)
    selected = np.ones(size, bool)
    for _ in range(size - width):
        worst = int(np.argmin(np.where(in_turn(selected, head), energy + 2 * inner, np.inf)))
        selected[worst] = False
        inner += gram[worst]
    kept = np.flatnonzero(selected)
    scales = np.zeros(size)
    scales[kept] = np.linalg.lstsq(gram[np.ix_(kept, kept)], gram[kept].sum(1), rcond=_NOISE)[0]
    factors = [np.where(part.atom < 0, 1.0, scales[part.atom]) for part in parts]
    return selected, [factor * kernel for factor, kernel in zip(factors, kernels, strict=True)]


def lasso(
    parts: Sequence[Quadratic],
    kernels: Sequence[np.ndarray],
    size: int,
    width: int,
    head: np.ndarray | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """LASSO over one scale for each channel, then least squares of the weights (He et al. 2017, arXiv:1707.06168).

    The scales minimize `1/2 ||O^b - sum b_k z_k||^2 + lambda |b|_1` with kernels of norm 1 (eq. 2); lambda rises until
    no more than `width` of them are left. The weights that read those channels are then fitted to O^b.

    Args and Returns are those of `thinet`.
    """
    # This import takes a second, so only this method pays for it.
    from sklearn.linear_model import lars_path_gram

    gram, target = contributions(parts, kernels, size)
    norms = np.sqrt(sum(_by_channel(part, np.square(k).sum(1), size) for part, k in zip(parts, kernels, strict=True)))
    alive = np.flatnonzero((np.diag(gram) > 0) & (norms > 0))
    if not alive.size:  # all channels are equal
        selected = np.isin(np.arange(size), best_of_each(np.arange(size), width, head))
        return selected, [part.fit(selected) for part in parts]
    gram = gram[np.ix_(alive, alive)] / np.outer(norms[alive], norms[alive])
    # Channels with equal contributions would leave the path undefined.
    gram[np.diag_indices_from(gram)] *= 1 + _NOISE
    _, _, path = lars_path_gram(
        target[alive] / norms[alive], gram, n_samples=1, method="lasso", max_iter=10 * size, copy_Gram=False
    )
    # Lambda falls along the path, so this is the smallest lambda with few enough scales.
    fits = np.flatnonzero((path != 0).sum(0) <= width)[-1]
    # A path may skip a width, or end before it: then the channels with the largest scales elsewhere on it follow.
    rank = np.zeros(size)
    rank[alive] = np.abs(path).max(1) / (np.abs(path).max() or 1.0) + 2 * (path[:, fits] != 0)
    selected = np.zeros(size, bool)
    selected[best_of_each(np.argsort(-rank, kind="stable"), width, head)] = True
    return selected, [part.fit(selected) for part in parts]


def choose_in_models(problem: ChannelProblem, chooser: Chooser, width: int) -> Selection:
    """Selects the channels of one group and sets the kernels of its consumers, from the layers' models alone.

    Args:
        problem: of the group; its layers passed `check_layers`.
        chooser: `thinet` or `lasso`.
        width: how many channels remain.
    """
    consumers = fitted(problem)
    if problem.pairs:
        kernels = [c.matrix for c in consumers]
    else:
        kernels = [(c.mask * c.kernel.numpy()).reshape(c.matrix.shape).astype(np.float64) for c in consumers]
    parts = quadratics(problem)
    selected, kernels = chooser(parts, kernels, problem.size, width, problem.head)
    problem.adopt(selected, [c.from_matrix(k) for c, k in zip(consumers, kernels, strict=True)])
    everything = np.ones_like(selected)
    rise = sum(part.value(k) - part.value(part.fit(everything)) for part, k in zip(parts, kernels, strict=True))
    kept = np.flatnonzero(selected).tolist()
    return Selection(selected, {"kept": [len(kept)], "loss": [rise], "added": [kept]})


def check_layers(graph: ChannelGraph, groups: Sequence[ChannelGroup], name: str) -> None:
    """Raises UsageError for a group whose consumers' outputs are not linear in its channels with one matrix each."""
    for group in groups:
        records = [record for record, *_ in graph.consumers(group)]
        reading = {index for record in records for index in graph.calls_of(record)}
        unfit = [r.path for r in records if not (is_supported(r.operation) or _makes_keys(graph, group))]
        chained = [i for i in sorted(reading) if (graph.trace.dependents([i]) - {i}) & reading]
        reason = (
            f"{unfit[0]!r} is neither a plain convolution nor a dense layer"
            if unfit
            else f"{graph.trace.calls[chained[0]].path!r} reads them before another layer that reads them too"
            if chained
            else None
        )
        if reason:
            raise UsageError(
                f"{name} reconstructs the layers that read the channels of {group.name!r}, but {reason}; "
                "leave the group out with exclude=NAME, or choose another method",
                setting="exclude",
            )


def _makes_keys(graph: ChannelGraph, group: ChannelGroup) -> bool:
    """Whether the channels are pairs of a query and a key that one kernel makes: there is a model of their logits."""
    made = [channel for *_, channel in graph.consumers(group)]
    return group.silenced and len(made) == 1 and np.array_equal(np.sort(made[0][made[0] >= 0]), np.arange(group.size))


def contributions(
    parts: Sequence[Quadratic], kernels: Sequence[np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of the channels' contributions with each other, (size, size), and with O^b, (size,).

    The contributions of other groups' channels are subtracted from O^b.
    """
    gram, target = np.zeros((size, size)), np.zeros(size)
    for part, kernel in zip(parts, kernels, strict=True):
        of_channel = (part.atom == np.arange(size)).astype(np.float64)
        measured = kernel if part.metric is None else kernel @ part.metric
        gram += of_channel.T @ (part.hessian * (measured @ kernel.T)) @ of_channel
        others = np.where(part.atom < 0, kernel, 0)
        target += of_channel.T @ (measured * (part.linear - part.hessian @ others)).sum(1)
    return gram, target


def _by_channel(part: Quadratic, values: np.ndarray, size: int) -> np.ndarray:
    """Sums the rows' values by channel."""
    channel = part.atom[:, 0]
    return np.bincount(channel[channel >= 0], values[channel >= 0], size)
