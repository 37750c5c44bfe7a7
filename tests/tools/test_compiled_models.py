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


def test_a_metric_that_cannot_take_the_labels_is_left_out(folder, tmp_path, capsys):
    model = keras.models.load_model(folder / "mae.keras")
    model.compile("adam", "mae", metrics=[keras.metrics.AUC(multi_label=True, num_labels=3, name="own_auc"), "mse"])
    model.save(tmp_path / "auc.keras")
    taken = run(evaluate, tmp_path, capsys, "auc", "--json", f"--dataset=npz:{folder / 'data.npz'}")
    assert "note: the compiled metric 'own_auc' failed" in taken.err
    assert {"mse", "mae"} <= json.loads(taken.out).keys()


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


SUBCLASSED = """
import keras

@keras.saving.register_keras_serializable("test_compiled_models")
class {name}(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.first = keras.layers.Conv2D(8, 3, activation="relu")
        self.last = keras.layers.Dense(2)

    def call(self, images):
        features = keras.ops.mean(self.first(images), (1, 2))
        if {condition}:
            features = features + 1
        return self.last(features)
"""


@pytest.mark.parametrize(
    ("name", "condition"), [("Tests", "keras.ops.max(features) > 1e9"), ("Knows", "not hasattr(self, 'other')")]
)
def test_a_subclassed_file_without_shapes_is_called_with_the_data(folder, tmp_path, capsys, name, condition):
    path = tmp_path / f"{name.lower()}.py"
    path.write_text(SUBCLASSED.format(name=name, condition=condition))
    code: dict = {"__name__": "own"}
    exec(path.read_text(), code)
    model, images = code[name](), np.load(folder / "data.npz")["x_test"]
    expected = model(images).numpy()
    model._build_shapes_dict = None  # as of a call that did not run on symbolic tensors
    model.get_build_config = lambda: None
    model.save(tmp_path / "own.keras")
    flags = [f"--model={tmp_path / 'own.keras'}", f"--dataset=npz:{folder / 'data.npz'}", f"--custom_objects={path}"]
    returned, captured = evaluate.run([*flags, "--json"]), capsys.readouterr()
    if name == "Tests":
        assert returned == 2
        assert "tests.py:13: `if keras.ops.max(features) > 1e9:`: a Python condition" in captured.err
    else:
        assert returned == 0, captured.err
        error = np.mean((expected - np.load(folder / "data.npz")["y_test"]) ** 2)
        assert json.loads(captured.out)["mse"] == pytest.approx(error, rel=1e-4)
