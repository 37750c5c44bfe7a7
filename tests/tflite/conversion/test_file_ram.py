"""The predicted activation memory of a file, against the plan of the real one, at full and other widths."""

import keras
import numpy as np
import pytest

from dcp_tf import models, tflite
from dcp_tf.graph import ChannelGraph
from dcp_tf.tflite.conversion.file_ram import FileRam, ram_of

NETS = {
    "resnet8": lambda: models.resnet8((16, 16, 3)),
    "mobilenet_v1_025": lambda: models.mobilenet_v1_025((48, 48, 3)),
    "autoencoder": models.autoencoder,
}


@pytest.mark.parametrize("name", NETS)
def test_the_prediction_is_near_the_plan(name):
    keras.utils.set_random_seed(0)
    graph = ChannelGraph(NETS[name]())
    samples = np.random.default_rng(0).random((2, *graph.trace.model.input_shape[1:]), dtype="float32")

    def size(model, mode):
        return ram_of(tflite.convert(model, mode, representative_data=samples, io="int8", bias_correction=False))

    ram = FileRam(graph, "int8", size, "int8")
    assert ram.predict({}) == pytest.approx(ram.full)
    assert ram._scale == pytest.approx(1, abs=0.1)  # the tensors of the file are those of the layers
    widths = {group.name: max(1, group.size // 3) for group in graph.prunable(False)}
    assert ram.predict(widths) == pytest.approx(ram.measure(widths), rel=0.1)
