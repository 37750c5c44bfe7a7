"""A model of two inputs and two outputs goes through the programs: pruned, fine-tuned, converted, measured."""

import json

import keras
import numpy as np
import pytest
from tool_inputs import SHORT

from dcp_tf.pruning import PruningPlan
from dcp_tf.tools import compare, evaluate, finetune, prune


def _arrays(count: int, seed: int) -> dict[str, np.ndarray]:
    """Squares of three colors; the label is the color, the box depends on the position and on the metadata."""
    rng = np.random.default_rng(seed)
    kinds, corners, meta = rng.integers(0, 3, count), rng.integers(0, 5, (count, 2)), rng.normal(0, 1, (count, 2))
    images = rng.normal(0, 0.2, (count, 8, 8, 3))
    for image, kind, (row, column) in zip(images, kinds, corners, strict=True):
        image[row : row + 3, column : column + 3, kind] += 1.5
    part = "train" if seed == 0 else "test"
    return {
        f"x_{part}/image": images.astype(np.float32),
        f"x_{part}/meta": meta.astype(np.float32),
        f"y_{part}/kind": kinds.astype(np.int32),
        f"y_{part}/box": (corners / 8 + meta / 10).astype(np.float32),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`model.keras`, compiled and trained, with `data.npz`."""
    path = tmp_path_factory.mktemp("several")
    keras.utils.set_random_seed(0)
    arrays = _arrays(240, 0) | _arrays(120, 1)
    np.savez(path / "data.npz", **arrays)
    image, meta = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="meta")
    x = keras.layers.Conv2D(16, 3, activation="relu", name="first")(image)
    x = keras.layers.Flatten()(keras.layers.Conv2D(16, 3, activation="relu", name="second")(x))
    x = keras.layers.Concatenate()([x, keras.layers.Dense(8, activation="relu", name="of_meta")(meta)])
    x = keras.layers.Dense(24, activation="relu", name="both")(x)
    outputs = {"kind": keras.layers.Dense(3, name="k")(x), "box": keras.layers.Dense(2, name="b")(x)}
    model = keras.Model({"image": image, "meta": meta}, outputs)
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "box": "mse"}
    model.compile("adam", losses, loss_weights={"kind": 1.0, "box": 4.0})
    inputs, labels = (
        {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{side}_train")}
        for side in "xy"
    )
    model.fit(inputs, labels, epochs=20, verbose=0)
    model.save(path / "model.keras")
    return path


@pytest.fixture(scope="module")
def run(folder):
    """The folder of a whole run of `prune`."""
    flags = [f"--model={folder / 'model.keras'}", f"--dataset=npz:{folder / 'data.npz'}", *SHORT, "--rate=0.4"]
    assert prune.run([*flags, "--quantization=float32,int8", "--reload_check", f"--output_dir={folder / 'out'}"]) == 0
    return folder / "out"


def test_summary_holds_the_figures_of_each_output(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["loss"] == "joint"
    assert summary["metrics"] == ["loss", "box_mse", "kind_top1"]
    for model in ("baseline", "pruned"):
        figures = summary[model]
        total = 4 * figures["box_loss"] + figures["kind_loss"]
        assert figures["loss"] == pytest.approx(total, rel=1e-5)
    assert (summary["settings"]["optimizer"], summary["settings"]["finetune_lr"]) == ("adam", pytest.approx(3e-4))
    assert summary["pruned"]["macs"] < 0.75 * summary["baseline"]["macs"]
    assert all(record["equal"] for record in summary["reload_check"].values())


def test_files_are_measured_by_output(run):
    summary = json.loads((run / "summary.json").read_text())
    pruned = summary["pruned"]
    file = summary["tflite"]["pruned_float32.tflite"]
    assert file["kind_top1"] == pytest.approx(pruned["kind_top1"], abs=1e-3)
    assert file["box_mse"] == pytest.approx(pruned["box_mse"], rel=1e-3)
    assert {"kind_top1", "box_mse"} <= summary["tflite"]["pruned_int8.tflite"].keys()


def test_written_models_are_called_and_answer_as_the_users(run, folder):
    original, pruned = (keras.models.load_model(path) for path in (folder / "model.keras", run / "pruned.keras"))
    values = {"image": np.ones((2, 8, 8, 3), np.float32), "meta": np.ones((2, 2), np.float32)}
    assert {name: output.shape for name, output in pruned(values).items()} == {"kind": (2, 3), "box": (2, 2)}
    applied = PruningPlan.load(run / "plan.json").apply(original)
    assert applied.count_params() == pruned.count_params()


def test_evaluate_prints_what_the_run_measured(run, folder, capsys):
    capsys.readouterr()
    flags = [f"--model={run / 'pruned.keras'}", f"--dataset=npz:{folder / 'data.npz'}", "--json"]
    assert evaluate.run(flags) == 0
    printed = capsys.readouterr().out
    figures, summary = json.loads(printed[printed.index("{") :]), json.loads((run / "summary.json").read_text())
    assert figures["kind_top1"] == pytest.approx(summary["pruned"]["kind_top1"])


def test_evaluate_measures_the_file_of_several_outputs_by_name(run, folder, capsys):
    capsys.readouterr()
    file = run / "pruned_float32.tflite"
    assert evaluate.run([f"--model={file}", f"--dataset=npz:{folder / 'data.npz'}", "--json"]) == 0
    printed = capsys.readouterr().out
    figures, summary = json.loads(printed[printed.index("{") :]), json.loads((run / "summary.json").read_text())
    for name in ("loss", "kind_top1", "kind_loss", "box_mse", "box_r2"):
        assert figures[name] == pytest.approx(summary["pruned"][name], rel=1e-3), name


def test_pixels_of_an_image_among_inputs_are_normalized(folder, tmp_path, capsys):
    arrays = dict(np.load(folder / "data.npz"))
    whole = {
        name: np.clip(40 * array + 100, 0, 255).astype(np.uint8) for name, array in arrays.items() if "image" in name
    }
    figures = {}
    for key, replaced, flags in (
        ("float", {name: array / np.float32(255) for name, array in whole.items()}, ()),
        ("whole", whole, ()),
        ("raw", whole, ("--normalization=image=raw",)),
        ("scaled", {name: array.astype(np.float32) for name, array in whole.items()}, ("--normalization=unit",)),
    ):
        np.savez(tmp_path / f"{key}.npz", **(arrays | replaced))
        command = [f"--model={folder / 'model.keras'}", f"--dataset=npz:{tmp_path / key}.npz", "--json", *flags]
        assert evaluate.run(command) == 0
        printed = capsys.readouterr()
        figures[key] = json.loads(printed.out)["box_mse"]
        assert ("'image': integers of 0 to 255 become 0 to 1" in printed.err) == (key == "whole")
        assert "inputs taken as they are: meta" in printed.err
    assert figures["whole"] == pytest.approx(figures["float"], rel=1e-4)
    assert figures["scaled"] == pytest.approx(figures["float"], rel=1e-4)
    assert figures["raw"] > 10 * figures["float"]
    for value, words in (("imag=raw", "'imag' is no input; did you mean 'image'?"), ("meta=raw", "'meta' is no image")):
        assert evaluate.run([*command[:2], f"--normalization={value}"]) == 2
        assert words in capsys.readouterr().err


WITH_NAN = np.full((240, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("dropped", "replaced", "words"),
    [
        (("x_train/meta",), {}, "has the inputs 'image', but x_test of"),
        (
            ("x_train/meta", "x_test/meta"),
            {},
            "has the input 'image', the model has the inputs",
        ),
        ((), {"x_train/meta": WITH_NAN}, "x_train/meta of"),
        ((), {"x_train/meta": np.array([["a", "b"]] * 240)}, "encode texts as numbers first"),
        ((), {"y_train/box": WITH_NAN}, "y_train/box of"),
        ((), {"y_train/box": WITH_NAN[1:]}, "has 239 labels for 240 images"),
        (
            ("y_train/box", "y_test/box"),
            {"y_train/boxes": np.zeros((240, 2))},
            "labels for the outputs 'boxes'",
        ),
        ((), {"y_test/kind": np.full(120, 7)}, "has the label 7, but the model has 3 outputs"),
    ],
)
def test_wrong_arrays_are_one_line(folder, tmp_path, capsys, dropped, replaced, words):
    arrays = {name: array for name, array in np.load(folder / "data.npz").items() if name not in dropped}
    np.savez(tmp_path / "wrong.npz", **(arrays | replaced))
    assert evaluate.run([f"--model={folder / 'model.keras'}", f"--dataset=npz:{tmp_path / 'wrong.npz'}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert words in line
    assert "--loss" not in line


def test_methods_are_compared_by_the_figures_of_all_outputs(folder, tmp_path, capsys):
    flags = [f"--model={folder / 'model.keras'}", f"--dataset=npz:{folder / 'data.npz'}", "--methods=l1,random"]
    flags += ["--seeds=1", "--finetune_epochs=1", "--max_steps_per_epoch=2", f"--output_dir={tmp_path}"]
    assert compare.run(flags) == 0
    printed, content = capsys.readouterr().out, json.loads((tmp_path / "compare.json").read_text())
    assert content["metrics"] == ["loss", "box_mse", "kind_top1"]
    assert content["conditions"]["finetuning optimizer"]["class_name"] == "Adam"
    assert compare.run([*flags, "--class_weight=box=balanced", "--resume"]) == 2
    assert "output 'box' learns" in capsys.readouterr().err
    assert "box MSE" in printed
    assert "kind top-1 (%)" in printed
    for record in content["runs"]:
        assert record["loss"] == pytest.approx(record["loss_by_epoch"][-1]) or record["loss"] == pytest.approx(
            record["loss_before_finetuning"]
        )
        assert 0 <= record["kind_top1"] <= 1


def test_the_table_shows_each_output(run, capsys):
    from dcp_tf.report import print_summary

    print_summary(json.loads((run / "summary.json").read_text()))
    printed = capsys.readouterr().out
    assert "kind top-1" in printed
    assert "box MSE" in printed


def test_fine_tuning_goes_on_with_the_original_as_teacher(run, folder, tmp_path):
    flags = [f"--model={run / 'pruned.keras'}", f"--teacher={run / 'baseline.keras'}", *SHORT[1:2], "--noreload_check"]
    flags += [f"--dataset=npz:{folder / 'data.npz'}", f"--output_dir={tmp_path / 'longer'}"]
    assert finetune.run(flags) == 0
    summary = json.loads((tmp_path / "longer" / "summary.json").read_text())
    assert summary["pruned"]["loss"] <= 1.05 * summary["pruned"]["loss_before_finetuning"]
    assert set(keras.models.load_model(tmp_path / "longer" / "pruned.keras").output) == {"kind", "box"}
