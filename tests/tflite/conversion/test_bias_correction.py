"""Biases that make up for the shift of each channel's mean."""

import keras
import numpy as np
import pytest

from dcp_tf import tflite
from dcp_tf.tflite.conversion.bias_correction import correct_means
from dcp_tf.tflite.schema import flatbuffer
from dcp_tf.tflite.types import Quantization, TFLiteFile

IMAGES = np.random.default_rng(0).random((24, 12, 12, 3), np.float32)
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def coarsen(model):
    """One weight of each channel is large, so that integers round the others coarsely."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, *biases = layer.get_weights()
            kernel = rng.normal(0, 0.05, kernel.shape)
            kernel.reshape(-1, layer.output.shape[-1])[0] = 1
            layer.set_weights([kernel, *biases])


@pytest.fixture(scope="module")
def made():
    """A small network, what its layers give, and its files without and with correction."""
    layers, relu = keras.layers, lambda x: keras.layers.ReLU(6.0)(x)
    inputs = keras.Input((12, 12, 3))
    stem = relu(layers.Conv2D(8, 3, padding="same", strides=2)(inputs))
    depthwise = relu(layers.DepthwiseConv2D(3, padding="same")(stem))
    project = layers.Conv2D(8, 1)(depthwise)
    head = layers.ReLU()(layers.Conv2D(16, 1)(layers.Add()([project, stem])))
    outputs = layers.Dense(4, bias_initializer="ones")(layers.GlobalAveragePooling2D()(head))
    model = keras.Model(inputs, outputs)
    coarsen(model)
    files = [tflite.convert(model, "int8", representative_data=IMAGES, bias_correction=on) for on in (False, True)]
    return model, keras.Model(inputs, [stem, depthwise, project, head, outputs]), *files


def channel_means(file):
    """Of what each operation with weights gives."""
    runner = tflite.Runner(file, keep_tensors=True)
    indices = [tensor.index for tensor in runner.tensors() if tensor.operation in KERNELS]
    return [value.reshape(-1, value.shape[-1]).mean(0) for value in runner.tensor_values(indices, [IMAGES])]


def test_each_layer_has_nearly_the_mean_outputs_of_the_model(made):
    _, layers, plain, corrected = made
    expected = [np.asarray(value).reshape(-1, value.shape[-1]).mean(0) for value in layers(IMAGES)]
    for target, before, after in zip(expected, channel_means(plain), channel_means(corrected), strict=True):
        assert np.abs(after - target).mean() < 0.5 * np.abs(before - target).mean()


def test_the_corrected_file_is_nearer_to_its_model_and_as_large(made):
    model, _, plain, corrected = made
    errors = [tflite.check_parity(file, model, IMAGES, outputs="logits").mean_error for file in (plain, corrected)]
    assert errors[1] < 0.5 * errors[0]
    assert tflite.inspect(corrected).operations == tflite.inspect(plain).operations
    assert abs(len(corrected.content) - len(plain.content)) < 1000


def test_a_layer_whose_weights_are_exact_keeps_its_bias():
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    scaled = layers.DepthwiseConv2D(1)(layers.Conv2D(8, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(scaled))
    coarsen(model)
    biases = []
    for corrects in (False, True):
        file = tflite.convert(model, "int8", representative_data=IMAGES, bias_correction=corrects)
        content = flatbuffer.unpack(file.content)
        graph = content.subgraphs[0]
        reads = {flatbuffer.code_name(content.operatorCodes[o.opcodeIndex]): o.inputs for o in graph.operators}
        tensors = [graph.tensors[reads[name][2]] for name in ("DEPTHWISE_CONV_2D", "CONV_2D")]
        biases.append([bytes(content.buffers[tensor.buffer].data) for tensor in tensors])
    assert biases[0][0] == biases[1][0]
    assert biases[0][1] != biases[1][1]


def test_weights_in_four_bits_lose_less_with_samples(made):
    pytest.importorskip("ai_edge_quantizer", reason="pip install 'dcp_tf[edge]'")
    model = made[0]
    files = [tflite.convert(model, "weight_only_int4", representative_data=data) for data in (None, IMAGES)]
    plain, corrected = (tflite.check_parity(file, model, IMAGES, outputs="logits").mean_error for file in files)
    assert corrected < 0.5 * plain


def test_operations_that_share_a_bias_get_one_each():
    inputs = keras.Input((12, 12, 3))
    twins = [keras.layers.Conv2D(6, 3, name=name)(inputs) for name in ("one", "other")]
    model = keras.Model(inputs, keras.layers.Concatenate()([*twins]))
    coarsen(model)
    options = {"representative_data": IMAGES, "bias_correction": False}
    shared = flatbuffer.unpack(tflite.convert(model, "int8", **options).content)
    first, second = (op for op in shared.subgraphs[0].operators if len(op.inputs) == 3)
    second.inputs = np.array([*second.inputs[:2], first.inputs[2]])
    content = flatbuffer.pack(shared)
    corrected = correct_means(content, tflite.convert(model).content, [[image[None]] for image in IMAGES])
    expected = model(IMAGES).numpy().mean((0, 1, 2))
    before, after = (
        tflite.Runner(TFLiteFile(c, Quantization.INT8)).predict(IMAGES).mean((0, 1, 2)) for c in (content, corrected)
    )
    for channels in (slice(0, 6), slice(6, 12)):
        assert np.abs(after - expected)[channels].mean() < 0.5 * np.abs(before - expected)[channels].mean()


def test_layers_without_a_bias_stay_as_they_are():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(keras.layers.Dense(4)(inputs)))
    samples = np.random.default_rng(0).random((8, 6), np.float32)
    content = tflite.convert(model, "int8", representative_data=samples, io="int8", bias_correction=False).content
    bare = flatbuffer.unpack(content)
    for operator in bare.subgraphs[0].operators:
        operator.inputs = np.array([*operator.inputs[:2], -1], np.int32)
    bare = flatbuffer.pack(bare)
    assert correct_means(bare, tflite.convert(model).content, [[row[None]] for row in samples]) == bare


def test_a_file_that_cannot_be_run_here_is_left_to_the_check(capsys):
    inputs = keras.Input((4, 4, 3))
    dead = keras.layers.Conv2D(2, 1, bias_initializer=keras.initializers.Constant(-100), activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(dead))
    images = IMAGES[:4, :4, :4]
    plain, tried = (tflite.convert(model, "int8", representative_data=images, bias_correction=on) for on in (0, 1))
    assert tried.content == plain.content
    assert "biases are not corrected" in capsys.readouterr().err
