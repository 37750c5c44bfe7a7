"""Deployment: a step that fails costs its own file alone."""

import json

import numpy as np
import pytest
from tool_inputs import SHORT, plain_model

from dcp_tf import data, tflite
from dcp_tf.settings.deployment import Deployment
from dcp_tf.tflite.verify import checked_file
from dcp_tf.tools import prune
from dcp_tf.tools.app import deployment, tflite_files


@pytest.fixture(scope="module")
def subject():
    from dcp_tf.training import choose_objective

    random = np.random.default_rng(0)
    images, labels = random.random((40, 8, 8, 3)).astype(np.float32), np.arange(40) % 4
    dataset = data.from_arrays(images, labels, test_images=images, test_labels=labels)
    models = {"baseline": plain_model(), "pruned": plain_model()}
    return models, dataset, choose_objective(models["baseline"], dataset.train)


def raising(function, hit, error):
    """The function, which raises in place of the calls for which `hit` gives True."""

    def call(*arguments, **settings):
        if hit(*arguments, **settings):
            raise error
        return function(*arguments, **settings)

    return call


def is_int8(*arguments, **_):
    return "int8" in str(arguments)


STEPS = {
    "converter": (tflite, "convert", lambda model, mode, **_: mode == "int8"),
    "metadata": (tflite, "with_metadata", lambda file, about: about.quantization == "int8"),
    "kernels": (checked_file, "unsupported_operations", lambda file: file.quantization.value == "int8"),
    "parity": (checked_file, "check_parity", lambda file, *_, **__: file.quantization.value == "int8"),
    "inspection": (checked_file, "inspect", lambda file: getattr(file, "quantization", "") == "int8"),
}


ERRORS = [
    RuntimeError("boom"),
    UnicodeEncodeError("utf-8", "ä", 0, 1, "boom"),
    MemoryError(),
    OSError("boom"),
    KeyError(),
]


@pytest.mark.parametrize(("step", "error"), zip(STEPS, ERRORS, strict=True))
def test_a_mode_that_fails_costs_its_files_alone(step, error, subject, tmp_path, monkeypatch):
    module, name, hit = STEPS[step]
    monkeypatch.setattr(module, name, raising(getattr(module, name), hit, error))
    records, failures = deployment.deploy(*subject, tmp_path, Deployment(("int8", "float32"), runs=0), seed=0)
    assert list(records) == ["baseline_float32.tflite", "pruned_float32.tflite"]
    assert {path.name for path in tmp_path.iterdir()} == set(records)
    assert [line.split(":")[0] for line in failures] == ["baseline_int8.tflite", "pruned_int8.tflite"]
    assert not any("\n" in line for line in failures)


def test_a_benchmark_that_fails_costs_the_latency_of_its_mode(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "benchmark", raising(tflite.benchmark, is_int8, RuntimeError("boom")))
    records, failures = deployment.deploy(*subject, tmp_path, Deployment(("int8", "float32"), runs=2), seed=0)
    assert [name for name, record in records.items() if "latency_ms" in record] == [
        "baseline_float32.tflite",
        "pruned_float32.tflite",
    ]
    (line,) = failures
    assert line.startswith("latency of baseline_int8.tflite and pruned_int8.tflite: ")
    assert "boom" in line
    assert json.loads((tmp_path / "benchmark.json").read_text())["baseline"] == {"float32": "baseline_float32.tflite"}


def test_an_unexpected_error_keeps_its_traceback_with_debug(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(tflite_files, "check", raising(tflite_files.check, lambda *_: True, KeyError("boom")))
    with pytest.raises(KeyError):
        deployment.deploy(*subject, tmp_path, Deployment(("float32",), runs=0, debug=True), seed=0)


def test_a_run_whose_deployment_fails_in_parts_leaves_all_else_and_ends_with_1(inputs, tmp_path, capsys, monkeypatch):
    from dcp_tf.report import svg

    monkeypatch.setattr(
        tflite, "convert", raising(tflite.convert, lambda model, mode, **_: mode == "int8", OSError("a"))
    )
    monkeypatch.setattr(tflite, "benchmark", raising(tflite.benchmark, lambda *_, **__: True, OSError("b")))
    monkeypatch.setattr(svg, "_draw", raising(svg._draw, lambda name, *_: name == "macs", OSError("c")))
    flags = [inputs.residual, inputs.data(), f"--output_dir={tmp_path}", *SHORT, "--quantization=int8,float32"]
    assert prune.run(flags) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("prune: baseline_int8.tflite: ")
    for word in ("pruned_int8.tflite", "latency of", "figure 'macs'"):
        assert word in line
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["tflite"]) == ["baseline_float32.tflite", "pruned_float32.tflite"]
    assert summary["pruned"]["top1"] >= 0
    assert "could not be drawn" in (tmp_path / "report.html").read_text()
    for name in ("baseline.keras", "pruned.keras", "plan.json", "pruned_float32.tflite"):
        assert (tmp_path / name).is_file()


def test_the_cause_of_a_file_that_is_too_far_off_is_looked_for(subject, tmp_path, monkeypatch):
    models, dataset, objective = subject
    unlike = data.from_arrays(
        dataset.train.representative(40) / 100,
        np.arange(40) % 4,
        test_images=dataset.test.representative(40),
        test_labels=np.arange(40) % 4,
    )
    settings = Deployment(("int8",), runs=0)
    _, failures = deployment.deploy({"pruned": models["pruned"]}, unlike, objective, tmp_path, settings, seed=0)
    assert "calibrate on images like those" in failures[0]
    convert = tflite.convert

    def noisy(model, *arguments, **options):
        file = convert(model, *arguments, **options)
        layer = model.get_layer("first")
        layer.kernel.assign(np.array(layer.kernel)[::-1] * 3)
        return file

    monkeypatch.setattr(tflite, "convert", noisy)
    _, failures = deployment.deploy({"pruned": plain_model()}, dataset, objective, tmp_path, settings, seed=0)
    assert "as far off on the images that it was calibrated on" in failures[0]
