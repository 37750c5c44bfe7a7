import keras
import numpy as np
import pytest
from keras import layers

from dcp_tf.models import takes_raw_pixels


def beginning_with(*steps, dtype="float32"):
    return keras.Sequential([keras.Input((6, 6, 3), dtype=dtype), *steps, layers.Conv2D(4, 3)])


RAW = [
    lambda: beginning_with(layers.Rescaling(1 / 255)),
    lambda: beginning_with(layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)),
    lambda: beginning_with(layers.Rescaling([0.017, 0.017, 0.018])),
    lambda: beginning_with(layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)),
    lambda: beginning_with(layers.Rescaling(1.0), dtype="uint8"),
    lambda: keras.Sequential([keras.Input((6, 6, 3)), beginning_with(layers.Rescaling(1 / 255)), layers.Flatten()]),
]
OTHER = [
    lambda: beginning_with(),
    lambda: beginning_with(layers.Rescaling(2.0, -1)),
    lambda: beginning_with(layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3)),
    lambda: beginning_with(layers.Conv2D(3, 1), layers.Rescaling(1 / 255)),
]


@pytest.mark.parametrize("make", RAW)
def test_a_model_made_for_0_to_255_is_known(make):
    model = make()
    assert takes_raw_pixels(model)
    # What it says is so: the first numbers of white and black pixels are of the order of 1.
    if model.inputs[0].dtype == "float32":
        values = model(np.full((1, 6, 6, 3), 255.0, "float32"))
        assert np.abs(values).max() < 20


@pytest.mark.parametrize("make", OTHER)
def test_other_models_are_left_alone(make):
    assert takes_raw_pixels(make()) is None
