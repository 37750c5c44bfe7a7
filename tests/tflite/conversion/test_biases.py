"""Kernels of integer files take it for granted that a bias has the scale of its input times that of its weights."""

import keras
import numpy as np
import pytest
import tflite_models as nets
from ai_edge_litert import schema_py_generated as schema
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import RunError
from dcp_tf.tflite.conversion.biases import correct_biases, wrong_biases
from dcp_tf.tflite.schema import flatbuffer


def wrong_biases_of(content):
    return list(wrong_biases(flatbuffer.unpack(content)))


def called_three_times(shared):
    """A network whose signals grow from call to call, so that each call has a scale of its own."""
    convolution = layers.Conv2D(8, 3, padding="same", activation="relu", name="shared")
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    for number in range(3):
        x = convolution(x) * 3.0
        if not shared:
            before, convolution = convolution, layers.Conv2D(8, 3, padding="same", activation="relu", name=f"c{number}")
            convolution.build(x.shape)
            convolution.set_weights(before.get_weights())
    model = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    nets.settle(model)
    if not shared:
        weights = model.get_layer("shared").get_weights()
        for number in range(2):
            model.get_layer(f"c{number}").set_weights(weights)
    return model


def rounded_weights(model):
    """The model with its kernels as eight bits per channel hold them: all that an int16x8 file loses on purpose."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        if hasattr(layer, "kernel"):
            kernel = np.array(layer.kernel)
            step = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True) / 127
            layer.kernel.assign(np.round(kernel / step) * step)
    return copy


@pytest.mark.parametrize("shared", [True, False])
def test_equal_biases_of_several_operations_have_the_scale_of_each(shared):
    model, images = called_three_times(shared), nets.images(size=8)
    file = tflite.convert(model, "int16x8", representative_data=images, bias_correction=False)
    assert wrong_biases_of(file.content) == []
    parity = tflite.check_parity(file, rounded_weights(model), images)
    assert parity.snr_db > 50  # 13 with the converter's own biases
    assert parity.top1_agreement == 1


def shrunk_bias(content):
    """The file with the bias of its first convolution in a quarter of the scale, so in four times the numbers."""
    model = flatbuffer.unpack(content)
    graph = model.subgraphs[0]
    names = [flatbuffer.code_name(model.operatorCodes[operator.opcodeIndex]) for operator in graph.operators]
    bias = graph.tensors[graph.operators[names.index("CONV_2D")].inputs[2]]
    stored = np.frombuffer(np.asarray(model.buffers[bias.buffer].data, np.uint8).tobytes(), np.int32)
    model.buffers[bias.buffer] = schema.BufferT(data=np.frombuffer((4 * stored).tobytes(), np.uint8))
    bias.quantization.scale = np.asarray(bias.quantization.scale, np.float32) / 4
    return flatbuffer.pack(model)


@pytest.fixture(scope="module")
def int8():
    return tflite.convert(nets.sequential(), "int8", representative_data=nets.images())


def test_a_bias_in_another_scale_is_seen_and_put_right(int8):
    broken = shrunk_bias(int8.content)
    (wrong,) = wrong_biases_of(broken)
    assert wrong.name.startswith("CONV_2D (")
    repaired = correct_biases(broken)
    assert wrong_biases_of(repaired) == []
    outputs = [tflite.Runner(tflite.TFLiteFile(c, int8.quantization)) for c in (int8.content, broken, repaired)]
    expected, spoiled, found = (runner.predict(nets.images()) for runner in outputs)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(spoiled - expected).max() > 0.05


def test_a_file_with_right_biases_stays_byte_for_byte(int8):
    assert correct_biases(int8.content) is int8.content


def test_a_bias_without_a_scale_is_refused_by_name(int8):
    model = flatbuffer.unpack(shrunk_bias(int8.content))
    graph = model.subgraphs[0]
    bias = graph.tensors[graph.operators[wrong_biases_of(flatbuffer.pack(model))[0].operation].inputs[2]]
    bias.quantization.scale = None
    with pytest.raises(RunError, match=r"bias of CONV_2D \("):
        correct_biases(flatbuffer.pack(model))


@pytest.mark.parametrize(("name", "mode"), nets.quick("mobile", "squeeze_prelu", among=nets.NETWORKS, beside="int16x8"))
def test_every_bias_of_every_network_fits_its_operation(name, mode):
    data = nets.images()
    file = tflite.convert(nets.NETWORKS[name](), mode, representative_data=data, allow_float=True)
    assert wrong_biases_of(file.content) == []
