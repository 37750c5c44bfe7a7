"""The programs that measure: `benchmark` on this machine and `latency_table`. (Android: tests/tflite.)"""

import json
import os

import pytest
from tool_inputs import CHECKOUT, plain_model, run_process

from dcp_tf.tools import benchmark, latency_table


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    from dcp_tf import tflite

    return tflite.convert(plain_model()).save(tmp_path_factory.mktemp("files") / "plain.tflite").path


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_benchmark_pins_profiles_and_writes(file, tmp_path, capsys):
    cpu = max(os.sched_getaffinity(0))
    flags = [f"--models={file}", "--runs=3", "--warmup=1", f"--cpu={cpu}", "--profile", f"--output_dir={tmp_path}"]
    assert benchmark.run(flags) == 0
    found = json.loads((tmp_path / "benchmark.json").read_text())
    candidate = found["candidates"]["plain.tflite"]
    assert found["cpus"] == [cpu]
    assert candidate["peak_memory_mib"] > candidate["model_memory_mib"] > 0
    assert "CONV_2D" in {operation["kind"] for operation in candidate["operations"]}
    out = capsys.readouterr().out
    assert "pinned to processor" in out
    assert "Operations of plain.tflite" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cpu=one"], "--cpu takes numbers"),
        (["--cpu=9999"], "processor 9999"),
        (["--delegates=gpu"], "--delegates is for --device=android"),
        (["--device=android", "--cpu=0"], "--cores"),
    ],
)
def test_wrong_flags_of_benchmark(flags, words, file, capsys):
    assert benchmark.run([f"--models={file}", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_comma_too_many_is_refused(file, capsys):
    assert benchmark.run([f"--models={file},"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"extra comma, which names an empty file. Received: {file}," in line


def test_latency_table_is_measured_once(inputs, tmp_path, capsys):
    flags = [inputs.residual, f"--output_dir={tmp_path}", "--levels=0.5", "--round_to=2"]
    assert latency_table.run(flags) == 0
    captured = capsys.readouterr()
    assert "predicted ms" in captured.out
    assert f"written: {tmp_path}/latency_table.json" in captured.err
    before = (tmp_path / "latency_table.json").stat().st_mtime_ns
    found = json.loads((tmp_path / "latency_table.json").read_text())
    assert set(found["groups"]) == {"inside", "wide"}
    assert latency_table.run(flags) == 0
    assert (tmp_path / "latency_table.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--levels=half"], "--levels takes numbers"),
        (["--levels=2"], "levels must be shares"),
        (["--quantization=int7"], "int7"),
        (["--device=android"], "android_aarch64_benchmark_model"),
    ],
)
def test_wrong_flags_of_latency_table(flags, words, inputs, tmp_path, capsys):
    assert latency_table.run([inputs.residual, f"--output_dir={tmp_path}", *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert latency_table.run([inputs.residual]) == 2
    assert "--output_dir" in capsys.readouterr().err


def test_latency_table_s_help_is_instant_and_its_file_runs_anywhere(tmp_path):
    program = CHECKOUT / "tools" / "latency_table.py"
    done = run_process(program, "--help", cwd=tmp_path, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python {program} [FLAGS]")
    assert max(map(len, done.stdout.splitlines())) <= 120
