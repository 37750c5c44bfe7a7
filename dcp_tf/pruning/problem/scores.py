"""The scores by which Algorithm 2 adds channels or kernels."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dcp_tf.pruning.problem.consumers import ConsumerKernel, has_kernels

Consumers, Arrays = Sequence[ConsumerKernel], Sequence[np.ndarray]


def paper(consumers: Consumers, gradients: Arrays, start: Arrays, curvatures: np.ndarray) -> np.ndarray:
    """`||G_k||_F`, the norm of the gradient over all entries of atom k (Liu et al. 2021, Algorithm 2).

    Args:
        consumers: the kernels, with the numbers of their atoms.
        gradients: dL/dW of each kernel at the current W.
        start: the values with which atoms are added.
        curvatures: `<W0_k, H W0_k>` of each atom at these values, shape (size,).

    Returns:
        Shape (size,); the largest is added first.
    """
    size = len(curvatures)
    squares = (c.sums(np.square(g, dtype=np.float64), size) for c, g in zip(consumers, gradients, strict=True))
    return np.sqrt(sum(squares))


def code(consumers: Consumers, gradients: Arrays, start: Arrays, curvatures: np.ndarray) -> np.ndarray:
    """`sum_j ||G_jk||_F`, the kernels' norms summed over the filters, as in the authors' code."""
    scores = np.zeros(len(curvatures))
    for consumer, gradient in zip(consumers, gradients, strict=True):
        own = (consumer.axis,) if isinstance(consumer.axis, int) else consumer.axis
        channels = (gradient.ndim - 2, gradient.ndim - 1) if has_kernels(consumer) else own
        inside = tuple(a for a in range(gradient.ndim) if a not in channels)
        norms = np.sqrt(np.square(gradient, dtype=np.float64).sum(inside, keepdims=True))
        scores += consumer.sums(norms, len(scores))
    return scores


def reduction(consumers: Consumers, gradients: Arrays, start: Arrays, curvatures: np.ndarray) -> np.ndarray:
    """`-<G_k, W0_k> - 1/2 <W0_k, H W0_k>`: by how much L falls, to second order, when atom k is added.

    This is orthogonal matching pursuit with the values that the atom is really added with. The curvatures are those of
    the quadratic model of L, and zero for layers that it does not cover.
    """
    size = len(curvatures)
    slopes = (c.sums(g * w, size) for c, g, w in zip(consumers, gradients, start, strict=True))
    return -sum(slopes) - 0.5 * curvatures


SCORES: Mapping[str, Callable[..., np.ndarray]] = {score.__name__: score for score in (paper, code, reduction)}


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` positions with the largest scores, sorted; ties go to the lower number."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])
