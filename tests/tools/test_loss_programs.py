"""The programs on models that are no classifiers: several labels, numbers, maps, embeddings; data without labels."""

import json

import keras
import numpy as np
import pytest
from loss_cases import CASES, arrays, model, write
from tool_inputs import SHORT

from dcp_tf.tools import evaluate, finetune, prune


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def quick(*names, among):
    """Those in the default run; the library's tests prune models of each kind."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in among]


@pytest.mark.parametrize("name", quick("multilabel", "embedding", among=CASES))
def test_prune_and_evaluate(name, tmp_path, capsys):
    case, folder = CASES[name], tmp_path / "out"
    flags = write(tmp_path, name)
    assert prune.run([*flags, *SHORT, "--quantization=float32", f"--output_dir={folder}"]) == 0
    told = capsys.readouterr()
    summary = summary_of(folder)
    assert (summary["loss"], summary["metric"]) == (case.loss, case.metric)
    assert f"before fine-tuning: {case.metric}" in told.err
    for which in ("baseline", "pruned"):
        assert np.isfinite(summary[which][case.metric])
    assert summary["pruned"]["params"] < summary["baseline"]["params"]
    # Nearest neighbours among hardly trained embeddings are near ties: rounding decides for some of the 96 images.
    # So of files the embeddings are compared.
    for name_of_file, record in summary["tflite"].items():
        expected = summary["pruned" if "pruned" in name_of_file else "baseline"][case.metric]
        if name == "embedding":
            assert record["cosine_min"] > 0.9999
            assert record["max_error"] < 1e-3
        else:
            assert record[case.metric] == pytest.approx(expected, rel=1e-2, abs=1e-2)
    pruned = keras.models.load_model(folder / "pruned.keras")
    assert pruned.output_shape == model(case).output_shape
    assert "mean" in (folder / "report.html").read_text()
    for file in ("pruned.keras", "pruned_float32.tflite"):
        assert evaluate.run([f"--model={folder}/{file}", flags[1], "--json"]) == 0
        measured = json.loads(capsys.readouterr().out)
        if name != "embedding" or file.endswith(".keras"):
            assert measured[case.metric] == pytest.approx(summary["pruned"][case.metric], rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("name", quick(among=("multilabel", "maps_of_numbers", "embedding")))
def test_prune_without_labels_and_measure_with_those_of_the_test_images(name, tmp_path, capsys):
    case, folder = CASES[name], tmp_path / "out"
    flags = write(tmp_path, name, y_train=None)
    assert prune.run([*flags, *SHORT, f"--output_dir={folder}"]) == 0
    assert "the model's own predictions are the targets" in capsys.readouterr().err
    assert np.isfinite(summary_of(folder)["pruned"][case.metric])


@pytest.mark.parametrize("name", quick("unet", among=("regression", "unet", "embedding")))
def test_finetune_with_a_teacher(name, tmp_path, capsys):
    flags = write(tmp_path, name)
    teacher = flags[0].replace("--model", "--teacher")
    short = ("--finetune_epochs=1", "--batch_size=32", "--distillation=0.5", f"--output_dir={tmp_path}/out")
    assert finetune.run([*flags, teacher, *short]) == 0
    assert CASES[name].metric in capsys.readouterr().out
    assert f"{CASES[name].metric}_before_finetuning" in summary_of(tmp_path / "out")["pruned"]


def test_without_any_labels_nothing_is_measured(tmp_path, capsys):
    flags = write(tmp_path, "maps", y_train=None, y_test=None)
    assert prune.run([*flags, *SHORT, f"--output_dir={tmp_path}/out"]) == 0
    assert "mean_iou" not in summary_of(tmp_path / "out")["pruned"]
    assert evaluate.run([*flags]) == 2
    assert "no labels" in capsys.readouterr().err


def both(labels):
    return {"y_train": labels, "y_test": labels}


SIZE = 96
BAD = {
    "float labels of classes": ("multilabel_logits", both(np.linspace(0, 9, SIZE)), (), "float32"),
    "rows of another width": ("multilabel", both(np.zeros((SIZE, 7), int)), (), "(96, 7)"),
    "counts in rows": ("multilabel", both(np.full((SIZE, 4), 3)), ("--loss=multilabel",), "between 3 and 3"),
    "maps of another size": ("maps", both(np.zeros((SIZE, 4, 4), int)), (), "(96, 4, 4)"),
    "a class too many in maps": ("maps", both(np.full((SIZE, 8, 8), 3)), (), "the label 3"),
    "numbers of another width": ("regression", both(np.zeros((SIZE, 3))), (), "(96, 3)"),
    "labels of text": ("regression", both(np.array(["cat"] * SIZE)), (), "integers"),
    "labels of two forms": ("maps", {"y_test": np.zeros((SIZE, 8, 8, 3), int)}, (), "the same form"),
    "a loss that the outputs do not have": ("multilabel", {}, ("--loss=softmax",), "ends in a sigmoid"),
    "margins of maps": ("maps", {}, ("--loss=arcface",), "one embedding an image"),
    "maps that would move": ("maps", {}, ("--augmentation=flip",), "--augmentation=flip"),
    "an unknown loss": ("maps", {}, ("--loss=hinge",), "hinge"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_one_line(case, tmp_path, capsys):
    name, replaced, more, line = BAD[case]
    flags = write(tmp_path, name, **replaced)
    code = prune.run([*flags, *SHORT, *more, f"--output_dir={tmp_path}/out"])
    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert len(printed.err.splitlines()) == 1, printed.err
    assert line in printed.err
    assert not (tmp_path / "out").exists()


def test_a_file_does_not_tell_what_its_outputs_are(tmp_path, capsys):
    from dcp_tf import tflite

    flags = write(tmp_path, "multilabel")
    tflite.convert(model(CASES["multilabel"]), "float32").save(tmp_path / "alone.tflite")
    assert evaluate.run([f"--model={tmp_path}/alone.tflite", flags[1]]) == 2
    assert "--outputs" in capsys.readouterr().err
    assert evaluate.run([f"--model={tmp_path}/alone.tflite", flags[1], "--outputs=probabilities", "--json"]) == 0
    assert "map" in json.loads(capsys.readouterr().out)
    assert arrays(CASES["multilabel"])["y_test"].shape == (SIZE, 4)
