"""Elimination if each channel is one row of the kernel, as in 1x1 convolutions and dense layers.

Each removal is a rank-one update of the inverse of H. The choice of the next channel needs only its diagonal and the
norms of the weights' rows, so the updates are delayed and done many at a time, as matrix products.
"""

import numpy as np

_BLOCK = 64  # removals between two updates


class RowElimination:
    """The parts of the inverse of H and of the fitted weights over the remaining rows that costs depend on.

    Args:
        inverse: of H, (rows, rows).
        products: `W M W^T` of the weights fitted with all rows, M being the metric of the outputs' errors.
        channel: of each row, all different; -1: of another group, whose rows all remain.
        size: channels of the group.
    """

    def __init__(self, inverse: np.ndarray, products: np.ndarray, channel: np.ndarray, size: int):
        self._row = np.full(size, -1)
        self._row[channel[channel >= 0]] = np.flatnonzero(channel >= 0)
        self._inverse, self._products = inverse, products
        self._start_block()

    def costs(self, selected: np.ndarray) -> np.ndarray:
        """The rise of the model with the removal of each channel: `1/2 |W_k|^2 / (H^-1)_kk`."""
        costs = np.zeros(len(self._row))
        remaining = selected & (self._row >= 0)
        rows = self._row[remaining]
        costs[remaining] = 0.5 * np.maximum(self._norms[rows], 0) / self._diagonal[rows]
        return costs

    def remove(self, channel: int) -> None:
        """Sets a channel's weights to zero and refits the others."""
        row = self._row[channel]
        if row < 0:
            return
        done = self._done
        directions, beside, before = self._directions[:, :done], self._beside[:, :done], self._scales[:done]
        column = self._inverse[row] - directions @ (before * directions[row])
        scale = column[row]
        direction = column / scale
        # The weights lose `direction w_row^T`, so their products lose `d p^T + p d^T - d d^T |w_row|^2`.
        products = self._products[row] - directions @ beside[row] - beside @ directions[row]
        norm = products[row]
        half = products - 0.5 * norm * direction
        self._diagonal -= scale * direction**2
        self._norms -= 2 * direction * half
        self._directions[:, done], self._beside[:, done], self._scales[done] = direction, half, scale
        self._done += 1
        self._row[channel], self._is_left[row] = -1, False
        if self._done == _BLOCK:
            self._catch_up()

    def _catch_up(self) -> None:
        """Does the delayed updates for the remaining rows."""
        left = np.flatnonzero(self._is_left)
        directions, beside = self._directions[left], self._beside[left]
        self._inverse = self._inverse[np.ix_(left, left)] - (directions * self._scales) @ directions.T
        products = directions @ beside.T
        self._products = self._products[np.ix_(left, left)] - products - products.T
        renumbered = np.full(len(self._diagonal), -1)
        renumbered[left] = np.arange(len(left))
        remaining = self._row >= 0
        self._row[remaining] = renumbered[self._row[remaining]]
        self._start_block()

    def _start_block(self) -> None:
        rows = len(self._inverse)
        self._is_left = np.ones(rows, bool)
        self._directions, self._beside = (np.zeros((rows, _BLOCK)) for _ in range(2))
        self._scales, self._done = np.zeros(_BLOCK), 0
        self._diagonal, self._norms = np.diag(self._inverse).copy(), np.diag(self._products).copy()
