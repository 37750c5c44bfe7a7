"""Files for microcontrollers: the memory that they take, TFLite Micro's own interpreter, C arrays."""

import json
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tool_inputs

from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.micro import interpreter
from dcp_tf.tflite.micro.c_array import c_array
from dcp_tf.tflite.micro.interpreter import MicroRunner
from dcp_tf.tflite.schema.memory_plan import memory_plan
from dcp_tf.tools import export

layers = keras.layers


def chain():
    """A chain of operations, whose fullest moment is known: 16x16x8 into 8x8x32."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="wide")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(4, name="classes")(x))


def branches():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    joined = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)])
    return keras.Model(image, layers.GlobalAveragePooling2D()(joined))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def int8(images):
    return tflite.convert(chain(), quantization="int8", representative_data=images)


def test_the_fullest_operation_reads_and_writes_what_is_counted():
    plan = memory_plan(tflite.convert(chain(), quantization="float32"))
    assert plan.peak == plan.arena == 4 * (16 * 16 * 8 + 8 * 8 * 32)
    assert plan.fullest.startswith("CONV_2D")


def test_a_branch_that_waits_counts(images):
    plan = memory_plan(tflite.convert(branches(), quantization="int8", representative_data=images))
    one = 16 * 16 * 8
    assert plan.peak == 3 * one  # both branches and their sum
    assert plan.fullest.startswith("ADD")
    assert plan.arena >= plan.peak


def test_tflite_micro_computes_the_same_and_takes_the_planned_memory(int8, images):
    pytest.importorskip("tflite_micro")
    runner = MicroRunner(int8)
    step = tflite.inspect(int8)
    assert step.operations["CONV_2D"] == 2
    outputs = tflite.Runner(int8).predict(images)
    assert np.abs(runner.predict(images) - outputs).max() <= 0.02 * np.ptp(outputs)  # one step of the quantization
    assert runner.activations == memory_plan(int8).arena
    assert runner.persistent > 0


def test_tensors_of_one_size_are_placed_as_tflite_micro_does():
    pytest.importorskip("tflite_micro")
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(image)  # as large as what the next layer writes
    x = layers.Conv2D(16, 1)(layers.DepthwiseConv2D(3, padding="same")(x))
    plan = memory_plan(file := tflite.convert(keras.Model(image, x), "float32"))
    assert MicroRunner(file).activations == plan.arena > plan.peak  # a gap stays, whose size depends on the order


def test_an_operation_that_tflite_micro_lacks_is_named():
    pytest.importorskip("tflite_micro")
    image = keras.Input((4, 4, 2))
    model = keras.Model(image, keras.ops.tile(layers.Conv2D(2, 1)(image), (1, 2, 1, 1)))
    with pytest.raises(RunError, match="no operation TILE"):
        MicroRunner(tflite.convert(model, quantization="float32"))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tflite_micro.python.tflite_micro", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'dcp_tf[micro]'")):
        interpreter.require_micro()


def test_a_c_array_holds_the_file_and_compiles(int8, tmp_path):
    text = c_array(int8.content, "2 files.int8")
    (tmp_path / "model.c").write_text(text)
    values = re.search(r"\{\n([\d, \n]+)\n\};", text).group(1)
    assert bytes(map(int, values.split(","))) == int8.content
    assert f"_2_files_int8_len = {len(int8.content)};" in text
    for compiler, language in (("cc", "c"), ("c++", "c++")):
        if shutil.which(compiler):
            command = [compiler, "-x", language, "-Wall", "-Werror", "-c", "model.c", "-o", "model.o"]
            subprocess.run(command, cwd=tmp_path, check=True)


def test_export_writes_the_array_and_what_a_microcontroller_needs(tmp_path, capsys):
    pytest.importorskip("tflite_micro")
    chain().save(tmp_path / "model.keras")
    data = tool_inputs.write_images(tmp_path / "images.npz", (16, 16, 3))
    arguments = [f"--model={tmp_path / 'model.keras'}", f"--dataset=npz:{data}", f"--output_dir={tmp_path / 'out'}"]
    assert export.run([*arguments, "--quantization=int8", "--check_on=micro", "--c_array", "--outputs=logits"]) == 0
    record = json.loads((tmp_path / "out" / "export.json").read_text())["files"]["model_int8.tflite"]
    assert record["micro"]["activation_bytes"] >= record["arena_bytes"] > 0
    assert "for activations and scratch" in " ".join(capsys.readouterr().out.split())
    assert str((tmp_path / "out/model_int8.tflite").stat().st_size) in (tmp_path / "out/model_int8.c").read_text()
