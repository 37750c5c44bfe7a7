import json
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest
import rich.console
import tflite_models as nets
from keras import layers

from dcp_tf import files, tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.latency import benchmark
from dcp_tf.tflite.latency.speedup import compare
from dcp_tf.tflite.latency.stopwatch import Stopwatch, adapter, measure_interleaved


@pytest.fixture(scope="module")
def light():
    return tflite.convert(_convolutions(1))


@pytest.fixture(scope="module")
def heavy():
    return tflite.convert(_convolutions(12))


def _convolutions(depth):
    x = inputs = keras.Input((24, 24, 16))
    for _ in range(depth):
        x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, x)


def test_ten_times_the_work_is_slower(light, heavy, tmp_path):
    path = heavy.save(tmp_path / "heavy.tflite").path
    result = tflite.benchmark({"heavy": path, "light": light}, runs=12, warmup=3)
    first, second = result.latencies.values()
    assert list(result.latencies) == ["heavy", "light"]
    assert second.speedup > 2  # 12 on an idle machine
    assert second.speedup_low <= second.speedup <= second.speedup_high
    assert first.speedup == first.speedup_low == first.speedup_high == 1
    for latency in (first, second):
        assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
        assert latency.runs == 12
        assert latency.delegate == "XNNPACK"
    assert second.invocations_per_run > 1


def test_result_is_json_and_a_table(light, tmp_path):
    result = tflite.benchmark({"a": light, "b": light}, runs=3, warmup=0, threads=2, seed=5)
    written = json.loads(files.write_json(tmp_path / "benchmark.json", result.to_json()).read_text())
    assert written["threads"] == 2
    assert written["baseline"] == "a"
    assert written["candidates"]["b"]["conclusive"] is False  # three runs say nothing
    text = printed(result.table())
    assert "too few runs" in text
    assert "XNNPACK" in text


def test_latencies_are_the_median_and_the_outer_tenths_of_all_runs(light, monkeypatch):
    times = np.stack([np.random.default_rng(seed).permutation(101) + 1.0 for seed in (0, 1)])
    monkeypatch.setattr(benchmark, "measure_interleaved", lambda *_, **__: times)
    for latency in tflite.benchmark({"a": light, "b": light}, runs=101, warmup=0).latencies.values():
        assert (latency.p10_ms, latency.median_ms, latency.p90_ms) == (11, 51, 91)


def printed(table):
    console = rich.console.Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("ratio", "noise", "conclusive", "text"),
    [
        (2.0, 0.02, True, "2.0"),
        (0.5, 0.02, True, "0.5"),
        (1.0, 0.05, False, "no difference"),
        (1.5, 1.0, False, "too noisy"),
    ],
)
def test_a_ratio_is_shown_only_where_the_measurement_carries_it(ratio, noise, conclusive, text):
    random = np.random.default_rng(0)
    baseline = np.exp(random.normal(0, noise, 30))
    times = np.exp(random.normal(0, noise, 30)) / ratio
    found = compare(baseline, times, 10, np.random.default_rng(1))
    assert found.conclusive is conclusive
    assert text in found.text()
    assert any(letter.isdigit() for letter in found.text()) is (not found.too_noisy)
    assert found.low <= found.value <= found.high
    assert found == compare(baseline, times, 10, np.random.default_rng(1))


def test_a_time_of_nothing_gives_no_ratio():
    ones, random = np.ones(10), np.random.default_rng(1)
    for baseline, times in ((ones, 0 * ones), (0 * ones, ones)):
        with pytest.raises(RunError, match="0 ms, too short for the clock"):
            compare(baseline, times, 10, random)


def test_a_noisy_machine_gets_no_ratio_in_the_table_and_its_interval_in_the_json(light, monkeypatch):
    random = np.random.default_rng(0)
    monkeypatch.setattr(Stopwatch, "measure", lambda *_: float(np.exp(random.normal(2, 1))))
    result = tflite.benchmark({"a": light, "b": light}, runs=20, warmup=0)
    text = printed(result.table())
    assert "too noisy" in text
    assert "measure again" in " ".join(text.split())
    found = result.to_json()["candidates"]["b"]
    assert found["conclusive"] is False
    assert found["too_noisy"] is True
    assert found["speedup_low"] < found["speedup"] < found["speedup_high"]


def test_memory_is_that_of_the_candidate_s_own_process():
    small = tflite.convert(keras.Sequential([keras.Input((16,)), layers.Dense(16)]))
    large = tflite.convert(keras.Sequential([keras.Input((2048,)), layers.Dense(4096)]))  # 32 MiB of weights
    memory = tflite.benchmark({"small": small, "large": large}, runs=2, warmup=1).memory
    assert memory["small"][1] < 16
    assert 32 < memory["large"][1] < 128
    assert memory["large"][0] > memory["large"][1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_processes_are_pinned(light, monkeypatch):
    pinned = []
    original = Stopwatch.settle

    def settle(self, *arguments):
        pinned.append(os.sched_getaffinity(self._process.pid))
        return original(self, *arguments)

    monkeypatch.setattr(Stopwatch, "settle", settle)
    cpu = max(os.sched_getaffinity(0))
    result = tflite.benchmark({"a": light, "b": light}, runs=2, warmup=1, cpus=[cpu])
    assert pinned == [{cpu}, {cpu}]
    assert result.to_json()["cpus"] == [cpu]
    assert f"pinned to processor {cpu}" in printed(result.table())


def test_every_candidate_is_measured_once_a_run_and_the_first_one_changes():
    class Clock:
        def measure(self, name, invocations):
            order.append(name)
            return float(ord(name) - ord("a") + 1) * invocations

    order = []
    times = measure_interleaved([Clock(), Clock(), Clock()], "abc", [1, 10, 100], 4)
    assert "".join(order) == "abcbcacababc"
    np.testing.assert_array_equal(times, [[1] * 4, [20] * 4, [300] * 4])


def test_compiled_models_give_the_interpreter_s_outputs():
    first, second = keras.Input((8, 8, 3)), keras.Input((2,), dtype="int32")
    total = layers.Concatenate()([layers.Flatten()(first), layers.Embedding(4, 3)(second)[:, 0]])
    two = tflite.convert(keras.Model([first, second], [layers.Dense(2)(total), layers.Dense(3)(first[:, 0, 0])]))
    int8 = tflite.convert(nets.sequential(), "int8", representative_data=nets.images(), io="int8")
    result = tflite.benchmark({"two": two, "int8": int8}, runs=2, warmup=1, runtime="compiled")
    assert result.differences["int8"] == 0
    assert result.differences["two"] < 1e-6
    assert {latency.delegate for latency in result.latencies.values()} == {"XNNPACK"}
    found = result.to_json()
    assert (found["runtime"], found["accelerator"]) == ("compiled", "cpu")
    assert found["candidates"]["int8"]["difference_to_interpreter"] == 0
    text = printed(result.table())
    assert "CompiledModel on the CPU" in text
    assert "differs" in text


def test_outputs_that_differ_between_the_runtimes_are_shown(monkeypatch):
    pixels = keras.Input((4,))
    tiny = tflite.convert(keras.Model(pixels, layers.Dense(3)(pixels)))
    original = Stopwatch.outputs

    def outputs(self, name):
        return [output + (0.5 if self._compiled else 0) for output in original(self, name)]

    monkeypatch.setattr(Stopwatch, "outputs", outputs)
    result = tflite.benchmark({"a": tiny}, runs=2, warmup=1, runtime="compiled", profile=True)
    assert result.differences["a"] > 0.1
    assert [operation.kind for operation in result.operations["a"]] == ["FULLY_CONNECTED"]
    assert tflite.benchmark({"a": tiny}, runs=2, warmup=1).differences is None


def test_a_gpu_that_is_not_there_is_refused(light, monkeypatch):
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):  # where Vulkan looks for drivers
        monkeypatch.setenv(name, "/nowhere.json")
    with pytest.raises(UsageError, match="'a' cannot be run with accelerator=gpu here: LiteRT found no GPU"):
        tflite.benchmark({"a": light}, runs=2, runtime="compiled", accelerator="gpu")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("CPU / Software", "Soft Device (X), software: it runs on the CPU"), ("Integrated", "Soft Device (X)")],
)
def test_a_gpu_made_of_software_is_told(kind, expected):
    log = f"I0 environment.cc:532] Selected adapter: Soft Device (X), arch=soft, backend=Vulkan, adapterType={kind}\n"
    assert adapter(log) == expected
    assert adapter("INFO: nothing") == "unnamed"


def test_integer_and_several_inputs_can_be_measured():
    first, second = keras.Input((8, 8, 3)), keras.Input((2,), dtype="int32")
    total = layers.Concatenate()([layers.Flatten()(first), layers.Embedding(4, 3)(second)[:, 0]])
    two = tflite.convert(keras.Model([first, second], layers.Dense(2)(total)))
    int8 = tflite.convert(nets.sequential(), "int8", representative_data=nets.images(), io="int8")
    result = tflite.benchmark({"two": two, "int8": int8}, runs=2, warmup=1)
    assert all(latency.median_ms > 0 for latency in result.latencies.values())


def test_wrong_input_is_a_usage_error(light, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(light.content[:200])
    text = tmp_path / "text.tflite"
    text.write_text("no model")
    for candidates, arguments, words in (
        ({"a": tmp_path / "none.tflite"}, {}, "none.tflite"),
        ({"a": text}, {}, "not a TFLite model"),
        ({"a": light, "b": broken}, {}, "'b'"),
        ({}, {}, "nothing"),
        ({"a": light}, {"runs": 0}, "runs"),
        ({"a": light}, {"threads": 0}, "threads"),
        ({"a": light}, {"warmup": -1}, "warmup"),
        ({"a": light}, {"runtime": "graph"}, "interpreter, compiled. Received: 'graph'"),
        ({"a": light}, {"accelerator": "gpu"}, "the Interpreter runs on the CPU here"),
        ({"a": light}, {"runtime": "compiled", "accelerator": "npu"}, "phones only"),
        ({"a": light}, {"cpus": [9999]}, "processor 9999"),
        ({"a": light}, {"cpus": [0], "threads": 2}, "as many processors"),
    ):
        with pytest.raises(UsageError, match=words):
            tflite.benchmark(candidates, **arguments)


def test_a_process_that_dies_is_a_run_error(light, monkeypatch):
    calls = 0
    original = Stopwatch.measure

    def dying(self, name, invocations):
        nonlocal calls
        calls += 1
        if calls == 4:
            self._process.kill()
        return original(self, name, invocations)

    monkeypatch.setattr(Stopwatch, "measure", dying)
    with pytest.raises(RunError, match="'a' died"):
        tflite.benchmark({"a": light}, runs=10)


def test_no_process_and_no_file_is_left_behind(light, monkeypatch, tmp_path):
    started = []
    original = subprocess.Popen

    def recording(*arguments, **keywords):
        started.append(original(*arguments, **keywords))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recording)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tflite.benchmark({"a": light, "b": light}, runs=1, warmup=0)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_user_s_folder_gets_in_the_way(light, tmp_path, monkeypatch):
    for name in ("types.py", "inspect.py", "numpy.py", "dcp_tf.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    light.save(tmp_path / "light.tflite")
    monkeypatch.chdir(tmp_path)
    assert tflite.benchmark({"a": pathlib.Path("light.tflite")}, runs=1, warmup=0).latencies["a"].median_ms > 0


def test_nothing_is_said(light, capfd):
    tflite.benchmark({"a": light}, runs=1, warmup=0)
    assert capfd.readouterr() == ("", "")
