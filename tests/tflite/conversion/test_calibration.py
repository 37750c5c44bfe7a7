"""Calibration reads inputs by their names as well as by their order."""

import keras
import numpy as np
import pytest

from dcp_tf.errors import UsageError
from dcp_tf.tflite.conversion.calibration import calibration_samples


@pytest.fixture(scope="module")
def model():
    last, first = keras.Input((2,), name="zulu"), keras.Input((3,), name="alpha")
    return keras.Model([last, first], keras.layers.Concatenate()([last, first]))


ARRAYS = {"alpha": np.arange(15.0).reshape(5, 3), "zulu": np.arange(10.0).reshape(5, 2)}


@pytest.mark.parametrize(
    "data",
    [
        ARRAYS,
        [ARRAYS["zulu"], ARRAYS["alpha"]],
        [{name: array[:3] for name, array in ARRAYS.items()}, {name: array[3:] for name, array in ARRAYS.items()}],
        [(ARRAYS, np.zeros(5))],
    ],
    ids=["dict", "list", "batches of dicts", "labelled dicts"],
)
def test_names_and_order_give_the_same_samples(model, data):
    samples = list(calibration_samples(model, data)[0])
    assert len(samples) == 5
    np.testing.assert_array_equal(np.concatenate([sample[0] for sample in samples]), ARRAYS["zulu"])
    np.testing.assert_array_equal(np.concatenate([sample[1] for sample in samples]), ARRAYS["alpha"])


def test_unknown_names_are_one_line(model):
    with pytest.raises(UsageError, match="representative_data has the inputs 'alpha', 'yankee'"):
        calibration_samples(model, {"alpha": ARRAYS["alpha"], "yankee": ARRAYS["zulu"]})
