import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers, ops
from test_biases import wrong_biases_of

from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError


@pytest.fixture(scope="module", params=list(nets.NETWORKS))
def network(request):
    keras.utils.set_random_seed(0)
    return nets.NETWORKS[request.param]()


def test_float32_file_equals_keras_and_has_only_the_model_s_operations(network):
    file = tflite.convert(network)
    parity = tflite.check_parity(file, network, nets.images())
    assert parity.max_error < 1e-4
    assert parity.top1_agreement == 1.0
    found = tflite.inspect(file)
    assert set(found.tensor_types) <= {"FLOAT32", "INT32"}
    strays = {"TRANSPOSE", "GATHER", "SHAPE", "PACK", "STRIDED_SLICE", "RSQRT", "SUB", "CAST", "VAR_HANDLE"}
    assert not strays & set(found.operations)
    kinds = [layer for layer in network._flatten_layers() if type(layer).__name__ in ("Conv2D", "SeparableConv2D")]
    assert found.operations["CONV_2D"] == len(kinds)
    assert found.operations.get("MUL", 0) <= 2  # a BatchNorm that was not folded would be a MUL and an ADD
    require_all_shapes_fixed(found)


def require_all_shapes_fixed(found):
    for tensor in (*found.inputs, *found.outputs):
        assert tensor.shape[0] == 1
        assert all(size > 0 for size in tensor.shape)


@pytest.mark.parametrize("io", ["float", "int8"])
def test_int8_file_is_integer_throughout_and_stays_near_keras(network, io):
    file = tflite.convert(network, "int8", representative_data=nets.images(64), io=io)
    found = tflite.inspect(file)
    assert found.float_operations == []
    assert wrong_biases_of(file.content) == []
    outside = 2 if io == "float" else 0
    assert found.tensor_types.get("FLOAT32", 0) == outside
    assert set(found.tensor_types) <= {"INT8", "INT32", "FLOAT32"}
    expected = "FLOAT32" if io == "float" else "INT8"
    assert [tensor.type for tensor in (*found.inputs, *found.outputs)] == [expected, expected]
    parity = tflite.check_parity(file, network, nets.images())
    assert parity.mean_error < 0.1
    tflite.check_tolerance(parity, "int8")


def test_int8_weights_take_a_quarter_of_the_bytes():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(8)(layers.Dense(4000)(inputs)))
    data = np.random.default_rng(0).random((16, 8), np.float32)
    ratio = len(tflite.convert(model, "int8", representative_data=data).content) / len(tflite.convert(model).content)
    assert ratio < 0.6  # the biases stay 32 bits wide, and the scales of 4000 channels are stored


def test_int8_weights_are_quantized_per_channel():
    from ai_edge_litert.interpreter import Interpreter

    file = tflite.convert(nets.residual(), "int8", representative_data=nets.images())
    interpreter = Interpreter(model_content=file.content)
    filters = [
        detail
        for detail in interpreter.get_tensor_details()
        if len(detail["shape"]) == 4 and len(detail["quantization_parameters"]["scales"]) > 1
    ]
    assert len(filters) == 6
    assert all(len(detail["quantization_parameters"]["scales"]) == detail["shape"][0] for detail in filters)


def test_several_inputs_and_outputs_keep_the_order_of_the_model():
    left = keras.Input((8, 8, 3), name="zulu")
    right = keras.Input((4,), name="alpha")
    x = layers.Conv2D(4, 3, activation="relu", name="shared")(left)
    outputs = [
        layers.Dense(width, name=name)(layers.Concatenate()([layers.Flatten()(x), right]))
        for width, name in zip(range(2, 14), "qwertzuiopas", strict=True)
    ]
    model = nets.settle(keras.Model([left, right], outputs))
    random = np.random.default_rng(0)
    data = [random.random((6, 8, 8, 3), np.float32), random.random((6, 4), np.float32)]
    for file in (
        tflite.convert(model),
        tflite.convert(model, "int8", representative_data=data),
        tflite.convert(model, "int8", representative_data=[([a[:3], b[:3]], [0, 1, 2]) for a, b in [data]], io="int8"),
    ):
        results = tflite.Runner(file).predict(data)
        assert [result.shape for result in results] == [(6, width) for width in range(2, 14)]
        assert tflite.check_parity(file, model, data).mean_error < (1e-4 if file.quantization == "float32" else 0.2)


def test_inputs_in_a_dictionary():
    first, second = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    total = layers.Concatenate()([layers.Dense(3)(second), first])
    model = keras.Model({"second": second, "first": first}, {"out": layers.Dense(2)(total)})
    random = np.random.default_rng(0)
    data = [random.random((5, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
    assert tflite.check_parity(tflite.convert(model), model, data).max_error < 1e-4


@pytest.mark.parametrize("kind", ["array", "batches", "labelled", "dataset"])
def test_representative_data_may_come_in_any_usual_form(kind):
    import tensorflow as tf

    model, data = nets.sequential(), nets.images(20)
    forms = {
        "array": data,
        "batches": (data[start : start + 8] for start in range(0, 20, 8)),
        "labelled": [(data[:10], np.zeros(10)), (data[10:], np.zeros(10))],
        "dataset": tf.data.Dataset.from_tensor_slices((data, np.zeros(20))).batch(6),
    }
    expected = tflite.Runner(tflite.convert(model, "int8", representative_data=data)).predict(data)
    found = tflite.Runner(tflite.convert(model, "int8", representative_data=forms[kind])).predict(data)
    np.testing.assert_array_equal(found, expected)


def test_an_endless_iterable_is_cut_and_a_long_array_is_sampled_evenly():
    model = nets.sequential()

    def endless():
        while True:
            yield nets.images(64)

    assert tflite.convert(model, "int8", representative_data=endless()).quantization == "int8"
    # Sorted data: the bright half comes last, and its range must be known to the file.
    data = np.concatenate([np.zeros((2000, nets.SIZE, nets.SIZE, 3), np.float32), 5 * nets.images(2000)])
    file = tflite.convert(model, "int8", representative_data=data)
    assert tflite.check_parity(file, model, data[-64:]).mean_error < 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"quantization": "int9"}, "float32, float16, dynamic, dynamic_int4, int8"),
        ({"quantization": "int8"}, "representative_data"),
        ({"quantization": "int8", "representative_data": np.zeros((4, 7, 7, 3), np.float32)}, "16, 16, 3"),
        ({"quantization": "int8", "representative_data": np.zeros((0, 16, 16, 3), np.float32)}, "empty"),
        ({"quantization": "int8", "representative_data": []}, "empty"),
        ({"quantization": "int8", "representative_data": 3}, "iterable"),
        ({"quantization": "int8", "representative_data": np.full((4, 16, 16, 3), np.nan, np.float32)}, "NaN"),
        ({"quantization": "int8", "representative_data": nets.images(4), "io": "uint8"}, "io must be"),
        ({"io": "int8"}, "io='int8' is for"),
        ({"quantization": "int16x8", "representative_data": nets.images(4), "io": "int8"}, "io='int8' is for"),
        ({"quantization": "dynamic", "representative_data": nets.images(4)}, "measures no ranges"),
        ({"quantization": "int16x8"}, "representative_data"),
        ({"quantization": "sparse"}, "too few zeros"),
    ],
)
def test_wrong_arguments_get_one_clear_line(arguments, words):
    with pytest.raises(UsageError, match=words) as caught:
        tflite.convert(nets.sequential(), **arguments)
    assert "\n" not in str(caught.value)


def test_a_bad_sample_in_the_middle_is_a_usage_error():
    batches = [nets.images(4), nets.images(4)[:, :8]]
    with pytest.raises(UsageError, match="8, 16, 3"):
        tflite.convert(nets.sequential(), "int8", representative_data=batches)


def test_models_that_cannot_be_converted_are_refused():
    class Subclassed(keras.Model):
        pass

    open_size = keras.Input((None, None, 3))
    for model, words in (
        ("model.keras", "Keras model"),
        (Subclassed(), "functional"),
        (keras.Sequential([layers.Dense(3)]), "functional"),
        (keras.Model(open_size, layers.Conv2D(2, 1)(open_size)), "fixed"),
    ):
        with pytest.raises(UsageError, match=words):
            tflite.convert(model)


def test_an_operation_without_a_kernel_is_named():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.ops.erfinv(layers.Conv2D(2, 3)(inputs) * 0.1))
    for arguments in ({}, {"quantization": "int8", "representative_data": nets.images(4, size=8)}):
        with pytest.raises(RunError, match="Erfinv") as caught:
            tflite.convert(model, **arguments)
        assert "\n" not in str(caught.value)


def test_an_operation_left_in_float_in_an_int8_file_is_named():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.ELU()(layers.Conv2D(2, 3)(inputs))))
    with pytest.raises(RunError, match="ELU"):
        tflite.convert(model, "int8", representative_data=nets.images(4, size=8))
    assert tflite.convert(model).quantization == "float32"


def test_nothing_is_said(capfd):
    model = nets.mobile()
    capfd.readouterr()
    for file in (tflite.convert(model), tflite.convert(model, "int8", representative_data=nets.images())):
        tflite.Runner(file).predict(nets.images(2))
        tflite.inspect(file)
    inputs = keras.Input((4,))
    refused = keras.Model(inputs, keras.ops.erfinv(inputs))
    with pytest.raises(RunError):
        tflite.convert(refused)
    assert capfd.readouterr() == ("", "")


def test_converting_leaves_the_model_as_it_was():
    model = nets.residual()
    before = [np.array(weight) for weight in model.weights]
    expected = np.asarray(model(nets.images(), training=False))
    tflite.convert(model, "int8", representative_data=nets.images())
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(model(nets.images(), training=False), expected)


def test_saving_is_atomic(tmp_path, monkeypatch):
    file = tflite.convert(nets.sequential())
    saved = file.save(tmp_path / "deep" / "model.tflite")
    assert saved.path.read_bytes() == file.content
    assert [path.name for path in saved.path.parent.iterdir()] == ["model.tflite"]

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    other = tflite.TFLiteFile(content=b"other", quantization=tflite.Quantization.FLOAT32)
    with pytest.raises(RunError, match="No space left"):
        other.save(saved.path)
    assert saved.path.read_bytes() == file.content
    assert [path.name for path in saved.path.parent.iterdir()] == ["model.tflite"]


def _doubled_step_by_step(inputs):
    steps = ops.map(lambda step: 2 * step + 1, ops.transpose(inputs, (1, 0, 2)))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(ops.transpose(steps, (1, 0, 2)))))


def _inside_another_model(inputs):
    inside = keras.Sequential([keras.Input((6, 4)), layers.LSTM(5, name="memory")])
    return keras.Model(inputs, layers.Dense(2)(inside(inputs)))


@pytest.mark.parametrize(
    ("build", "name", "mode"),
    [
        (_inside_another_model, "memory", "int8"),
        (_inside_another_model, "memory", "int16x8"),
        (lambda x: keras.Model(x, layers.Bidirectional(layers.GRU(3), name="both")(x)), "both", "int8"),
        (lambda x: keras.Model(x, layers.TimeDistributed(layers.LSTM(3), name="each")(x[..., None])), "each", "int8"),
        (_doubled_step_by_step, "map", "int8"),
    ],
)
def test_loops_are_refused_where_their_calibration_would_end_the_process(build, name, mode):
    model = build(keras.Input((6, 4)))
    data = np.zeros((4, 6, 4), "float32")
    with pytest.raises(RunError, match=rf"cannot calibrate the loops .*{name}.* for {mode}; choose float32"):
        tflite.convert(model, mode, representative_data=data)


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
def test_recurrent_layers_that_are_unrolled_have_no_loop(kind, mode):
    inputs = keras.Input((6, 4))
    layer = getattr(layers, kind)(8, unroll=True)
    model = nets.settle(keras.Model(inputs, layers.Dense(3)(layers.Bidirectional(layer)(inputs))))
    data = np.random.default_rng(0).normal(size=(40, 6, 4)).astype("float32")
    file = tflite.convert(model, mode, representative_data=data, allow_float=True)
    assert tflite.unsupported_operations(file) == []
    assert tflite.check_parity(file, model, data).snr_db > 30


def test_whole_numbers_as_inputs_of_int16x8_are_refused_in_words():
    words = keras.Input((6,), dtype="int32")
    model = keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(9, 4)(words))))
    data = np.arange(48).reshape(8, 6).astype("int32") % 9
    with pytest.raises(RunError, match=r"inputs of whole numbers in int16x8\)"):
        tflite.convert(model, "int16x8", representative_data=data)
    assert tflite.inspect(tflite.convert(model, "int8", representative_data=data)).float_operations == []


def test_half_floats_are_refused_by_the_name_of_their_policy():
    image = keras.Input((6, 6, 3))
    model = keras.Model(image, layers.Conv2D(4, 3, dtype="mixed_float16")(image))
    with pytest.raises(RunError, match=r"computes in float16 .mixed precision.* float32"):
        tflite.convert(model)


@pytest.mark.slow
def test_mobilenet_v2():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))
    data = nets.images(8, size=96)
    file = tflite.convert(model)
    found = tflite.inspect(file)
    assert found.operations == {
        "CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1,
    }  # fmt: skip
    assert tflite.check_parity(file, model, data, outputs="probabilities").max_error < 1e-5
    int8 = tflite.convert(model, "int8", representative_data=data)
    assert tflite.inspect(int8).macs == found.macs
    assert len(int8.content) < 0.3 * len(file.content)
