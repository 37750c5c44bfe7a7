"""Files that cannot be made are found before anything is trained."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

from dcp_tf.tools import export, prune


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models for which TFLite lacks something, and data for them."""
    folder, random = tmp_path_factory.mktemp("deployable"), np.random.default_rng(0)
    series, labels = random.random((60, 12, 6)).astype("float32"), np.arange(60) % 4
    volumes = random.random((60, 6, 6, 6, 1)).astype("float32")
    for name, values in (("series", series), ("volumes", volumes)):
        np.savez(
            folder / f"{name}.npz", x_train=values[:40], y_train=labels[:40], x_test=values[40:], y_test=labels[40:]
        )
    steps = keras.Input((12, 6))
    x = layers.Conv1D(8, 3, activation="relu")(steps)
    keras.Model(steps, layers.Dense(4)(layers.GRU(6, name="memory")(x))).save(folder / "recurrent.keras")
    space = keras.Input((6, 6, 6, 1))
    x = layers.MaxPooling3D(name="largest")(layers.Conv3D(8, 3, activation="relu")(space))
    x = layers.Conv3D(8, 1, activation="relu")(x)
    keras.Model(space, layers.Dense(4)(layers.Flatten()(x))).save(folder / "volumes.keras")
    x = layers.Conv1D(4, 3)(layers.Conv1D(8, 3, activation="relu")(steps))
    x = ops.square(x - ops.mean(x, 1, keepdims=True))
    keras.Model(steps, layers.Dense(4)(layers.Flatten()(ops.relu(x)))).save(folder / "deviations.keras")
    return folder


def given(folder, model, data, out, *flags):
    return [f"--model={folder}/{model}.keras", f"--dataset=npz:{folder}/{data}.npz", f"--output_dir={out}", *flags]


SHORT = ("--aux_epochs=1", "--finetune_epochs=1", "--batch_size=20", "--round_to=2", "--benchmark_runs=0", "--rate=0.5")


def test_a_recurrent_network_gets_a_dynamic_file_by_default(folder, tmp_path, capsys):
    assert prune.run(given(folder, "recurrent", "series", tmp_path, *SHORT, "--method=l1")) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [record["quantization"] for record in summary["tflite"].values()] == ["float32"] * 2 + ["dynamic"] * 2
    assert summary["failures"] == []
    said = capsys.readouterr().err
    assert "(memory) for int8" in said
    assert "dynamic files are made in place of int8 ones" in said


@pytest.mark.parametrize(
    ("model", "data", "flags", "words"),
    [
        (
            "recurrent",
            "series",
            ["--quantization=float32,int8"],
            "no int8 file can be made of this model: TFLite cannot",
        ),
        ("recurrent", "series", ["--quantization=qat"], "no qat file can be made"),
        (
            "volumes",
            "volumes",
            [],
            "no TFLite file can be made of this model: TFLite has no kernel for these operations",
        ),
        ("volumes", "volumes", ["--quantization=float16"], "MaxPool3D (at "),
        (
            "deviations",
            "series",
            ["--quantization=int16x8"],
            "cannot be run in int16x8: SQUARED_DIFFERENCE",
        ),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_trained(model, data, flags, words, folder, tmp_path, capsys):
    assert prune.run(given(folder, model, data, tmp_path / "out", *SHORT, *flags)) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()  # training begins behind it


def test_export_makes_what_can_be_made(folder, tmp_path, capsys):
    assert export.run(given(folder, "recurrent", "series", tmp_path)) == 0
    assert {path.name for path in tmp_path.glob("*.tflite")} == {"recurrent_float32.tflite", "recurrent_dynamic.tflite"}
    assert export.run(given(folder, "recurrent", "series", tmp_path, "--quantization=int8,float16")) == 1
    assert (tmp_path / "recurrent_float16.tflite").is_file()
    assert capsys.readouterr().err.splitlines()[-1].startswith("export: recurrent_int8.tflite: TFLite cannot calibrate")
