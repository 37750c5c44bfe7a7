"""`export`: files of several modes, what it prints and writes of each, and when it fails."""

import importlib.util
import json

import numpy as np
import pytest
from tool_inputs import detector

from dcp_tf import tflite
from dcp_tf.tools import export


@pytest.fixture
def soft(tmp_path):
    """The flag of a model with an ELU, for which TFLite has no integer kernel."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = layers.ELU(name="soft")(layers.Conv2D(8, 3, name="first")(image))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, name="second")(x))
    path = tmp_path / "soft.keras"
    keras.Model(image, layers.Dense(4, name="classes")(x), name="soft").save(path)
    return f"--model={path}"


def report(folder):
    return json.loads((folder / "export.json").read_text())


def test_several_modes_at_once_are_described_and_named(inputs, tmp_path, capsys):
    modes = ("float32", "float16", "dynamic", "int8", "int16x8")
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", f"--quantization={','.join(modes)}"]
    assert export.run(flags) == 0
    found = report(tmp_path)["files"]
    assert list(found) == [f"residual_{mode}.tflite" for mode in modes]
    for mode, (name, record) in zip(modes, found.items(), strict=True):
        file = tflite.inspect(tmp_path / name)
        assert record["quantization"] == mode
        assert record["bytes"] == file.size
        assert record["operations"] == file.operations
        assert record["tensor_types"] == file.tensor_types
        assert record["macs"] == record["keras_macs"] > 0
        assert record["snr_db"] > 20
        assert record["samples"] == 80
        assert record["float_operations"] == record["conversions"] == []
        about = tflite.read_metadata(tmp_path / name)
        assert about.labels == ("0", "1", "2", "3")
        assert (about.model, about.normalization, about.outputs) == ("residual", "none", "probabilities")
    printed = capsys.readouterr().out
    for text in ("residual_int16x8.tflite", "CONV_2D", "INT16", "SNR", "MACs"):
        assert text in printed


def test_operations_are_compared_with_the_baseline_s_file(inputs, tmp_path, capsys):
    given = [inputs.data(), "--quantization=float32", f"--output_dir={tmp_path}"]
    assert export.run([inputs.residual, *given, "--name=baseline"]) == 0
    assert report(tmp_path)["files"]["baseline_float32.tflite"]["operations_change"] is None
    assert export.run([inputs.residual, *given]) == 0
    assert report(tmp_path)["files"]["residual_float32.tflite"]["operations_change"] == {}
    assert "against the baseline   the same operations" in capsys.readouterr().out
    assert export.run([inputs.plain, *given]) == 0
    assert report(tmp_path)["files"]["plain_float32.tflite"]["operations_change"]["CONV_2D"] == -2
    assert "-2 CONV_2D" in capsys.readouterr().out
    assert export.run([inputs.plain, *given, "--baseline=none"]) == 0
    assert report(tmp_path)["files"]["plain_float32.tflite"]["operations_change"] is None


def test_operations_left_in_float_are_listed_and_with_strict_refused(soft, inputs, tmp_path, capsys):
    flags = [soft, inputs.data(), f"--output_dir={tmp_path}", "--quantization=int8"]
    assert export.run(flags) == 0
    record = report(tmp_path)["files"]["soft_int8.tflite"]
    assert any(line.startswith("ELU") for line in record["float_operations"])
    assert [line.split(" (")[0] for line in record["conversions"]] == [
        "DEQUANTIZE INT8 to FLOAT32",
        "QUANTIZE FLOAT32 to INT8",
    ]
    printed = capsys.readouterr()
    assert "left in float" in printed.out
    assert "soft_int8.tflite: left in float, without an integer kernel" in printed.err
    (tmp_path / "soft_int8.tflite").unlink()
    assert export.run([*flags, "--strict"]) == 1
    assert "ELU" in capsys.readouterr().err
    assert not (tmp_path / "soft_int8.tflite").exists()
    assert "ELU" in report(tmp_path)["failures"][0]


def test_a_file_that_is_too_far_off_is_not_written_and_its_first_faulty_layer_is_named(
    inputs, tmp_path, capsys, monkeypatch
):
    convert = tflite.convert

    def spoiled(model, *arguments, **settings):
        file = convert(model, *arguments, **settings)
        layer = model.get_layer("wide")
        layer.bias.assign(np.asarray(layer.bias) + 5.0)
        return file

    monkeypatch.setattr(tflite, "convert", spoiled)
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", "--quantization=float32"]
    assert export.run(flags) == 1
    assert "layer 'wide' (CONV_2D)" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tflite"))


def test_sparse_says_whether_a_phone_will_skip_the_zeros(inputs, tmp_path, capsys):
    import keras

    model = keras.models.load_model(inputs.residual.removeprefix("--model="))
    for layer in model.layers:
        if "Conv" in type(layer).__name__:
            kernel = np.array(layer.kernel)
            kernel[:, :, np.random.default_rng(0).random(kernel.shape[2:]) < 0.8] = 0
            layer.kernel.assign(kernel)
    model.save(tmp_path / "zeros.keras")
    given = [inputs.data(), "--quantization=sparse"]
    assert export.run([f"--model={tmp_path}/zeros.keras", *given]) == 0
    record = report(tmp_path)["files"]["zeros_sparse.tflite"]
    assert record["sparse_inference"]["accepted"] is False
    assert record["sparse_inference"]["blockers"]
    assert "sparse kernels on Arm" in capsys.readouterr().out
    assert export.run([inputs.residual, *given, f"--output_dir={tmp_path}"]) == 1
    assert "too few zeros" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ai_edge_quantizer") is not None, reason="it is installed")
def test_weight_only_without_its_package_is_bad_usage(inputs, tmp_path, capsys):
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", "--quantization=float32,weight_only_int4"]
    assert export.run(flags) == 2
    assert "pip install 'dcp_tf[edge]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.tflite"))


def test_an_unknown_mode_is_bad_usage(inputs, tmp_path, capsys):
    assert export.run([inputs.residual, inputs.data(), f"--output_dir={tmp_path}", "--quantization=int7"]) == 2
    assert "int16x8" in capsys.readouterr().err


def test_outputs_of_several_kinds_are_exported(inputs, tmp_path):
    path = tmp_path / "detector.keras"
    detector().save(path)
    flags = [f"--model={path}", inputs.data(), f"--output_dir={tmp_path}", "--quantization=float32,int8"]
    assert export.run(flags) == 0
    assert list(report(tmp_path)["files"]) == ["detector_float32.tflite", "detector_int8.tflite"]
    assert len(tflite.inspect(tmp_path / "detector_float32.tflite").outputs) == 2
