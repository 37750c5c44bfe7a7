"""A model file that holds `compile`: its loss and its optimizer are taken unless the flags say otherwise."""

import json
import pathlib

import keras
import numpy as np
import pytest
from tool_inputs import SHORT, plain_model

from dcp_tf.tools import evaluate, finetune
from dcp_tf.tools.cli.run_record import is_of_first_version

OWN = """
import keras

def halved(labels, outputs):
    return 0.5 * keras.losses.mean_absolute_error(labels, outputs)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`mae.keras` and `own.keras`, compiled with AdamW, `own.py` and `data.npz` with two numbers per image."""
    path = tmp_path_factory.mktemp("compiled")
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.uniform(0, 1, (48, 8, 8, 3)).astype(np.float32) for part in ("train", "test")}
    labels = {f"y_{part}": 9 * arrays[f"x_{part}"].mean((1, 2))[:, :2] for part in ("train", "test")}
    np.savez(path / "data.npz", **arrays, **labels)
    (path / "own.py").write_text(OWN)
    model, code = plain_model(units=2), {}
    exec(OWN, code)
    for name, loss in (("mae", "mae"), ("own", code["halved"])):
        model.compile(keras.optimizers.AdamW(2e-3), loss)
        model.save(path / f"{name}.keras")
    return path


def run(program, folder, capsys, name, *flags):
    code = program.run([f"--model={folder / name}.keras", f"--dataset=npz:{folder / 'data.npz'}", *flags])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured


def test_the_compiled_loss_is_measured(folder, capsys):
    taken = run(evaluate, folder, capsys, "mae", "--json")
    assert "loss taken from model.compile: mae (--loss overrides)" in taken.err
    given = run(evaluate, folder, capsys, "mae", "--json", "--loss=mse")
    assert "model.compile" not in given.err
    assert json.loads(taken.out)["mae"] == pytest.approx(json.loads(given.out)["mae"])


def test_an_unknown_loss_is_one_line_until_its_file_is_given(folder, capsys):
    without = run(evaluate, folder, capsys, "own", "--json")
    lines = [line for line in without.err.splitlines() if "model.compile" in line]
    assert lines == [
        "note: the loss of model.compile is left out: plain Keras does not know 'halved'; --custom_objects=FILE.py "
        "brings it"
    ]
    figures = json.loads(run(evaluate, folder, capsys, "own", "--json", f"--custom_objects={folder / 'own.py'}").out)
    assert figures["loss"] == pytest.approx(json.loads(without.out)["mae"] / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "optimizer", "rate"),
    [((), "adamw", 3e-4), (("--finetune_lr=0.0005",), "adamw", 5e-4), (("--optimizer=sgd",), "sgd", 0.01)],
)
def test_the_compiled_optimizer_trains(folder, tmp_path, capsys, flags, optimizer, rate):
    said = run(finetune, folder, capsys, "mae", *SHORT[1:2], "--noreload_check", f"--output_dir={tmp_path}", *flags)
    assert ("AdamW, as the model was compiled" in said.err) == (optimizer == "adamw")
    settings = json.loads((tmp_path / "summary.json").read_text())["settings"]
    assert (settings["optimizer"], settings["finetune_lr"]) == (optimizer, pytest.approx(rate))
    written = keras.models.load_model(tmp_path / "pruned.keras")
    assert (type(written.optimizer), written.loss) == (keras.optimizers.AdamW, "mae")


def test_runs_of_the_first_version_are_recognized():
    class Flags(dict):
        resume = True

    saved = pathlib.Path(__file__).parents[1] / "saved_runs"
    for name, expected in (("stopped_in_finetuning", True), ("stopped_comparison", True), ("plans", False)):
        flags = Flags(resume=True)
        flags.output_dir = str(saved / name)
        assert is_of_first_version(flags) == expected
