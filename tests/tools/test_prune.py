"""What a run of `prune` leaves behind."""

import json

import numpy as np
import pytest
from tool_inputs import SHORT, WHOLE, architecture, contents, kept_channels, run_process

import dcp_tf
from dcp_tf.tools import prune

FILES = {
    *("baseline.keras", "pruned.keras", "plan.json", "summary.json", "benchmark.json", "report.html"),
    *("baseline_float32.tflite", "pruned_float32.tflite", "baseline_int8.tflite", "pruned_int8.tflite"),
    *("answers.json", "events", "state", "flags.txt"),
}

PLAIN_KERAS = """
import sys
sys.modules["dcp_tf"] = None  # an import of it would fail
import keras, numpy as np
images = np.load(sys.argv[1])["x_test"]
for model, found in zip(sys.argv[2::2], sys.argv[3::2]):
    np.save(found, keras.models.load_model(model).predict(images, verbose=0))
assert not any(name.startswith("dcp_tf.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def summary(whole_run):
    return json.loads((whole_run / "summary.json").read_text())


def load(folder, name):
    import keras

    return keras.models.load_model(folder / f"{name}.keras")


def test_exactly_the_promised_files(whole_run):
    assert {path.name for path in whole_run.iterdir()} == FILES
    assert list((whole_run / "events").glob("events.out.tfevents.*"))
    assert not list(whole_run.rglob(".*")), "temporary files were left"


def test_summary_has_what_was_measured(summary, whole_run):
    for name in ("baseline", "pruned"):
        assert {"params", "macs", "top1"} <= set(summary[name])
        assert 0 <= summary[name]["top1"] <= 1
    assert set(summary["tflite"]) == {name for name in FILES if name.endswith(".tflite")}
    for name, record in summary["tflite"].items():
        assert record["bytes"] == (whole_run / name).stat().st_size
        assert 0 <= record["top1"] <= 1
        assert 0 <= record["top1_agreement"] <= 1
        assert record["latency_ms"]["p10"] <= record["latency_ms"]["median"] <= record["latency_ms"]["p90"]
        assert record["speedup"] > 0
    assert summary["seed"] == 3
    assert summary["settings"]["rate"] == 0.5
    assert {"python", "tensorflow", "keras", "numpy"} <= set(summary["versions"])
    phases = {phase["name"] for phase in summary["phases"]}
    assert phases == {"auxiliary", "selection", "recovery", "fine-tuning", "deployment"}
    assert all(phase["seconds"] >= 0 for phase in summary["phases"])
    assert [p["distillation"] for p in summary["phases"] if p["name"] == "fine-tuning"] == [0.5]
    assert summary["wall_seconds"] > 0
    assert summary["failures"] == []


def test_the_answers_of_both_models_are_those_that_were_measured(whole_run, summary, inputs):
    found = json.loads((whole_run / "answers.json").read_text())
    data = np.load(inputs.folder / "four.npz")
    labels = data["y_test"].ravel()
    images, before, after = zip(*found["per_class"], strict=True)
    assert list(images) == np.bincount(labels).tolist()
    for right, name in ((before, "baseline"), (after, "pruned")):
        assert sum(right) / len(labels) == pytest.approx(summary[name]["top1"])
    assert sum(after) - sum(before) == found["changed"]["gained"] - found["changed"]["lost"]
    for example in found["examples"]:
        assert example["label"] == labels[example["image"]]
        assert example["baseline"] != example["pruned"]
        assert example["picture"].startswith("data:image/png;base64,")
    assert len(found["examples"]) == min(10, sum(found["changed"].values()))


def test_the_layers_are_those_of_both_models(whole_run, summary):
    for layer in summary["layers"]:
        for name, width in (("baseline", layer["before"]), ("pruned", layer["after"])):
            assert load(whole_run, name).get_layer(layer["layer"]).kernel.shape[-1] == width
    assert sum(layer["macs_after"] for layer in summary["layers"]) == summary["pruned"]["macs"]


@pytest.mark.slow  # the run's own check, whose tests are not, does the same
def test_pruned_model_loads_and_runs_in_plain_keras(whole_run, inputs, tmp_path):
    images, names = inputs.folder / "four.npz", ("baseline", "pruned")
    files = [path for name in names for path in (whole_run / f"{name}.keras", tmp_path / f"{name}.npy")]
    # Without the checkout on the path, and with an import of dcp_tf made to fail.
    done = run_process(images, *files, code=PLAIN_KERAS, env={"PYTHONPATH": ""}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in names:
        expected = load(whole_run, name).predict(np.load(images)["x_test"], verbose=0)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-5)


def test_the_baseline_is_the_model_that_was_given(whole_run, inputs):
    import keras

    given = keras.models.load_model(inputs.folder / "residual.keras")
    for ours, theirs in zip(load(whole_run, "baseline").weights, given.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_plan_applies_again_to_the_baseline(whole_run):
    baseline, pruned = load(whole_run, "baseline"), load(whole_run, "pruned")
    again = dcp_tf.PruningPlan.load(whole_run / "plan.json").apply(baseline)
    assert architecture(again) == architecture(pruned)


def test_the_model_is_smaller_by_what_the_plan_says(whole_run, summary):
    baseline, pruned = load(whole_run, "baseline"), load(whole_run, "pruned")
    kept = kept_channels(whole_run)
    assert {name: len(channels) for name, channels in kept.items()} == {"inside": 4, "wide": 6}
    assert pruned.get_layer("inside").kernel.shape == (3, 3, 8, 4)
    assert pruned.get_layer("back").kernel.shape == (3, 3, 4, 8)
    assert pruned.get_layer("wide").kernel.shape == (3, 3, 8, 6)
    assert pruned.get_layer("classes").kernel.shape == (4 * 4 * 6, 4)
    # Filters and biases of 4 and 6 channels, and what reads them: 3x3 to 8, 4x4 positions to 4.
    lost = 4 * (9 * 8 + 1) + 4 * 9 * 8 + 6 * (9 * 8 + 1) + 6 * 16 * 4
    assert baseline.count_params() - pruned.count_params() == lost
    assert summary["baseline"]["params"] - summary["pruned"]["params"] == lost
    for mode in ("float32", "int8"):
        sizes = [summary["tflite"][f"{name}_{mode}.tflite"]["bytes"] for name in ("pruned", "baseline")]
        assert sizes[0] < sizes[1]


def test_the_same_seed_gives_the_same_plan_and_another_run_replaces_the_first(whole_run, copied_run, inputs, capsys):
    flags = [inputs.residual, inputs.data(), f"--output_dir={copied_run}", *WHOLE]
    before = contents(copied_run)
    assert prune.run(flags) == 2
    assert "holds a finished run" in capsys.readouterr().err.splitlines()[-1]
    assert contents(copied_run) == before
    assert prune.run([*flags, "--overwrite"]) == 0
    assert (copied_run / "plan.json").read_bytes() == (whole_run / "plan.json").read_bytes()
    # Without --quantization, the TFLite files of the run before do not stay beside models that they are not of.
    assert {path.name for path in copied_run.iterdir()} == {n for n in FILES if "tflite" not in n} - {"benchmark.json"}
    said = capsys.readouterr().err
    assert f"written to {copied_run}: answers.json, baseline.keras, events, flags.txt, plan.json" in said


def test_it_says_at_the_start_what_will_happen(inputs, tmp_path, capsys):
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path / 'out'}", *SHORT, "--method=l1"]
    assert prune.run([*flags, "--finetune_epochs=0", "--exclude=wide"]) == 0
    note, *said = capsys.readouterr().err.splitlines()
    assert note.startswith("note: --selection_samples, --selection_batch, --aux_epochs have no effect with --method=l1")
    baseline, *said = [line for line in said if not line.startswith(("warning: the model is", "  "))]
    assert baseline.startswith("baseline: top1 0.")
    assert said[0] == "outputs: softmax (from the last activation; --outputs overrides)"
    expected = "1 group of channels to prune, 1 residual stream stays, 1 excluded, 1 pinned (dcp-tf inspect lists them)"
    assert said[1] == "loss: softmax cross-entropy (from the outputs and the labels; --loss overrides)"
    assert said[2] == expected


def test_leftovers_of_a_killed_run_are_cleared(copied_run, inputs):
    (copied_run / "state" / ".writing-abc.npz").write_bytes(b"half")
    (copied_run / ".writing-abc.keras").write_bytes(b"half")
    flags = [inputs.residual, inputs.data(), f"--output_dir={copied_run}", *WHOLE, "--resume"]
    assert prune.run(flags) == 0
    assert not [name for name in contents(copied_run) if ".writing" in name]
