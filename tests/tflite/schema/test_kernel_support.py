"""Operations without a kernel are found by running the file."""

import keras
import pytest
import tflite_models as nets
from keras import layers, ops

from dcp_tf import tflite
from dcp_tf.errors import UsageError
from dcp_tf.tflite.schema.kernel_support import outside_xnnpack


@pytest.mark.parametrize("mode", ["float32", "float16", "int8", "int16x8"])
def test_a_file_that_runs_has_none(mode):
    data = {"representative_data": nets.images()} if mode.startswith("int") else {}
    assert tflite.unsupported_operations(tflite.convert(nets.residual(), mode, **data)) == []


def test_every_operation_without_a_kernel_is_named_with_its_tensor():
    x = inputs = keras.Input((8, 8, 3))
    for number in range(2):
        x = layers.Conv2D(4, 3, name=f"conv{number}")(x)
        x = ops.square(x - ops.mean(x, -1, keepdims=True))
    data = nets.images(size=8)
    file = tflite.convert(keras.Model(inputs, x), "int16x8", representative_data=data, allow_float=True)
    found = tflite.unsupported_operations(file)
    assert [line.split()[0] for line in found] == ["SQUARED_DIFFERENCE"] * 2
    assert found[0].split(")")[0] != found[1].split(")")[0]
    assert all("only supports" in line and "\n" not in line for line in found)


def test_a_file_that_holds_no_model_is_a_usage_error(tmp_path):
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(UsageError, match="not a TFLite model"):
        tflite.unsupported_operations(tmp_path / "text.tflite")


def test_operations_that_xnnpack_does_not_take_are_counted():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same")(x)
    y = layers.Conv2D(4, 3)(keras.ops.cumsum(keras.ops.cumsum(y, axis=1), axis=2))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    assert outside_xnnpack(tflite.convert(model)) == {"CUMSUM": 2}
    plain = keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 3)(x))))
    data = nets.images(size=8)
    assert outside_xnnpack(tflite.convert(plain)) == {}
    assert outside_xnnpack(tflite.convert(plain, "int8", representative_data=data)) == {}
    wide = outside_xnnpack(tflite.convert(plain, "int16x8", representative_data=data))
    assert wide["CONV_2D"] == wide["FULLY_CONNECTED"] == 1
