"""Paths on the command line: ~, names that are no UTF-8, spaces, names that are too long."""

import importlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tool_inputs import PROGRAMS, SHORT, run_process

from dcp_tf.tools import export
from dcp_tf.tools.cli.program import expand_user

# Flags whose value names a file or a folder by what their help says; `--only=` and the like are no paths.
NO_PATHS = {
    "method",
    "only",
    "baseline",
    "name",
    "override",
    "experiment",
    "exclude",
    "quantization",
    "target_file",
    "target_latency",
    "target_ram",
}


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        ("~", "HOME"),
        ("~/runs/x y", "HOME/runs/x y"),
        ("npz:~/a.npz", "npz:HOME/a.npz"),
        ("folder:~/photos", "folder:HOME/photos"),
        ("python:~/mine.py", "python:HOME/mine.py"),
        ("a~/b", "a~/b"),
        ("npz:/x/~y", "npz:/x/~y"),
        ("zoo:preresnet20", "zoo:preresnet20"),
    ],
)
def test_a_tilde_is_the_users_folder(given, expanded, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expand_user(given) == expanded.replace("HOME", "/home/somebody")


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_that_takes_a_path_expands_it(program, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    flags = importlib.import_module(f"dcp_tf.tools.{program}").PROGRAM.flags
    of_paths = [
        name
        for name in flags
        if name.endswith(("_dir", "_root")) or any(w in f" {flags[name].help} " for w in (" file", " folder", "FILE"))
    ]
    for name in of_paths:
        if flags[name].flag_type() in ("string", "path", "paths") and name not in NO_PATHS:
            assert "/home/somebody/x" in flags[name].parser.parse("~/x"), name


def test_a_folder_called_tilde_is_never_made(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(inputs.folder, tmp_path / "home" / "in puts")
    given = ["--model=~/in puts/plain.keras", "--dataset=npz:~/in puts/four.npz", "--output_dir=~/o"]
    assert export.run([*given, "--quantization=float32"]) == 0
    assert not (tmp_path / "~").exists()
    assert (tmp_path / "home" / "o" / "plain_float32.tflite").exists()


def test_class_folders_that_are_no_utf8_pass_a_whole_run(inputs, tmp_path):
    photos = os.fsencode(tmp_path / "animals")
    for name in (b"cats", b"b\xe4ren", "Кошки".encode(), "猫".encode()):
        os.makedirs(photos + b"/" + name)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), "uint8")
            Image.fromarray(pixels).save(os.path.join(os.fsdecode(photos + b"/" + name), f"{number}.png"))
    done = run_process(
        *("-m", "dcp_tf.tools.prune", inputs.plain, f"--dataset=folder:{tmp_path}/animals"),
        *(f"--output_dir={tmp_path}/o", *SHORT, "--quantization=float32", "--method=l1", "--finetune_epochs=0"),
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "40 images of 4 classes" in done.stderr
    from dcp_tf.tflite.schema.metadata import read_metadata

    written = str(read_metadata(tmp_path / "o" / "pruned_float32.tflite"))
    for name in ("cats", r"b\xe4ren", "Кошки", "猫"):
        assert name in written or name.encode("unicode_escape").decode() in written or repr(name)[1:-1] in written
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["dataset"] == "animals"
    (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("flag", ["--model={}.keras", "--dataset=npz:{}.npz", "--dataset=folder:{}", "--output_dir={}"])
def test_a_name_that_is_too_long_is_one_line(flag, inputs, capsys, tmp_path):
    flags = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}/o", flag.format("x" * 300)]
    assert export.run(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "x" * 300 in line or "too long" in line


@pytest.mark.parametrize("name", ["a/b", "../b", "n" * 300])
def test_names_of_files_are_no_paths(name, inputs, tmp_path, capsys):
    flags = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}/o", "--quantization=float32"]
    assert export.run([*flags, f"--name={name}"]) == 2
    assert "--name is what file names start with" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
