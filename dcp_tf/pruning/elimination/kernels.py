"""Elimination of single kernels in the quadratic model (DKP), in which the outputs of a layer are independent.

So each output's kernels are eliminated separately, many outputs at a time, and the sequences are merged.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from dcp_tf.pruning.elimination.quadratic import Quadratic, kernel_rows, ridged

_BYTES_AT_A_TIME = 2**25  # of the inverses of the outputs that are processed together
# Multiplications up to which the elimination pays; beyond, steps over the images are faster.
MAX_WORK = 5e11


def work(rows: int, outputs: int) -> float:
    """The approximate number of multiplications to eliminate all kernels of a layer."""
    return float(rows) ** 3 * outputs


def eliminate_kernels(parts: Sequence[Quadratic]) -> tuple[list[int], list[float]]:
    """Removes kernels one by one, always the one whose removal raises the model least, refitting all other weights.

    Args:
        parts: one per consumer of the group; atoms are kernels.

    Returns:
        The atoms in the order of their removal, and by how much each removal raises the model.
    """
    chains = [chain for part in parts for chain in _chains(part.separated())]
    heads = [(chain[0][1], number, 0) for number, chain in enumerate(chains) if chain]
    heapq.heapify(heads)
    order, rises = [], []
    while heads:
        rise, number, position = heapq.heappop(heads)
        order.append(chains[number][position][0])
        rises.append(rise)
        if position + 1 < len(chains[number]):
            heapq.heappush(heads, (chains[number][position + 1][1], number, position + 1))
    return order, rises


def _chains(part: Quadratic) -> list[list[tuple[int, float]]]:
    """Per output its atoms with their rises, in the order of removal."""
    blocks = kernel_rows(part)
    if not blocks:
        return []
    outputs = part.linear.shape[1]
    at_a_time = max(1, _BYTES_AT_A_TIME // (8 * len(part.hessian) ** 2))
    chains = []
    for start in range(0, outputs, at_a_time):
        chains += _of_outputs(part, blocks, np.arange(start, min(start + at_a_time, outputs)))
    return chains


def _of_outputs(part: Quadratic, blocks: list[np.ndarray], outputs: np.ndarray) -> list[list[tuple[int, float]]]:
    """The chains of some outputs, computed in parallel."""
    rows = np.stack(blocks)  # (inputs, rows of a kernel)
    atoms = part.atom[rows[:, 0]][:, outputs].T  # (outputs, inputs)
    mask = np.broadcast_to(part.mask, part.linear.shape)[:, outputs].T
    inverse, weights = _start(part, outputs, mask)
    alive = atoms >= 0
    every = np.arange(len(outputs))
    chains: list[list[tuple[int, float]]] = [[] for _ in outputs]
    while alive.any():
        own = weights[:, rows]
        within = inverse[:, rows[:, :, None], rows[:, None, :]] + np.where(alive, 0, 1)[..., None, None] * np.eye(
            rows.shape[1]
        )
        costs = 0.5 * (own * np.linalg.solve(within, own[..., None])[..., 0]).sum(-1)
        costs[~alive] = np.inf
        worst = costs.argmin(1)
        for output in np.flatnonzero(alive.any(1)):
            chains[output].append((int(atoms[output, worst[output]]), float(costs[output, worst[output]])))
        gone = rows[worst]  # (outputs, rows of a kernel)
        columns = np.take_along_axis(inverse, gone[:, None, :], 2)
        inner = np.linalg.inv(within[every, worst])
        weights -= (columns @ (inner @ np.take_along_axis(weights, gone, 1)[..., None]))[..., 0]
        # (NumPy takes six times as long for the product with a transposed view.)
        inverse -= (columns @ inner) @ np.ascontiguousarray(columns.transpose(0, 2, 1))
        # Rounding leaves residues where zeros belong.
        np.put_along_axis(weights, gone, 0, 1)
        inverse[every[:, None], gone] = 0
        inverse[every[:, None], :, gone] = 0
        alive[every, worst] = False
    return chains


def _start(part: Quadratic, outputs: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per output the inverse of H over the unmasked rows, zero elsewhere, and the fitted weights."""
    size = len(part.hessian)
    inverse = np.zeros((len(outputs), size, size))
    patterns, which = np.unique(mask, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern)
        whole = np.zeros((size, size))
        whole[np.ix_(rows, rows)] = np.linalg.inv(ridged(part.hessian[np.ix_(rows, rows)]))
        inverse[which == number] = whole
    return inverse, np.einsum("orq,qo->or", inverse, part.linear[:, outputs], optimize=True)
