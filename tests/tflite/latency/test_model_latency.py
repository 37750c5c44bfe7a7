"""Whole models at chosen widths: what is measured is what surgery makes, once."""

import types

import keras
import pytest

from dcp_tf.graph import ChannelGraph
from dcp_tf.tflite.latency.model_latency import ModelLatency


class BySize:
    """A timer for which a file takes as many milliseconds as it has bytes."""

    machine = "test"

    def __init__(self):
        self.measured = 0

    def measure(self, contents):
        self.measured += 1
        return {name: float(len(content)) for name, content in contents.items()}


@pytest.fixture(scope="module")
def graph():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(64, 3, name="wide")(x)
    x = keras.layers.Conv2D(64, 3, name="next")(x)
    return ChannelGraph(keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))))


TABLE = types.SimpleNamespace(
    baseline_ms=10.0, measurements=types.SimpleNamespace(quantization="float32", threads=1, machine="test")
)


def test_narrower_models_take_their_share_of_the_baseline(graph):
    measured = ModelLatency(graph, TABLE, timer=BySize())
    assert measured({}) == pytest.approx(10.0)
    assert measured({"wide": 64}) == pytest.approx(10.0)
    half, quarter = measured({"wide": 32}), measured({"wide": 16})
    assert 10 > half > quarter > 0


def test_what_was_measured_is_not_measured_again_by_a_resumed_run(graph, tmp_path):
    first, second = BySize(), BySize()
    before = ModelLatency(graph, TABLE, tmp_path / "checks.json", first)({"wide": 16, "next": 8})
    again = ModelLatency(graph, TABLE, tmp_path / "checks.json", second)
    assert again({"next": 8, "wide": 16}) == before
    assert (first.measured, second.measured) == (1, 0)
    assert again({"wide": 16}) != before
