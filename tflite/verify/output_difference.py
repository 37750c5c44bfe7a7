"""How far one output of a file is from that of its model, over any number of batches."""

import numpy as np


class OutputDifference:
    """Sums over batches, so that the outputs need not be kept.

    Args:
        absolute: whether errors are absolute, as those of probabilities, whose spread is 1; else they are relative to
            the spread (standard deviation) of the model's outputs.
    """

    def __init__(self, absolute: bool = False):
        self._absolute = absolute
        self._count, self._mean, self._squares, self._peak = 0, 0.0, 0.0, 0.0
        self._largest = self._sum = self._noise = self._signal = 0.0

    def add(self, actual: np.ndarray, expected: np.ndarray) -> None:
        """Takes the outputs of a batch, arrays of one shape."""
        if not expected.size:
            return
        wide = expected.astype(np.float64)
        error = np.abs(actual - wide)
        self._largest = float(np.maximum(self._largest, error.max()))  # keeps NaN
        self._sum += float(error.sum())
        self._noise += float(np.square(error).sum())
        self._signal += float(np.square(wide).sum())
        self._peak = float(np.maximum(self._peak, np.abs(wide).max()))
        # The mean and the squares around it, updated batch by batch: sums of squares alone would cancel.
        count, mean = self._count + wide.size, float(wide.mean())
        step = mean - self._mean
        self._squares += float(np.square(wide - mean).sum()) + step * step * self._count * wide.size / count
        self._mean += step * wide.size / count
        self._count = count

    @property
    def _unit(self) -> float:
        if self._absolute or not self._count:
            return 1.0
        # The floor keeps rounding noise of constant outputs from counting as an error of their spread.
        return max(float(np.sqrt(self._squares / self._count)), 1e-3 * self._peak) or 1.0

    @property
    def largest(self) -> float:
        """The largest error."""
        return self._largest / self._unit

    @property
    def mean(self) -> float:
        """The mean error."""
        return self._sum / max(self._count, 1) / self._unit

    @property
    def snr_db(self) -> float:
        """The energy of the model's outputs over that of the differences, in decibels."""
        from dcp_tf.evaluation import decibels  # here: it imports TensorFlow

        return decibels(self._signal, self._noise)


def mean_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The mean absolute difference relative to the spread of the expected values."""
    difference = OutputDifference()
    difference.add(actual, expected)
    return difference.mean
