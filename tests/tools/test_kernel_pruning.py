"""`prune` and `finetune` where single kernels go: what they write and show, flags without meaning, killed runs."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tool_inputs import CHECKOUT, SHORT, contents

import dcp_tf
from dcp_tf.tools import finetune, prune, report

FLAGS = [flag for flag in SHORT if not flag.startswith("--round_to")]


def zeros(folder):
    """Layer -> kernels and those that are kept, of the pruned model in a folder."""
    import keras

    from dcp_tf.graph import kernel_sparsity

    model = keras.models.load_model(folder / "pruned.keras")
    return {each.path: (each.total, each.kept) for each in kernel_sparsity(model)}


@pytest.fixture(scope="module")
def run_folder(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dkp")
    given = [inputs.residual, inputs.data(), f"--output_dir={folder}", *FLAGS, "--benchmark_runs=0"]
    assert prune.run([*given, "--method=dkp", "--rate=0.5", "--quantization=float32,sparse"]) == 0
    return folder


def test_a_run_leaves_zeros_in_every_record(run_folder):
    summary, plan = (json.loads((run_folder / f"{name}.json").read_text()) for name in ("summary", "plan"))
    found = zeros(run_folder)
    assert list(found) == ["inside", "back", "wide"]
    assert found["wide"] == (96, 48)  # the others are fewer where a channel went
    assert all(found[name][1] <= 32 for name in ("inside", "back"))
    recorded = summary["pruned"]["kernel_sparsity"]
    assert {name: (each["kernels"], each["kept"]) for name, each in recorded.items()} == found
    assert recorded["wide"]["sparsity"] == pytest.approx(48 / 96)
    assert [layer["layer"] for layer in plan["kernels"]] == list(found)
    assert summary["pruned"]["macs"] == macs({name: total for name, (total, _) in found.items()})
    assert summary["pruned"]["nominal_macs"] == macs({name: kept for name, (_, kept) in found.items()})
    assert "nominal_macs" not in summary["baseline"]
    sizes = {name: record["bytes"] for name, record in summary["tflite"].items()}
    assert sizes["pruned_sparse.tflite"] < sizes["pruned_float32.tflite"]
    assert all(record["top1_agreement"] == 1.0 for record in summary["tflite"].values())


def macs(kernels):
    """Of the residual model with so many kernels in its layers."""
    stem, classes = 64 * 9 * 3 * 8, 16 * 12 * 4
    return stem + 64 * 9 * (kernels["inside"] + kernels["back"]) + 16 * 9 * kernels["wide"] + classes


def test_the_plan_gives_the_same_zeros_again(run_folder):
    import keras

    model = keras.models.load_model(run_folder / "baseline.keras")
    smaller = dcp_tf.PruningPlan.load(run_folder / "plan.json").apply(model)
    pruned = keras.models.load_model(run_folder / "pruned.keras")
    for name in zeros(run_folder):
        a, b = (m.get_layer(name).kernel.numpy() for m in (smaller, pruned))
        np.testing.assert_array_equal((a != 0).any((0, 1)), (b != 0).any((0, 1)))


def test_table_and_page_show_the_layers(run_folder, capsys):
    assert report.run([f"--output_dir={run_folder}"]) == 0
    printed, page = capsys.readouterr().out, (run_folder / "report.html").read_text()
    assert "without zero kernels" in printed
    assert "Kernels of the pruned model" in printed
    assert "50.00%" in printed  # of `wide`
    assert "Kernels kept in each layer" in page
    assert "48 of 96" in page
    kept, total = (sum(each[i] for each in zeros(run_folder).values()) for i in (1, 0))
    assert f"{kept} of {total} kernels" in page
    assert "(kernels)" in page  # the course of the selection


def test_finetune_holds_zeros_and_says_so(run_folder, inputs, tmp_path, capsys):
    given = [f"--model={run_folder}/pruned.keras", inputs.data(), "--finetune_epochs=1", "--batch_size=32"]
    teacher = [f"--teacher={run_folder}/baseline.keras", "--distillation=0.5"]
    assert finetune.run([*given, *teacher, f"--output_dir={tmp_path}"]) == 0
    kept, total = (sum(each[i] for each in zeros(run_folder).values()) for i in (1, 0))
    assert f"kept at zero: {total - kept} of {total} kernels in 3 layers" in capsys.readouterr().err
    assert zeros(tmp_path) == zeros(run_folder)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["pruned"]["kernel_sparsity"]["wide"]["kept"] == 48


def test_channels_first_then_kernels(inputs, tmp_path, capsys):
    given = [inputs.plain, inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--method=dcp_dkp", "--kernel_rate=0.25"]
    assert prune.run(given) == 0
    assert "2 groups of channels to prune, 1 layer of kernels to prune" in capsys.readouterr().err
    assert zeros(tmp_path) == {"second": (16, 12)}


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        *(
            ("dkp", flag)
            for flag in ("round_to=8", "min_channels=2", "rates=wide=0.3", "epsilon=0.1", "kernel_rate=0.2")
        ),
        *(("adapt_dkp", flag) for flag in ("round_to=1", "kernel_rate=0.2", "update")),
        *(("dcp_dkp", flag) for flag in ("epsilon=0.1", "update")),
        *(("dcp", "kernel_rate=0.2"), ("l1", "kernel_rate=0.2")),
    ],
)
def test_settings_that_mean_nothing_to_a_method_are_refused(method, flag, inputs, tmp_path, capsys):
    given = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}/out", *FLAGS]
    assert prune.run([*given, f"--method={method}", f"--{flag}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"prune: --{flag.partition('=')[0]} means nothing to {method}")
    assert not (tmp_path / "out").exists()


def test_a_score_needs_the_exact_selection(inputs, tmp_path, capsys):
    given = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", *FLAGS, "--method=dkp", "--score=code"]
    assert prune.run(given) == 2
    assert "--selection=exact" in capsys.readouterr().err


def test_a_model_without_kernels_is_one_line(inputs, tmp_path, capsys):
    given = [inputs.unprunable, inputs.data(), f"--output_dir={tmp_path}", *FLAGS, "--method=dkp"]
    assert prune.run(given) == 2
    assert "no layer whose kernels could be pruned" in capsys.readouterr().err


# Runs that are killed


def digits_model():
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    x = image = keras.Input((8, 8, 1))
    for number in range(4):
        x = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(layers.BatchNormalization(name=f"norm{number}")(x))
    return keras.Model(image, layers.Dense(10, name="classes")(layers.GlobalAveragePooling2D(name="pool")(x)))


def started(command):
    """A process of its own, when its work has begun."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.stderr.readline()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcp", "dkp"])
def test_killed_at_ten_random_moments_and_resumed_the_plan_is_the_same(method, tmp_path):
    digits_model().save(tmp_path / "model.keras")
    flags = [
        f"--model={tmp_path}/model.keras",
        "--dataset=digits",
        f"--method={method}",
        "--selection=exact",
        "--seed=5",
    ]
    flags += ["--aux_epochs=2", "--finetune_epochs=2", "--selection_samples=256", "--per_step=1", "--quantization="]
    command = [sys.executable, "-m", "dcp_tf.tools.prune", *flags]
    process, begun = started([*command, f"--output_dir={tmp_path}/whole"]), time.perf_counter()
    process.stderr.read()
    assert process.wait() == 0
    seconds, wanted = time.perf_counter() - begun, (tmp_path / "whole" / "plan.json").read_bytes()
    rng = random.Random(11)
    for number in range(10):
        folder = tmp_path / f"killed{number}"
        process = started([*command, f"--output_dir={folder}"])
        time.sleep(rng.uniform(number, number + 1) / 10 * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert prune.run([*flags, f"--output_dir={folder}", "--resume"]) == 0
        assert (folder / "plan.json").read_bytes() == wanted
        assert not [name for name in contents(folder) if ".writing" in name]
        assert zeros(folder) == zeros(tmp_path / "whole")


def test_zeros_behind_dead_channels_are_not_told_as_pruned_kernels(inputs, tmp_path, capsys):
    import keras
    import numpy as np

    model = keras.models.load_model(inputs.folder / "plain.keras")
    model.get_layer("first").bias.assign(np.where(np.arange(8) < 6, -100.0, 0.0))
    model.save(tmp_path / "dead.keras")
    given = [f"--model={tmp_path / 'dead.keras'}", inputs.data(), f"--output_dir={tmp_path / 'out'}", *SHORT]
    assert prune.run([*given, "--method=dcp", "--rate=0.5"]) == 0
    assert zeros(tmp_path / "out")  # the fit gives dead inputs no weight
    assert "Kernels" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert not {"kernel_sparsity", "nominal_macs"} & set(summary["pruned"])
    given = [f"--model={tmp_path / 'out' / 'pruned.keras'}", inputs.data(), f"--output_dir={tmp_path / 'longer'}"]
    assert finetune.run([*given, "--finetune_epochs=1", "--batch_size=32", "--noreload_check"]) == 0
    assert "kept at zero" not in capsys.readouterr().err
