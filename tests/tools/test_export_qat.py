"""`export --quantization=qat`: trains before it converts."""

import json

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tool_inputs import plain_model

from dcp_tf import tflite
from dcp_tf.tools import export


def run(folder, *flags):
    return export.run([f"--output_dir={folder}", "--quantization=qat", "--qat_batch_size=32", *flags])


def record(folder, name):
    return json.loads((folder / "export.json").read_text())["files"][name]


def test_a_qat_file_is_trained_and_integer(inputs, tmp_path, capsys):
    assert run(tmp_path, inputs.residual, inputs.data(), "--int8_io=int8", "--strict") == 0
    found = record(tmp_path, "residual_qat_io8.tflite")
    assert found["quantization"] == "qat"
    assert found["float_operations"] == []
    assert found["top1_agreement"] > 0.9
    assert tflite.inspect(tmp_path / "residual_qat_io8.tflite").inputs[0].type == "INT8"
    assert "qat 1/1  loss" in capsys.readouterr().err


def test_kernels_that_were_pruned_are_zero_in_the_file(tmp_path, inputs):
    model = plain_model()
    kernel = model.get_layer("second").kernel
    mask = np.random.default_rng(0).random(kernel.shape[2:]) < 0.5
    kernel.assign(kernel * mask)
    model.save(tmp_path / "sparse.keras")
    assert run(tmp_path, f"--model={tmp_path / 'sparse.keras'}", inputs.data(), "--qat_lr=0.01") == 0
    file = Interpreter(str(tmp_path / "sparse_qat.tflite"), experimental_preserve_all_tensors=True)
    file.allocate_tensors()
    (index,) = (t["index"] for t in file.get_tensor_details() if tuple(t["shape"]) == (8, 3, 3, 8))
    assert np.array_equal(file.get_tensor(index).any(axis=(1, 2)).T, mask)


def test_bad_flags_get_one_line(inputs, tmp_path, capsys):
    assert run(tmp_path, inputs.plain, inputs.data(), "--qat_lr=0") == 2
    assert "--qat_lr must be above 0" in capsys.readouterr().err
    assert run(tmp_path, inputs.plain, inputs.data(), "--qat_distillation=2") == 2
    assert "--qat_distillation must be 0 to 1" in capsys.readouterr().err


def test_a_loss_that_becomes_nan_names_the_flag(inputs, tmp_path, capsys):
    assert run(tmp_path, inputs.residual, inputs.data(), "--qat_lr=1e30") == 1
    assert "lower --qat_lr" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tflite"))


def test_augmentation_layers_are_left_out(inputs, tmp_path):
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = keras.Sequential([layers.RandomTranslation(0.1, 0.1), layers.RandomRotation(0.1)])(image)
    x = layers.Conv2D(8, 3, activation="relu")(layers.RandomContrast(0.2)(x))
    keras.Model(image, layers.Dense(4)(layers.Flatten()(x)), name="shifted").save(tmp_path / "shifted.keras")
    assert run(tmp_path, f"--model={tmp_path}/shifted.keras", inputs.data(), "--strict") == 0
    found = record(tmp_path, "shifted_qat.tflite")
    assert found["operations"].keys() == {"QUANTIZE", "CONV_2D", "RESHAPE", "FULLY_CONNECTED", "DEQUANTIZE"}
    assert found["top1_agreement"] > 0.9
