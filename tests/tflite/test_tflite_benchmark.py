import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import rich.console
import tflite_models as nets
from keras import layers

from dcp_tf import files, tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite import benchmark as _function  # noqa: F401  (the name is the function, not the module)

module = sys.modules["dcp_tf.tflite.benchmark"]


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
    console = rich.console.Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(result.table())
    text = console.export_text()
    assert "not conclusive" in text
    assert "XNNPACK" in text


@pytest.mark.parametrize(
    ("ratio", "noise", "conclusive"), [(2.0, 0.02, True), (0.5, 0.02, True), (1.0, 0.05, False), (1.5, 1.0, False)]
)
def test_a_ratio_is_conclusive_only_if_its_interval_is_narrow_and_beside_one(ratio, noise, conclusive):
    random = np.random.default_rng(0)
    baseline = np.exp(random.normal(0, noise, 30))
    times = np.exp(random.normal(0, noise, 30)) / ratio
    latency = module._summarize(baseline, times, 1, "XNNPACK", np.random.default_rng(1))
    assert latency.conclusive is conclusive
    again = module._summarize(baseline, times, 1, "XNNPACK", np.random.default_rng(1))
    assert latency == again


def test_every_candidate_is_measured_once_a_run_and_the_first_one_changes():
    class Clock:
        def __init__(self, number):
            self.number = number

        def measure(self, invocations):
            order.append(self.number)
            return float(self.number * invocations)

    order = []
    times = module._measure_in_turns([Clock(1), Clock(2), Clock(3)], [1, 10, 100], 4)
    assert order == [1, 2, 3, 2, 3, 1, 3, 1, 2, 1, 2, 3]
    np.testing.assert_array_equal(times, [[1] * 4, [20] * 4, [300] * 4])


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
        ({"a": text}, {}, "no TFLite model"),
        ({"a": light, "b": broken}, {}, "'b'"),
        ({}, {}, "nothing"),
        ({"a": light}, {"runs": 0}, "runs"),
        ({"a": light}, {"threads": 0}, "threads"),
        ({"a": light}, {"warmup": -1}, "warmup"),
    ):
        with pytest.raises(UsageError, match=words):
            tflite.benchmark(candidates, **arguments)


def test_a_process_that_dies_is_a_run_error(light, monkeypatch):
    calls = 0
    original = module._Worker.measure

    def dying(self, invocations):
        nonlocal calls
        calls += 1
        if calls == 4:
            self._process.kill()
        return original(self, invocations)

    monkeypatch.setattr(module._Worker, "measure", dying)
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
