"""`--target_file`: the file that is shipped has the size that was asked for, or the run says that it has not."""

import json

import keras
import pytest
from keras import layers

from dcp_tf.tflite.schema.memory_plan import memory_plan
from dcp_tf.tools import prune
from dcp_tf.tools.app.file_target import FileTarget, judge

QUICK = ("--method=l1", "--aux_epochs=0", "--finetune_epochs=0", "--benchmark_runs=0", "--round_to=1")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A network whose weights are most of its file."""
    path = tmp_path_factory.mktemp("wide") / "wide.keras"
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(48, 3, activation="relu")(image)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(64, 3, use_bias=False)(x)))
    keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.Conv2D(48, 1)(x)))).save(path)
    return f"--model={path}"


def run(model, data, folder, *flags):
    return prune.run([model, data, f"--output_dir={folder}", *QUICK, *flags])


@pytest.mark.parametrize(
    ("target", "quantization"),
    [
        ("int8:60%", "float32,int8"),
        ("float32:70KiB", "float32"),
        pytest.param("float16:50%", "float16", marks=pytest.mark.slow),
    ],
)
def test_the_file_keeps_within_the_target_and_near_it(target, quantization, wide, inputs, tmp_path, capsys):
    assert run(wide, inputs.data(), tmp_path, f"--target_file={target}", f"--quantization={quantization}") == 0
    mode, _, size = target.partition(":")
    baseline, pruned = ((tmp_path / f"{name}_{mode}.tflite").stat().st_size for name in ("baseline", "pruned"))
    limit = 70 * 1024 if size.endswith("KiB") else float(size[:-1]) / 100 * baseline
    assert 0.85 * limit < pruned <= limit
    record = json.loads((tmp_path / "summary.json").read_text())["target_file"]
    assert record == {"asked": size, "quantization": mode, "bytes": pruned, "met": True, "limit_bytes": int(limit)}
    said = capsys.readouterr().err
    assert f"the baseline's {mode} file takes {baseline:,} bytes" in said  # what is weighed before is what is written


def test_activations_keep_within_the_target_and_near_it(wide, inputs, tmp_path, capsys):
    flags = ("--quantization=int8", "--int8_io=int8", "--target_ram=2KB")
    assert run(wide, inputs.data(), tmp_path, *flags) == 0
    baseline, pruned = (memory_plan(str(tmp_path / f"{n}_int8_io8.tflite")).arena for n in ("baseline", "pruned"))
    assert 1500 < pruned <= 2000 < baseline
    record = json.loads((tmp_path / "summary.json").read_text())["target_ram"]
    assert record == {"asked": "2KB", "quantization": "int8", "bytes": pruned, "met": True, "limit_bytes": 2000}
    assert f"the baseline's int8 file takes {baseline:,} bytes of RAM" in capsys.readouterr().err
    assert run(wide, inputs.data(), tmp_path / "less", *flags[:2], "--target_ram=200") == 2
    said = capsys.readouterr().err
    assert "the target of 200 bytes of RAM cannot be reached: the narrowest model has" in said


def test_a_target_that_was_missed_is_a_failure():
    files = {"a": {"model": "baseline", "quantization": "int8", "bytes": 1000}}
    target = FileTarget("file", "int8", "60%", "60%")
    assert judge(target, files)[0]["met"] is None
    files["b"] = {"model": "pruned", "quantization": "int8", "bytes": 601}
    record, line = judge(target, files)
    assert record["met"] is False
    assert line == "target of the int8 file, 60% (600 bytes): it has 601: missed"
    ram = {
        name: {**record, "arena_bytes": size} for (name, record), size in zip(files.items(), (500, 320), strict=True)
    }
    record, line = judge(FileTarget("ram", "int8", "60%", "60%"), ram)
    assert line == "target of the int8 file in RAM, 60% (300 bytes): it takes 320: missed"
    files["b"]["bytes"] = 600
    assert judge(target, files)[0]["met"] is True


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target_file=60%"], "must name one of the files that the run makes, as in --target_file=float32:60%"),
        (["--target_file=int8:60%", "--quantization=float32"], "must name one of the files"),
        (["--target_file=int8:small"], "received 'small'"),
        (["--target_file=int8:120%"], "below 100%"),
        (["--target_file=int8:60%", "--target_macs=50%"], "--target_file and --target_macs exclude each other"),
        (["--target_file=int8:60%", "--target_latency=50%"], "--target_file and --target_latency exclude each other"),
        (["--target_file=int8:60%", "--rate=0.5"], "give --rate or --target_file, not both"),
        (["--target_file=int8:1%"], "cannot be reached"),
        (["--target_ram=float16:60%"], "must name one of the files that the run makes"),
        (["--target_ram=60%", "--target_file=int8:60%"], "--target_file and --target_ram exclude each other"),
        (["--target_file=int8:60%", "--method=dcp_dkp"], "zeros are as slow and as large"),
    ],
)
def test_what_does_not_go_together_is_one_line(flags, words, wide, inputs, tmp_path, capsys):
    settings = ["--benchmark_runs=5"] if "latency" in str(flags) else []
    assert run(wide, inputs.data(), tmp_path / "out", *flags, *settings) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
