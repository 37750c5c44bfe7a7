"""How close a model's outputs are to those of its baseline: metrics without labels."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from dcp_tf.evaluation import verification
from dcp_tf.evaluation.tasks import measure_regression


def fidelity(
    predict: Callable, images: Iterable[np.ndarray], expected: np.ndarray, decide: Callable | None = None
) -> dict[str, float]:
    """Compares outputs with those of another model for the same images.

    Args:
        predict: from images to outputs.
        images: batches.
        expected: (N, ...), the other model's outputs.
        decide: maps outputs to answers, or to None if they have none.

    Returns:
        `baseline_agreement`, the fraction of equal answers; `baseline_r2` and `baseline_mse`; `baseline_snr_db`, the
        energy of the other's outputs over that of the differences; for vectors `baseline_cosine`, the mean over the
        images. Undefined metrics, such as R2 of constants, are left out.
    """
    outputs = np.concatenate([np.asarray(predict(batch), np.float32) for batch in images])
    measured: dict[str, float] = {}
    answers = (None, None) if decide is None else (decide(outputs), decide(expected))
    if answers[0] is not None:
        measured["baseline_agreement"] = float(np.mean(answers[0] == answers[1]))
    errors = measure_regression(lambda positions: outputs[positions], [(np.arange(len(outputs)), expected)])
    measured |= {f"baseline_{name}": errors[name] for name in ("r2", "mse") if name in errors}
    if expected.ndim == 2 and expected.shape[1] > 1:
        measured["baseline_cosine"] = float(cosines(outputs, expected).mean())
    if math.isfinite(ratio := snr_db(outputs, expected)):
        measured["baseline_snr_db"] = ratio
    return measured


def snr_db(outputs: np.ndarray, expected: np.ndarray) -> float:
    """The energy of the expected outputs over that of the differences, in decibels; infinite where none differ."""
    signal = np.square(expected, dtype=np.float64).sum()
    return decibels(signal, np.square(outputs.astype(np.float64) - expected).sum())


def decibels(signal: float, noise: float) -> float:
    """The ratio of two energies in decibels; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def cosines(outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The cosine between the two vectors of each sample, (N,); equal vectors have 1, also where both are zero."""
    return np.where((outputs == expected).all(axis=1), 1.0, verification.cosines(outputs, expected))
