import numpy as np
import pytest

from dcp_tf.evaluation import fidelity

RNG = np.random.default_rng(0)


def compared(outputs, expected, decide=None):
    batches = np.split(np.arange(len(outputs)), 4)
    return fidelity(lambda positions: outputs[positions], batches, expected, decide)


def test_equal_outputs_are_as_near_as_can_be():
    outputs = RNG.normal(size=(40, 6)).astype("float32")
    measured = compared(outputs, outputs, lambda x: x.argmax(-1))
    assert measured == {"baseline_agreement": 1, "baseline_r2": 1, "baseline_mse": 0, "baseline_cosine": 1}


@pytest.mark.parametrize("shape", [(40, 6), (40, 5, 5, 3), (40, 1)])
def test_figures_are_what_they_are_called(shape):
    expected = RNG.normal(1, 1, shape).astype("float32")
    outputs = (expected + RNG.normal(0, 0.1, shape)).astype("float32")
    measured = compared(outputs, expected, lambda x: x > 1)
    error = np.square(outputs - expected)
    assert measured["baseline_mse"] == pytest.approx(error.mean(), rel=1e-4)
    assert measured["baseline_r2"] == pytest.approx(1 - error.mean() / expected.var(), abs=2e-3)
    assert measured["baseline_snr_db"] == pytest.approx(
        10 * np.log10(np.square(expected).sum() / error.sum()), abs=1e-3
    )
    assert measured["baseline_agreement"] == np.mean((outputs > 1) == (expected > 1))
    assert ("baseline_cosine" in measured) is (shape == (40, 6))


def test_constants_have_no_r2():
    assert "baseline_r2" not in compared(np.zeros((8, 2), np.float32), np.ones((8, 2), np.float32))
