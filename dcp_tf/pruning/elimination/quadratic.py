"""A quadratic model of the joint loss in the kernels of one layer, and the exact elimination of channels in it.

A layer is linear in its kernel W, so `L_M` is a quadratic function of W whose terms are the Gram matrix of the layer's
input patches and their products with O^b. `L_S` is approximated to second order by its Fisher matrix, assuming that the
inputs and the gradients of the layer are independent and its positions alike (as Kronecker-factored curvature does).
Then the channel whose removal costs least, with all other weights refitted, is removed, one after the other (as optimal
brain surgery does for single weights). That needs no pass over images.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf
from threadpoolctl import threadpool_limits

from dcp_tf.graph.kinds import layers_of, output_axes
from dcp_tf.graph.labels import head_count
from dcp_tf.pruning.elimination.rows import RowElimination

# The Gram matrix of more rows takes over half a GiB.
MAX_ROWS = 8192
_RIDGE = 1e-4
# Strengths of a ridge toward the trained weights, in units of the mean diagonal of H.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_ROWS_OF_ONE_THREAD = 2048


@dataclasses.dataclass
class Quadratic:
    """`1/2 <W, H W M> - <B, W M>` for one kernel, as a matrix (rows, outputs).

    Attributes:
        hessian: H, (rows, rows), the same for all outputs.
        linear: B, (rows, outputs).
        atom: number of the atom of each entry, -1 for other groups: (rows, outputs), or (rows, 1) if atoms are whole
            rows (channels).
        mask: False where the kernel is held at zero, in the shape of `atom`.
        metric: M, (outputs, outputs): the weights of the outputs' errors; None: the identity. The best fit does not
            depend on it, the order of removal does.
        halves: H and B of each half of the images, whose sums are H and B; empty: no cross-validation.
    """

    hessian: np.ndarray
    linear: np.ndarray
    atom: np.ndarray
    mask: np.ndarray
    metric: np.ndarray | None = None
    halves: Sequence[tuple[np.ndarray, np.ndarray]] = ()

    def value(self, weights: np.ndarray) -> float:
        """The model at a W, (rows, outputs)."""
        measured = weights if self.metric is None else weights @ self.metric
        return float(0.5 * np.vdot(measured, self.hessian @ weights) - np.vdot(self.linear, measured))

    def scaled(self) -> "Quadratic":
        """The same model in outputs whose errors all count the same: `W M^(1/2)` instead of W."""
        if self.metric is None:
            return self
        values, vectors = np.linalg.eigh(self.metric)
        root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
        return dataclasses.replace(self, linear=self.linear @ root, metric=None, halves=())

    def separated(self) -> "Quadratic":
        """The model with independent outputs, as the elimination of kernels needs it."""
        if self.metric is None:
            return self
        return dataclasses.replace(self, linear=self.linear * np.sqrt(np.diag(self.metric)), metric=None, halves=())

    def toward(self, weights: np.ndarray, selected: np.ndarray) -> tuple["Quadratic", float]:
        """The model with a ridge toward some weights: `H + r I` and `B + r W0`.

        Without it a layer with more inputs than rows of data would overfit. The strength r is the one whose fit to each
        half of the images predicts the other half best.

        Args:
            weights: W0, the trained kernel, (rows, outputs).
            selected: the fitted atoms.

        Returns:
            The model, and the strength in units of the mean diagonal of H; 0 without halves.
        """
        unit = np.trace(self.hessian) / max(len(self.hessian), 1)
        relative = self._best_strength(weights, selected, unit) if self.halves and unit > 0 else 0.0
        return self.with_ridge(weights, relative), relative

    def with_ridge(self, weights: np.ndarray, relative: float) -> "Quadratic":
        """The same with a given strength, in units of the mean diagonal of H."""
        strength = relative * np.trace(self.hessian) / max(len(self.hessian), 1)
        hessian = self.hessian.copy()
        hessian[np.diag_indices_from(hessian)] += strength
        return dataclasses.replace(self, hessian=hessian, linear=self.linear + strength * weights, halves=())

    def _best_strength(self, weights: np.ndarray, selected: np.ndarray, unit: float) -> float:
        """The cross-validated strength, over the rows that any output uses."""
        rows = np.flatnonzero((self.mask & ((self.atom < 0) | selected[self.atom])).any(1))
        square = np.ix_(rows, rows)
        halves = [(h[square], b[rows] - h[square] @ weights[rows]) for h, b in self.halves]
        errors = np.zeros(len(_STRENGTHS))
        for (hessian, linear), (other_hessian, other_linear) in (halves, halves[::-1]):
            for number, strength in enumerate(_STRENGTHS):
                shifted = hessian.copy()
                shifted[np.diag_indices_from(shifted)] += strength * unit / 2 + 1e-30
                try:
                    step = scipy.linalg.solve(shifted, linear, assume_a="pos", check_finite=False)
                except np.linalg.LinAlgError:  # by rounding, or without a single image in which a channel is alive
                    errors[number] = np.inf
                    continue
                measured = step if self.metric is None else step @ self.metric
                errors[number] += 0.5 * np.vdot(measured, other_hessian @ step) - np.vdot(measured, other_linear)
        return _STRENGTHS[int(np.argmin(errors))]

    def fit(self, selected: np.ndarray) -> np.ndarray:
        """The W that minimizes the model with zeros outside the selected atoms, (rows, outputs)."""
        allowed = self.mask & ((self.atom < 0) | selected[self.atom])
        weights = np.zeros_like(self.linear)
        patterns, which = np.unique(allowed, axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            rows = np.flatnonzero(pattern)
            columns = np.flatnonzero(which == number) if allowed.shape[1] > 1 else range(weights.shape[1])
            entries = np.ix_(rows, columns)
            weights[entries] = np.linalg.solve(ridged(self.hessian[np.ix_(rows, rows)]), self.linear[entries])
        return weights

    def curvatures(self, weights: np.ndarray, size: int) -> np.ndarray:
        """`<W_k, H W_k M>` for each of `size` atoms, W_k being the entries of W that belong to atom k."""
        metric = np.eye(weights.shape[1]) if self.metric is None else self.metric
        curvatures = np.zeros(size)
        for channel in np.unique(self.atom[:, :1]) if self.atom.shape[1] == 1 else ():
            if channel >= 0:
                rows = np.flatnonzero(self.atom[:, 0] == channel)
                curvatures[channel] = np.vdot(weights[rows] @ metric, self.hessian[np.ix_(rows, rows)] @ weights[rows])
        if self.atom.shape[1] > 1:
            for rows in kernel_rows(self):
                products = (weights[rows] * (self.hessian[np.ix_(rows, rows)] @ weights[rows])).sum(0) * np.diag(metric)
                atoms = self.atom[rows[0]]
                curvatures[atoms[atoms >= 0]] += products[atoms >= 0]
        return curvatures


def kernel_rows(part: Quadratic) -> list[np.ndarray]:
    """Per input channel the rows of its kernels, if the atoms are kernels."""
    inputs: dict[bytes, list[int]] = {}
    for row, atoms in enumerate(part.atom):
        if (atoms >= 0).any():
            inputs.setdefault(atoms.tobytes(), []).append(row)
    return [np.asarray(rows) for rows in inputs.values()]


def is_supported(layer: keras.Layer) -> bool:
    """Whether a layer multiplies one matrix of patches by its kernel."""
    if isinstance(layer, keras.layers.EinsumDense):
        return _reads_last_axes(layer) and rows_of(layer) <= MAX_ROWS
    if not isinstance(layer, layers_of("dense", "convolution", max_rank=2)):
        return False
    plain = getattr(layer, "groups", 1) == 1 and getattr(layer, "data_format", "channels_last") == "channels_last"
    return plain and rows_of(layer) <= MAX_ROWS


def _reads_last_axes(layer: keras.layers.EinsumDense) -> bool:
    """Whether it sums over the last axes of its input, with which its kernel begins, and makes its last ones."""
    term, kernel, output = layer.equation.replace(" ", "").replace("->", ",").split(",")
    read, made = kernel[: -output_axes(layer)], kernel[-output_axes(layer) :]
    return term.endswith(read) and output.endswith(made) and not {*read} & {*output} and not {*made} & {*term}


def rows_of(layer: keras.Layer) -> int:
    """Rows of the kernel as a matrix (inputs of one output value)."""
    return int(np.prod(layer.kernel.shape[: -output_axes(layer)]))


def outputs_of(layer: keras.Layer) -> int:
    """Columns of the kernel as a matrix (output values of one position)."""
    return int(np.prod(layer.kernel.shape[-output_axes(layer) :]))


def patches(layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """The matrix that a layer's kernel multiplies: (positions, rows), rows in the order of the flattened kernel."""
    if isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense)):
        return tf.reshape(inputs, (-1, rows_of(layer)))
    size, strides, dilation = layer.kernel_size, layer.strides, layer.dilation_rate
    padding = layer.padding.upper()
    if isinstance(layer, keras.layers.Conv1D):
        if padding == "CAUSAL":
            inputs, padding = tf.pad(inputs, [[0, 0], [(size[0] - 1) * dilation[0], 0], [0, 0]]), "VALID"
        inputs, size, strides, dilation = inputs[:, None], (1, *size), (1, *strides), (1, *dilation)
    extracted = tf.image.extract_patches(inputs, [1, *size, 1], [1, *strides, 1], [1, *dilation, 1], padding)
    return tf.reshape(extracted, (-1, extracted.shape[-1]))


def eliminate(parts: Sequence[Quadratic], size: int, head: np.ndarray | None = None) -> tuple[list[int], list[float]]:
    """Removes channels one by one, always the one whose removal raises the model least, refitting all other weights.

    Args:
        parts: one per consumer of the group; atoms are whole rows.
        size: channels of the group.
        head: of channels in attention heads the number of each one's: in turn each head loses one, the cheapest first.

    Returns:
        The channels in the order of their removal, and by how much each removal raises the model.
    """
    states = [_elimination(part, size) for part in parts]
    selected = np.ones(size, bool)
    order, rises = [], []
    with one_thread(max(len(part.hessian) for part in parts)):
        for _ in range(size):
            costs = np.where(in_turn(selected, head), sum(state.costs(selected) for state in states), np.inf)
            worst = int(np.argmin(costs))
            selected[worst] = False
            for state in states:
                state.remove(worst)
            order.append(worst)
            rises.append(float(costs[worst]))
    return order, rises


def in_turn(selected: np.ndarray, head: np.ndarray | None) -> np.ndarray:
    """The channels that may go next: in heads those of the heads that have the most."""
    if head is None:
        return selected
    left = np.bincount(head[selected], minlength=head_count(head))
    return selected & (left[head] == left.max())


def one_thread(rows: int) -> contextlib.AbstractContextManager:
    """Limits operations on small matrices to one thread: starting threads takes longer than computing."""
    return threadpool_limits(1, "blas") if rows <= _ROWS_OF_ONE_THREAD else contextlib.nullcontext()


def _elimination(part: Quadratic, size: int) -> "RowElimination | _Elimination":
    rows = np.flatnonzero(part.mask[:, 0])
    channel = part.atom[rows, 0]
    if np.bincount(channel[channel >= 0], minlength=1).max() > 1:
        return _Elimination(part.scaled(), size)
    inverse = np.linalg.inv(ridged(part.hessian[np.ix_(rows, rows)]))
    weights = inverse @ part.linear[rows]
    products = (weights if part.metric is None else weights @ part.metric) @ weights.T
    return RowElimination(inverse, products, channel, size)


class _Elimination:
    """The inverse of H and the fitted weights over the remaining rows, updated with each removal."""

    def __init__(self, part: Quadratic, size: int):
        rows = np.flatnonzero(part.mask[:, 0])
        order = rows[np.argsort(part.atom[rows, 0], kind="stable")]
        channel = part.atom[order, 0]
        self._inverse = np.linalg.inv(ridged(part.hessian[np.ix_(order, order)]))
        self._weights = self._inverse @ part.linear[order]
        self._blocks = [np.flatnonzero(channel == k) for k in range(size)]
        widths = {len(block) for block in self._blocks if len(block)}
        self._even = len(widths) == 1

    def costs(self, selected: np.ndarray) -> np.ndarray:
        """The rise of the model with the removal of each channel: `1/2 <W_k, (H^-1)_kk^-1 W_k>`."""
        costs = np.zeros(len(self._blocks))
        with_rows = [k for k in np.flatnonzero(selected) if len(self._blocks[k])]
        for group in [with_rows] if self._even else [[k] for k in with_rows]:
            if group:
                rows = np.stack([self._blocks[k] for k in group])
                weights = self._weights[rows]
                inner = np.linalg.solve(self._inverse[rows[:, :, None], rows[:, None, :]], weights)
                costs[group] = 0.5 * (weights * inner).sum((1, 2))
        return costs

    def remove(self, channel: int) -> None:
        """Sets a channel's weights to zero and refits the others."""
        block = self._blocks[channel]
        if not len(block):
            return
        columns = self._inverse[:, block]
        inner = np.linalg.inv(self._inverse[np.ix_(block, block)])
        self._weights -= columns @ (inner @ self._weights[block])
        self._inverse -= columns @ (inner @ columns.T)
        # Rounding leaves residues where zeros belong.
        self._weights[block] = 0
        self._inverse[block] = 0
        self._inverse[:, block] = 0


def ridge_for(rows: int, positions: int) -> float:
    """The strength of a ridge toward the trained kernel for so many inputs and rows of data.

    Cross-validation would ask for two Gram matrices a layer at once; these are about what it finds.
    """
    return float(np.clip(0.1 * rows / positions, 1e-4, 0.1))


def ridged(matrix: np.ndarray) -> np.ndarray:
    """Adds a small ridge, so that a singular Gram matrix (dead channels) can be inverted."""
    matrix = matrix.copy()
    matrix[np.diag_indices_from(matrix)] += _RIDGE * np.trace(matrix) / max(len(matrix), 1) + 1e-30
    return matrix
