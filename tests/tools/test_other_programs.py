"""The programs around `prune`: each on the files of a run, or on its way to one."""

import json
import os

import numpy as np
import pytest
from tool_inputs import SHORT, Stop, write_images

from dcp_tf.tools import benchmark, evaluate, export, finetune, inspect_model, prune, quickstart, report, train


def printed_json(program, capsys, *flags):
    capsys.readouterr()
    assert program.run([*flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_quickstart_goes_from_images_to_files(tmp_path, capsys, monkeypatch):
    flags = ["--model=zoo:preresnet8", "--epochs=1", f"--output_dir={tmp_path}", *SHORT, "--batch_size=128"]
    flags += ["--method=l1", "--finetune_epochs=0", "--quantization=int8"]
    assert quickstart.run(flags) == 0
    printed = capsys.readouterr()
    assert "\ntraining zoo:preresnet8 on digits; then 3 groups of channels to prune, 3 residual" in printed.err
    for row in ("Top-1", "Parameters", "MACs", "int8 latency", "int8 top-1"):
        assert row in printed.out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert summary["normalization"] == "digits"
    assert summary["phases"][0]["name"] == "training"
    assert 0.45 < 1 - summary["pruned"]["macs"] / summary["baseline"]["macs"] < 0.55
    # What the run wrote down about its data is found again beside its models.
    found = printed_json(evaluate, capsys, f"--model={tmp_path}/pruned.keras")
    assert found["top1"] == pytest.approx(summary["pruned"]["top1"])
    found = printed_json(evaluate, capsys, f"--model={tmp_path}/pruned_int8.tflite")
    assert found["top1"] == pytest.approx(summary["tflite"]["pruned_int8.tflite"]["top1"])
    # A new run does not go on with what this one found out about another baseline, even if it is stopped and resumed.
    assert (tmp_path / "state" / "pruning").exists()
    monkeypatch.setattr(os, "replace", Stop(os.replace, 1, KeyboardInterrupt()))
    assert quickstart.run([*flags, "--seed=1"]) == 2  # it is finished
    assert quickstart.run([*flags, "--seed=1", "--overwrite"]) == 130
    assert not (tmp_path / "state" / "pruning").exists()


def test_evaluate_measures_files_of_both_kinds_alike(whole_run, inputs, capsys):
    found = printed_json(evaluate, capsys, f"--model={whole_run}/pruned.keras", inputs.data())
    lite = printed_json(evaluate, capsys, f"--model={whole_run}/pruned_float32.tflite", inputs.data())
    assert found["images"] == 80
    assert lite["top1"] == found["top1"]
    assert lite["loss"] == pytest.approx(found["loss"], abs=1e-4)


def test_evaluate_knows_what_one_output_of_a_tflite_file_is(inputs, tmp_path, capsys):
    given = [inputs.sequential, inputs.data("two")]
    assert export.run([*given, f"--output_dir={tmp_path}", "--quantization=float32"]) == 0
    lite = f"--model={tmp_path}/sequential_float32.tflite"
    capsys.readouterr()
    expected = printed_json(evaluate, capsys, *given)
    for told in ([], ["--outputs=probabilities"]):  # the file says it, too
        assert printed_json(evaluate, capsys, lite, inputs.data("two"), *told)["top1"] == expected["top1"]


def test_mean_and_std_of_a_run_are_found_again(inputs, tmp_path, capsys):
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--method=l1"]
    assert prune.run([*flags, "--mean=0.4", "--std=0.2"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    found = printed_json(evaluate, capsys, f"--model={tmp_path}/pruned.keras", inputs.data())
    assert found["top1"] == pytest.approx(summary["pruned"]["top1"])
    other = printed_json(evaluate, capsys, f"--model={tmp_path}/pruned.keras", inputs.data(), "--normalization=none")
    assert other["loss"] != pytest.approx(found["loss"])
    # The next run hands them on.
    longer = tmp_path / "longer"
    flags = [f"--model={tmp_path}/pruned.keras", inputs.data(), f"--output_dir={longer}", "--batch_size=32"]
    assert finetune.run([*flags, "--finetune_epochs=0"]) == 0
    again = printed_json(evaluate, capsys, f"--model={longer}/pruned.keras", inputs.data())
    assert again["loss"] == pytest.approx(found["loss"])
    # Nor is what was fine-tuned on some images taken for what was fine-tuned on others.
    assert finetune.run([*flags, "--finetune_epochs=1", "--overwrite"]) == 0
    assert finetune.run([*flags, "--finetune_epochs=1", "--mean=0.5", "--std=0.2", "--resume"]) == 2
    assert "other training images" in capsys.readouterr().err.splitlines()[-1]


def test_train_finetune_and_report(inputs, tmp_path, capsys):
    run, longer = tmp_path / "run", tmp_path / "longer"
    given = [inputs.data(), "--batch_size=32"]
    assert train.run(["--model=zoo:preresnet8", *given, f"--output_dir={run}", "--epochs=1"]) == 0
    printed = capsys.readouterr()
    assert f"written to {run}: baseline.keras, flags.txt, summary.json" in printed.err
    assert "parameters" in printed.out
    baseline = f"{run}/baseline.keras"
    # The network was built for the 8 x 8 images at twice their size.
    flags = [f"--model={baseline}", *given, "--resize", f"--output_dir={longer}", "--finetune_epochs=1"]
    assert finetune.run([*flags, f"--teacher={baseline}", "--distillation=0.5"]) == 0
    printed = capsys.readouterr()
    assert "normalization: cifar10 (from " in printed.err
    assert f"written to {longer}: flags.txt, pruned.keras, summary.json" in printed.err
    assert {"pruned.keras", "summary.json"} <= {path.name for path in longer.iterdir()}
    summary = json.loads((longer / "summary.json").read_text())
    (phase,) = summary["phases"]
    assert phase["held_out"].keys() == {"images", "metric", "kept_epoch", "kept", "before"}
    assert summary["settings"]["clip_norm"] == phase["clip_norm"] == 1.0
    assert summary["settings"]["held_out"] == phase["held_out"]["images"] > 0
    assert "before fine-tuning" in printed.err  # which epoch was kept
    assert report.run([f"--output_dir={longer}"]) == 0
    assert (longer / "report.html").is_file()


def test_a_teacher_for_other_classes_is_refused(inputs, tmp_path, capsys):
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", "--distillation=0.5"]
    assert finetune.run([*flags, f"--teacher={inputs.folder}/sequential.keras"]) == 2
    assert "1 outputs, not 4" in capsys.readouterr().err


def test_export_writes_beside_the_model(copied_run, inputs, capsys):
    for path in copied_run.glob("*.tflite"):
        path.unlink()
    flags = [f"--model={copied_run}/pruned.keras", inputs.data(), "--quantization=float32,int8", "--int8_io=int8"]
    assert export.run(flags) == 0
    assert {path.name for path in copied_run.glob("*.tflite")} == {"pruned_float32.tflite", "pruned_int8_io8.tflite"}
    printed = capsys.readouterr()
    assert "agrees with Keras" in printed.out
    assert f"written to {copied_run}: pruned_float32.tflite, pruned_int8_io8.tflite" in printed.err


def test_benchmark_compares_files(whole_run, tmp_path, capsys):
    files = ",".join(str(whole_run / f"{name}_int8.tflite") for name in ("baseline", "pruned"))
    assert benchmark.run([f"--models={files}", "--runs=3", "--warmup=1", f"--output_dir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(found["candidates"]) == {"baseline_int8.tflite", "pruned_int8.tflite"}
    assert f"written: {tmp_path}/benchmark.json" in capsys.readouterr().err
    assert benchmark.run([f"--models={whole_run}/pruned_int8.tflite,{whole_run}/pruned_int8.tflite"]) == 2
    assert "twice" in capsys.readouterr().err


def test_report_of_a_run(copied_run, capsys):
    (copied_run / "report.html").unlink()
    assert report.run([f"--output_dir={copied_run}"]) == 0
    assert f"written: {copied_run}/report.html" in capsys.readouterr().out
    assert "<html" in (copied_run / "report.html").read_text()


def test_inspect_model_lists_groups_and_layers(inputs, capsys):
    found = printed_json(inspect_model, capsys, inputs.residual)
    groups = {group["name"]: group for group in found["groups"]}
    shares = {key: groups["inside"].pop(key) for key in ("params_share", "macs_share")}
    assert 0 < shares["params_share"] < shares["macs_share"] < 1
    assert groups["inside"] == {
        "name": "inside",
        "size": 8,
        "producers": ["inside"],
        "consumers": ["back"],
        "residual": False,
        "recurrent": False,
        "pinned_because": None,
    }
    assert groups["stem"]["residual"]
    assert "output of the model" in groups["classes"]["pinned_because"]
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert layers["wide"]["outputs"] == [[4, 4, 12]]
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert inspect_model.run([inputs.residual, "--layers"]) == 0
    assert "joined" in capsys.readouterr().out


def test_inspect_model_of_an_open_size(inputs, capsys):
    assert inspect_model.run([inputs.open, "--input_shape=16,16"]) == 2
    assert "takes inputs of shape (None, None, 3), not (16, 16)" in capsys.readouterr().err
    assert printed_json(inspect_model, capsys, inputs.open, "--input_shape=16,16,3")["macs"] > 0


def test_inspect_model_of_mobilenet_v2(capsys):
    found = printed_json(inspect_model, capsys, "--model=keras:MobileNetV2")
    assert found["params"] == 3_504_872
    expansions = [g for g in found["groups"] if g["pinned_because"] is None and not g["residual"]]
    assert len(expansions) >= 17
    assert all(g["producers"] and (g["consumers"] or g["pinned_because"]) for g in found["groups"])


@pytest.mark.parametrize("name", ["larger", "gray"])
def test_resize_brings_arrays_to_the_model(name, inputs, capsys):
    assert printed_json(evaluate, capsys, inputs.residual, inputs.data(name), "--resize")["images"] == 48


def test_a_network_that_starts_at_random_is_said(inputs, capsys):
    assert evaluate.run(["--model=zoo:preresnet8", inputs.data()]) == 0
    assert "zoo:preresnet8 starts from random weights" in capsys.readouterr().err


def test_labels_of_one_column_and_whole_number_pixels_are_taken(inputs, tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8) for part in ("train", "test")}
    arrays |= {f"y_{part}": (np.arange(32) % 4)[:, None] for part in ("train", "test")}
    data = write_images(tmp_path / "bytes.npz", **arrays)
    assert 0 <= printed_json(evaluate, capsys, inputs.residual, f"--dataset=npz:{data}")["top1"] <= 1


def test_a_model_that_rescales_gets_raw_pixels_unless_told_otherwise(tmp_path, capsys):
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(4)])
    model.save(tmp_path / "own.keras")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    labels = model(images.astype("float32")).numpy().argmax(-1)
    np.savez(tmp_path / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    given = [f"--model={tmp_path}/own.keras", f"--dataset=npz:{tmp_path}/set.npz"]
    assert evaluate.run(given) == 0
    printed = capsys.readouterr()
    assert "pixels: 0 to 255 (the model begins with Rescaling" in printed.err
    assert "top1           1.0000" in printed.out
    assert evaluate.run([*given, "--normalization=none"]) == 0
    assert "pixels:" not in capsys.readouterr().err


def test_train_says_what_it_learns_from_the_labels(tmp_path, capsys):
    grades = {f"y_{part}": np.arange(count, dtype=float) % 3 for part, count in (("train", 48), ("test", 24))}
    path = write_images(tmp_path / "floats.npz", size=48, **grades)
    flags = ["--model=zoo:preresnet8", f"--dataset=npz:{path}", f"--output_dir={tmp_path / 'run'}", "--epochs=1"]
    assert train.run(flags) == 0
    assert "loss: mean squared error (from the outputs and the labels; --loss overrides)" in capsys.readouterr().err


def test_a_training_does_not_go_on_with_other_data(inputs, tmp_path, capsys):
    flags = ["--model=zoo:preresnet8", f"--output_dir={tmp_path / 'run'}", "--epochs=1", "--resume"]
    given = [f"--dataset=npz:{write_images(tmp_path / name, size=32)}" for name in ("one.npz", "same.npz")]
    images = np.load(tmp_path / "one.npz")["x_train"]
    other = f"--dataset=npz:{write_images(tmp_path / 'other.npz', size=32, x_train=1 - images)}"
    assert train.run([*flags, given[0]]) == 0
    trained = (tmp_path / "run" / "baseline.keras").read_bytes()
    for changed in ([other], [given[0], "--augmentation=none"]):
        capsys.readouterr()
        assert train.run([*flags, *changed]) == 2
        assert "baseline.npz was saved by a run with other settings (other training images" in capsys.readouterr().err
        assert (tmp_path / "run" / "baseline.keras").read_bytes() == trained
    assert train.run([*flags, given[1]]) == 0
