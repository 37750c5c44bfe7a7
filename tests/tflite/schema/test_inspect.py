import keras
import numpy as np
import pytest
import tflite_models as nets
from keras import layers

from dcp_tf import tflite
from dcp_tf.errors import UsageError


def macs_of(build, shape):
    inputs = keras.Input(shape)
    return tflite.count_macs(tflite.convert(keras.Model(inputs, build(inputs))))


@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        (layers.Conv2D(7, 3, padding="same"), (10, 12, 5), 10 * 12 * 7 * 3 * 3 * 5),
        (layers.Conv2D(7, (3, 5), strides=2), (11, 11, 5), 5 * 4 * 7 * 3 * 5 * 5),
        (layers.Conv2D(8, 3, groups=4), (10, 10, 12), 8 * 8 * 8 * 3 * 3 * 3),
        (layers.Conv2D(4, 3, dilation_rate=2), (9, 9, 3), 5 * 5 * 4 * 3 * 3 * 3),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (10, 10, 6), 8 * 8 * 12 * 3 * 3),
        (layers.SeparableConv2D(7, 3), (10, 10, 6), 8 * 8 * 6 * 9 + 8 * 8 * 6 * 7),
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same"), (5, 7, 4), 5 * 7 * 4 * 3 * 3 * 6),
        (layers.Dense(9), (13,), 13 * 9),
        (layers.Dense(9), (4, 4, 13), 16 * 13 * 9),
        (lambda x: layers.Dot(axes=(2, 2))([x, x]), (6, 8), 6 * 6 * 8),
        (layers.MaxPooling2D(), (8, 8, 3), 0),
    ],
)
def test_macs_equal_the_hand_formula(build, shape, macs):
    assert macs_of(build, shape) == macs


def test_macs_do_not_depend_on_the_quantization():
    model = nets.mobile()
    int8 = tflite.convert(model, "int8", representative_data=nets.images(), io="int8")
    assert tflite.count_macs(int8) == tflite.count_macs(tflite.convert(model)) > 0


def test_inspection_describes_the_file(tmp_path):
    file = tflite.convert(nets.residual()).save(tmp_path / "a.tflite")
    found = tflite.inspect(file.path)
    assert found == tflite.inspect(file)
    assert found.size == file.path.stat().st_size
    assert [tensor.shape for tensor in found.inputs] == [(1, nets.SIZE, nets.SIZE, 3)]
    assert [tensor.shape for tensor in found.outputs] == [(1, nets.CLASSES)]
    assert found.operations["ADD"] == 2
    assert sum(name.startswith("CONV_2D") for name in found.float_operations) == found.operations["CONV_2D"]


@pytest.mark.parametrize("read", [tflite.inspect, tflite.Runner])
def test_files_that_hold_no_model_are_usage_errors(tmp_path, read):
    content = tflite.convert(nets.sequential()).content
    for number, damaged in enumerate((b"", b"no model at all", content[: len(content) // 2], content[:8] * 40)):
        path = tmp_path / f"damaged{number}.tflite"
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=f"damaged{number}"):
            read(path)
    with pytest.raises(UsageError, match=r"missing\.tflite"):
        read(tmp_path / "missing.tflite")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path)


def test_importing_the_package_loads_no_tensorflow():
    import subprocess
    import sys

    import dcp_tf

    code = "import sys, dcp_tf.tflite; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'rich')))"
    subprocess.run([sys.executable, "-c", code], cwd=dcp_tf.__path__[0] + "/..", check=True)


def test_float_tensors_are_the_only_ones_called_float():
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, inputs + 1)
    found = tflite.inspect(tflite.convert(model))
    assert found.float_operations == []
    assert tflite.Runner(tflite.convert(model)).predict(np.zeros((2, 4), np.int32)).tolist() == [[1.0] * 4] * 2


def test_conversions_in_the_middle_are_listed_and_those_at_the_border_are_not():
    inputs = keras.Input((nets.SIZE, nets.SIZE, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(layers.ELU(name="soft")(layers.Conv2D(2, 3)(inputs))))
    data = nets.images()
    found = tflite.inspect(tflite.convert(model, "int8", representative_data=data, allow_float=True))
    assert [text.partition(" (")[0] for text in found.conversions] == [
        "DEQUANTIZE INT8 to FLOAT32",
        "QUANTIZE FLOAT32 to INT8",
    ]
    assert tflite.inspect(tflite.convert(nets.residual(), "int8", representative_data=data)).conversions == []
    # A DEQUANTIZE that unpacks a weight converts no activation.
    assert tflite.inspect(tflite.convert(model, "float16")).conversions == []


def test_the_difference_of_two_files_is_what_one_has_more():
    data = nets.images()
    plain, other = tflite.inspect(tflite.convert(nets.mobile())), tflite.inspect(tflite.convert(nets.residual()))
    assert plain.difference(plain) == {}
    there, back = plain.difference(other), other.difference(plain)
    assert there == {"ADD": -1, "CONV_2D": -3, "DEPTHWISE_CONV_2D": 1}
    assert back == {name: -count for name, count in there.items()}
    int8 = tflite.inspect(tflite.convert(nets.mobile(), "int8", representative_data=data))
    assert int8.difference(plain) == {"DEQUANTIZE": 1, "QUANTIZE": 1}
