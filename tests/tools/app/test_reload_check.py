"""The files of a run are the models that were measured, for a process that knows Keras alone."""

import json
import types

import keras
import numpy as np
import pytest
from tool_inputs import SHORT

from dcp_tf.tools import evaluate, finetune, inspect_model, prune
from dcp_tf.tools.app import plain_keras, reload_check

MY_LAYERS = """
import keras
from keras import layers
from .scales import SCALE

class ConvBlock(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same")
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.filters))

    def call(self, x, training=None):
        return keras.ops.relu(self.norm(self.conv(x), training=training)) * SCALE

    def get_config(self):
        return super().get_config() | {"filters": self.filters}

class Forgetful(layers.Layer):
    def call(self, x):
        return x * self.factor

    def build(self, shape):
        self.factor = getattr(self, "factor", 1.0)

def squared(x):
    return x * x
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with layers of one's own and models of them."""
    from dcp_tf.models.custom_objects import import_custom_objects

    folder = tmp_path_factory.mktemp("own")
    (folder / "my_own_layers.py").write_text(MY_LAYERS)
    (folder / "scales.py").write_text("SCALE = 2.0\n")
    known = import_custom_objects(str(folder / "my_own_layers.py"))
    forgetful = known["Forgetful"]()
    forgetful.factor = 3.0
    fronts = {
        "blocks": [known["ConvBlock"](8), keras.layers.Lambda(lambda x: x / 2.0, name="half")],
        "forgetful": [forgetful],
        "functions": [keras.layers.Conv2D(8, 3, activation=known["squared"])],
    }
    for name, front in fronts.items():
        rest = [keras.layers.Conv2D(16, 3), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(4)]
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(12, 3), *front, *rest]).save(
            folder / f"{name}.keras"
        )
    forget(known)
    return folder


def forget(known):
    """As in a new process."""
    for name in known:
        keras.saving.get_custom_objects().pop(name, None)


@pytest.fixture(autouse=True)
def registry():
    """What a test lets Keras know does not stay."""
    before = dict(keras.saving.get_custom_objects())
    yield
    forget(set(keras.saving.get_custom_objects()) - set(before))


def flags_for(own, name, *more):
    return [f"--model={own / name}.keras", f"--custom_objects={own / 'my_own_layers.py'}", *more]


def test_a_run_says_that_its_files_are_its_models(whole_run):
    summary = json.loads((whole_run / "summary.json").read_text())
    assert set(summary["reload_check"]) == {"baseline.keras", "pruned.keras"}
    assert all(each["equal"] and each["max_error"] < 1e-5 for each in summary["reload_check"].values())
    assert summary["failures"] == []


def in_this_process(error=0.0):
    """What takes seconds in a process of its own."""
    return lambda images, files, **_: [[np.asarray(keras.models.load_model(file)(images)) + error] for file in files]


def test_a_file_that_is_another_model_fails_the_run_and_costs_nothing(inputs, tmp_path, capsys, monkeypatch):
    save = keras.Model.save

    def save_other_weights(model, path):
        weights = model.get_weights()
        model.set_weights([2 * w for w in weights])
        save(model, path)
        model.set_weights(weights)

    monkeypatch.setattr(keras.Model, "save", save_other_weights)
    monkeypatch.setattr(reload_check, "run_in_plain_keras", in_this_process())
    flags = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--method=l1", "--reload_check"]
    assert prune.run(flags) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "baseline.keras, loaded in plain Keras: its outputs differ by" in last
    assert "pruned.keras, loaded in plain Keras" in last
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert not any(each["equal"] for each in summary["reload_check"].values())
    assert len(summary["failures"]) == 2
    assert (tmp_path / "report.html").exists()


def test_finetune_looks_at_its_file_too(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reload_check, "run_in_plain_keras", in_this_process(error=1.0))
    flags = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}", "--finetune_epochs=1", "--reload_check"]
    assert finetune.run(flags) == 1
    assert "pruned.keras, loaded in plain Keras: its outputs differ" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["reload_check"]["pruned.keras"]["equal"] is False
    assert len(summary["failures"]) == 1


def test_layers_of_ones_own_go_through_a_whole_run(own, inputs, tmp_path, capsys):
    more = ["--allow_lambda", inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--method=l1", "--reload_check"]
    assert prune.run(flags_for(own, "blocks", *more)) == 0
    said = capsys.readouterr().err
    assert "hold ConvBlock: whoever loads them needs that code" in said
    assert "hold Lambda layers (half): they load with" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert all(each["equal"] for each in summary["reload_check"].values())
    pruned = [f"--model={tmp_path / 'pruned.keras'}", inputs.data(), "--outputs=logits"]
    code = [f"--custom_objects={own / 'my_own_layers.py'}", "--allow_lambda"]
    assert evaluate.run([*pruned, *code]) == 0
    measured = capsys.readouterr().out.split()
    assert float(measured[measured.index("top1") + 1]) == pytest.approx(summary["pruned"]["top1"], abs=1e-4)


def test_what_a_file_cannot_hold_is_told_before_anything_is_trained(own, inputs, tmp_path, capsys):
    flags = [inputs.data(), f"--output_dir={tmp_path}"]
    for program, more in ((prune, [*SHORT, "--method=l1"]), (finetune, ["--finetune_epochs=1"])):
        with monkeypatched_factor():
            assert program.run(flags_for(own, "forgetful", *flags, *more)) == 2
        assert "the model loaded from a file of it is not the model: its outputs differ" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.keras"))


class monkeypatched_factor:
    """As if the loading of the first model had set what no file holds."""

    def __enter__(self):
        self.load = keras.models.load_model
        self.calls = 0

        def load(*args, **kwargs):
            model = self.load(*args, **kwargs)
            self.calls += 1
            if self.calls == 1:
                next(layer for layer in model.layers if type(layer).__name__ == "Forgetful").factor = 3.0
            return model

        keras.models.load_model = load

    def __exit__(self, *error):
        keras.models.load_model = self.load


def test_messages_name_the_flags(own, capsys):
    assert inspect_model.run([f"--model={own / 'functions.keras'}"]) == 2
    assert "custom object 'squared': --custom_objects=FILE.py names" in capsys.readouterr().err
    assert inspect_model.run(flags_for(own, "functions")) == 0
    assert inspect_model.run(flags_for(own, "blocks")) == 2
    assert "without --allow_lambda" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "there is no Python file"),
        ("x = 1", "holds no layer, no model and no function"),
        ("raise RuntimeError('no luck')", "cannot be imported: RuntimeError: no luck"),
        ("def f(:", "cannot be imported: SyntaxError"),
    ],
)
def test_files_of_custom_objects_that_are_none(own, tmp_path, capsys, code, said):
    path = tmp_path / "broken_objects.py"
    if code is not None:
        path.write_text(code)
    assert inspect_model.run([f"--model={own / 'functions.keras'}", f"--custom_objects={path}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_help_says_that_code_runs():
    for program in (prune, evaluate, inspect_model, finetune):
        text = " ".join(program.PROGRAM.help().split())
        assert "this runs the code in it" in text
        assert "this runs code that is stored in the model file" in text


def test_differences_are_relative_and_see_infinities():
    from dcp_tf.tools.app.plain_keras import largest_difference

    value = np.array([1.0, 100.0])
    assert largest_difference(value, value) == 0
    assert largest_difference(value + np.array([0, 1.0]), value) == pytest.approx(0.01)
    assert largest_difference(np.array([np.nan, 1.0]), np.array([np.nan, 1.0])) == 0
    assert largest_difference(np.array([np.nan, 1.0]), value) == np.inf


class Flags(types.SimpleNamespace):
    """Of a program without the flags for code."""

    def __contains__(self, name):
        return hasattr(self, name)


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (-9, "", "it cannot be loaded: the process died of signal 9"),
        (1, "Traceback ...\nImportError: no keras", "it cannot be loaded: ImportError: no keras"),
    ],
)
def test_a_process_that_ends_early_is_a_failure(code, stderr, said, inputs, tmp_path, monkeypatch):
    from dcp_tf import data

    done = types.SimpleNamespace(returncode=code, stdout="", stderr=stderr)
    monkeypatch.setattr(plain_keras.subprocess, "run", lambda *_, **__: done)
    model, failures = keras.models.load_model(inputs.folder / "plain.keras"), []
    dataset = data.load(f"npz:{inputs.folder / 'four.npz'}", input_shape=(8, 8, 3))
    flags = Flags(reload_check=True, debug=False)
    records = reload_check.reload_records(tmp_path, {"pruned": model}, dataset, flags, failures)
    assert records["pruned.keras"]["equal"] is False
    assert failures == [f"pruned.keras, loaded in plain Keras: {said}"]
