"""`--target_latency`: met or missed by what was measured, and what does not go together is refused."""

import dataclasses
import json
import types

import numpy as np
import pytest
from tool_inputs import SHORT, kept_channels

from dcp_tf.tflite.latency.stopwatch import machine_name
from dcp_tf.tools import prune
from dcp_tf.tools.app.latency_target import LatencyTarget, judge

WITH_FILES = ("--quantization=float32", "--target_latency=60%")


def target(text="60%", machine=None):
    measurements = types.SimpleNamespace(machine=machine or machine_name())
    table = types.SimpleNamespace(baseline_ms=10.0, measurements=measurements, predict=lambda widths: 5.9)
    return LatencyTarget(text, "float32", 1, "float32", None, table)


def files(share, low, high, conclusive=True, quickest=5.0):
    pruned = {"model": "pruned", "quantization": "float32", "speedup": 1 / share, "conclusive": conclusive}
    pruned |= {"speedup_interval": [1 / high, 1 / low], "latency_ms": {"median": 12 * share, "p10": quickest}}
    return {"pruned_float32.tflite": pruned, "pruned_int8.tflite": {"model": "pruned", "quantization": "int8"}}


@pytest.mark.parametrize(
    ("measured", "met", "words"),
    [
        ((0.58, 0.57, 0.59), True, "met"),
        ((0.63, 0.62, 0.64), False, "missed"),
        ((0.61, 0.59, 0.63), None, "too noisy"),
        ((0.9, 0.5, 1.4, False), None, "too noisy"),
    ],
)
def test_what_was_measured_decides(measured, met, words):
    record, line = judge(target(), {}, files(*measured))
    assert record["met"] is met
    assert words in line.rpartition(":")[2]
    assert record["asked"] == "60%"
    assert record["asked_share"] == pytest.approx(0.6)
    assert record["predicted"] == pytest.approx(0.59)
    assert record["measured"] == pytest.approx(measured[0])
    assert record["measured_interval"] == pytest.approx(list(measured[1:3]))
    json.dumps(record)


def test_milliseconds_are_missed_where_hardly_a_run_is_as_quick():
    assert judge(target("6ms"), {}, files(0.58, 0.57, 0.59))[0]["met"] is True
    record, line = judge(target("6ms"), {}, files(0.58, 0.57, 0.59, quickest=6.5))
    assert record["met"] is False
    assert "more than 6.500 ms" in line


def test_an_emulated_core_decides_by_what_it_counts(tmp_path, monkeypatch):
    counts = {"baseline": 1000, "pruned": 590}
    counted = lambda files, core: types.SimpleNamespace(counts=counts)  # noqa: E731
    monkeypatch.setattr("dcp_tf.tflite.count_instructions", counted, raising=False)
    on_arm = dataclasses.replace(target(machine="emulated Arm cortex-a76 (QEMU 7.2)"), core="cortex-a76")
    both = files(0.9, 0.8, 1.0) | {"baseline_float32.tflite": {"model": "baseline", "quantization": "float32"}}
    record, line = judge(on_arm, {}, both, tmp_path)  # the benchmark of this machine says nothing about it
    assert record["met"] is True
    assert record["measured"] == pytest.approx(0.59)
    assert "M instructions" in line
    counts["pruned"] = 601
    assert judge(on_arm, {}, both, tmp_path)[0]["met"] is False
    of_another = dataclasses.replace(target(machine="emulated Arm cortex-a53 (QEMU 7.2)"), core="cortex-a76")
    assert judge(of_another, {}, both, tmp_path)[0]["met"] is None


def test_what_cannot_be_measured_here_is_said():
    record, line = judge(target(machine="a phone"), {}, files(0.9, 0.8, 1.0))
    assert record["met"] is None
    assert "a phone" in line
    record, line = judge(target(), {}, {})
    assert record["measured"] is None
    assert "not measured" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--target_macs=50%"], "exclude each other"),
        (["--benchmark_runs=0"], "--benchmark_runs"),
        (["--latency_quantization=int8"], "add it to --quantization"),
        (["--target_latency=120%"], "of ms or a share of the baseline below 100%"),
        (["--target_latency=fast"], "received 'fast'"),
        (["--method=dcp_dkp"], "another target than latency"),
        (["--latency_table=nowhere.json"], "there is no file nowhere.json"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(inputs, tmp_path, capsys, flags, words):
    folder = tmp_path / "out"
    assert prune.run([inputs.plain, inputs.data(), f"--output_dir={folder}", *SHORT, *WITH_FILES, *flags]) == 2
    assert words in capsys.readouterr().err
    assert not folder.exists()


def test_a_table_without_a_target_is_refused(inputs, tmp_path, capsys):
    assert prune.run([inputs.plain, f"--output_dir={tmp_path / 'out'}", "--latency_table=a.json"]) == 2
    assert "goes with --target_latency" in capsys.readouterr().err


def table_of(model, folder, **settings):
    """Latencies that grow with the multiplications, as a file."""
    from dcp_tf import tflite
    from dcp_tf.tflite.latency.latency_table import measure_latency_table

    class Timer:
        machine = "a machine of the test"

        def measure(self, contents):
            kind = tflite.Quantization.FLOAT32
            return {n: 1 + tflite.count_macs(tflite.TFLiteFile(c, kind)) / 1e3 for n, c in contents.items()}

    path = folder / "table.json"
    measure_latency_table(model, levels=(0.5,), round_to=2, timer=Timer(), cache=path, **settings)
    return path


def test_a_given_table_sets_the_widths_and_must_fit(inputs, tmp_path, capsys):
    import keras

    from dcp_tf.graph import ChannelGraph
    from dcp_tf.tflite.latency.latency_table import LatencyTable

    model = keras.models.load_model(inputs.residual.partition("=")[2])
    path = table_of(model, tmp_path)
    run = [inputs.residual, inputs.data(), *SHORT, *WITH_FILES, "--method=l1", f"--latency_table={path}"]
    folder = tmp_path / "out"
    assert prune.run([*run, "--target_latency=70%", "--allocation=global", f"--output_dir={folder}"]) == 0
    summary = json.loads((folder / "summary.json").read_text())["target_latency"]
    table = LatencyTable.load(path, ChannelGraph(model))
    widths = {name: len(kept) for name, kept in kept_channels(folder).items()}
    assert summary["predicted_ms"] == pytest.approx(table.predict(widths))
    assert summary["predicted"] <= 0.7
    assert summary["met"] is None  # another machine
    assert np.isfinite(summary["measured"])
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["settings"]["target"]["origin"].startswith("latency table ")
    capsys.readouterr()
    for more, words in (
        (["--prune_residual"], "does not know 1 of the groups"),
        (["--threads=2"], "--threads=1, this run has --threads=2"),
        (["--target_latency=1%"], "cannot be reached"),
        ([inputs.plain], "measured for another model"),
    ):
        assert prune.run([*run, *more, f"--output_dir={tmp_path / 'refused'}"]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "refused").exists()


def test_a_model_open_to_any_size_is_measured_at_the_size_of_the_images(inputs, tmp_path):
    import keras

    from dcp_tf.tools.app import tflite_files

    model = keras.models.load_model(inputs.open.partition("=")[2])
    images = types.SimpleNamespace(train=types.SimpleNamespace(shapes=[(16, 16, 3)]))
    run = [inputs.open, inputs.data("larger"), *SHORT, *WITH_FILES, "--method=l1"]
    path = table_of(tflite_files.fixed_size(model, images), tmp_path)
    assert prune.run([*run, f"--latency_table={path}", f"--output_dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["target_latency"]
    assert found["predicted"] <= 0.6
    assert all(len(kept) < 8 for kept in kept_channels(tmp_path / "out").values())


@pytest.mark.slow
def test_without_a_table_the_layers_are_measured_first_and_a_resumed_run_takes_the_same(tmp_path):
    from dcp_tf import models

    folder, network = tmp_path / "out", tmp_path / "network.keras"
    models.load("zoo:mobilenet_v2_small").model.save(network)  # random weights, the same for both runs
    data = ["--dataset=digits", "--normalization=digits"]
    run = [f"--model={network}", *data, f"--output_dir={folder}", *SHORT, *WITH_FILES, "--benchmark_runs=30"]
    assert prune.run([*run, "--target_latency=80%"]) in (0, 1)  # 1: it was missed on a busy machine
    table, plan = (folder / "latency_table.json").read_text(), (folder / "plan.json").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    found = summary["target_latency"]
    assert found["predicted"] <= 0.8
    assert (found["met"] is False) == any("missed" in line for line in summary["failures"])
    assert prune.run([*run, "--target_latency=80%", "--resume"]) in (0, 1)
    assert (folder / "latency_table.json").read_text() == table
    assert (folder / "plan.json").read_text() == plan
