import contextlib
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

import android_logs as logs
import compiled_runs as runs
import pytest
import rich.console
import tflite_models as nets

from dcp_tf import tflite
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.android import adb, device
from dcp_tf.tflite.android.device import Device, core_mask
from dcp_tf.tflite.android.session import AndroidSettings, benchmark_android
from dcp_tf.tools import benchmark as program

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]


def template(head):
    """A log in which the fake adb fills in {graph} and {us}."""
    return logs.HEAD + head + logs.measured(123456789).replace("123456789", "{us}")


class Phone:
    """A fake adb on PATH, the binary to push, and two files of different size."""

    def __init__(self, folder, files):
        self.folder = folder
        script = pathlib.Path(__file__).with_name("fake_adb.py").read_text()
        adb = folder / "adb"
        adb.write_text(f"#!{sys.executable}\n{script}")
        adb.chmod(0o755)
        self.binary = folder / "benchmark_model"
        self.binary.write_bytes(elf(183))
        self.files = files
        slow, fast = (path.stat().st_size for path in self.files.values())
        self.scenario = {
            "devices": {"A1": "device"},
            "logs": {"--use_xnnpack": template(logs.CPU), "--use_gpu": template(logs.GPU)},
            "microseconds": {slow: 20000, fast: 10000},
            "profile": logs.PROFILE,
        }

    def measure(self, scenario=None, **settings):
        self.write(scenario)
        return benchmark_android(self.files, AndroidSettings(self.binary, **{"repetitions": 5} | settings))

    def write(self, scenario=None):
        (self.folder / "scenario.json").write_text(json.dumps(self.scenario | (scenario or {})))

    def calls(self):
        path = self.folder / "calls.txt"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def runs(self):
        return [call[3] for call in self.calls() if "--graph" in call[-1]]

    def left_behind(self):
        return list((self.folder / "device").rglob("dcp_tf_*"))


def elf(machine):
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(44)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    models = {"slow": nets.residual(), "fast": nets.sequential()}
    return {name: tflite.convert(net).save(folder / f"{name}.tflite").path for name, net in models.items()}


@pytest.fixture
def phone(files, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Phone(tmp_path, files)


def printed(tables):
    console = rich.console.Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    for table in tables:
        console.print(table)
    return " ".join(console.export_text().split())


def test_files_are_measured_in_turns_and_compared(phone):
    result = phone.measure()
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    (device,) = found["devices"]
    assert (device["model"], device["soc"], device["android"]) == ("Google Pixel 7", "Google GS201", "15")
    assert device["core_mask"] == "c0"  # the two fastest of eight
    assert device["temperatures_c"] == [28.9] * 5
    candidates = device["delegates"]["cpu"]["candidates"]
    assert candidates["slow"]["latency_ms"] == pytest.approx(20, rel=0.02)
    assert candidates["fast"]["speedup"] == pytest.approx(2, rel=0.03)
    assert candidates["fast"]["conclusive"] is True
    assert candidates["fast"]["applied"] == "completely"
    assert len(candidates["fast"]["repetitions"]) == 5
    assert set(candidates["fast"]["repetitions"][0]) >= {"p5", "median", "p95", "average", "deviation", "least", "most"}
    graphs = [run.split("--graph=")[1].split(" ")[0].rpartition("/")[2] for run in phone.runs()]
    assert graphs == [*("0.tflite", "1.tflite", "1.tflite", "0.tflite") * 2, "0.tflite", "1.tflite"]
    assert all("taskset c0 ./benchmark_model" in run for run in phone.runs())
    assert all("--num_threads=1 --num_runs=50 --warmup_runs=10" in run for run in phone.runs())
    assert phone.left_behind() == []
    text = printed(result.tables())
    assert "Pixel 7" in text
    assert "cores 6, 7 (2.85 GHz)" in text
    assert "34.5" in text


def test_every_delegate_and_the_profile(phone):
    result = phone.measure(delegates=("cpu", "gpu"), profile=True, repetitions=2)
    gpu = result.to_json()["devices"][0]["delegates"]["gpu"]["candidates"]["fast"]
    assert gpu["applied"] == "partially (2 parts)"
    assert gpu["memory_peak_mb"] == 93.2383
    assert gpu["operations"][0] == {"kind": "QUANTIZE", "name": "[tfl.quantize]:0", "ms": 0.203}
    assert len(phone.runs()) == 2 * 2 * 2 + 4
    assert sum("--enable_op_profiling=true" in run for run in phone.runs()) == 4
    text = printed(result.tables())
    assert "gpu, partially (2 parts)" in text
    assert "too few runs (2 of 5)" in text


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (logs.HEAD + logs.GPU_REFUSED, "the GPU delegate cannot be applied: TfLiteGpuDelegate Init"),
        (template(logs.NNAPI_NOT_EXECUTED), "the NNAPI delegate runs no part of the graph"),
    ],
)
def test_a_delegate_that_refuses_gets_no_figures_and_the_others_do(head, words, phone):
    code = 1 if "Failed to apply" in head else 0
    broken = {"logs": phone.scenario["logs"] | {"--use_gpu": head}, "codes": {"--use_gpu": code}}
    result = phone.measure(broken, delegates=("cpu", "gpu"), repetitions=2)
    device = result.to_json()["devices"][0]["delegates"]
    assert device["gpu"]["candidates"] == {}
    assert words in device["gpu"]["refused"]["slow"]
    assert set(device["cpu"]["candidates"]) == {"slow", "fast"}
    assert len(result.failures) == 2
    assert "slow on A1 with gpu" in result.failures[0]
    assert sum("--use_gpu" in run for run in phone.runs()) == 2  # once each is enough
    assert "refused" in printed(result.tables())
    assert phone.left_behind() == []


def in_app(phone, **graphs):
    """A scenario of LiteRT's tool, which writes figures and by accelerator what ran where."""
    slow, fast = (path.stat().st_size for path in phone.files.values())
    return {
        "logs": {f"--use_{name}": logs.HEAD for name in graphs},
        "results": {slow: runs.result(20.0).hex(), fast: runs.result(10.0).hex()},
        "graphs": {f"--use_{name}": graph.hex() for name, graph in graphs.items()},
    }


def test_compiled_models_are_measured_by_what_the_tool_writes(phone):
    scenario = in_app(phone, cpu=runs.graph(20, TfLiteXNNPackDelegate=20), gpu=runs.graph(20, LITERT_CL=15))
    result = phone.measure(scenario, runtime="compiled", accelerators=("cpu", "gpu"), repetitions=1)
    found = result.to_json()
    delegates = found["devices"][0]["delegates"]
    assert found["runtime"] == "compiled"
    assert delegates["cpu"]["candidates"]["fast"]["latency_ms"] == pytest.approx(10)
    assert delegates["cpu"]["candidates"]["fast"]["memory_overall_mb"] == 4
    assert delegates["gpu"]["candidates"]["slow"]["latency_ms"] == pytest.approx(20)
    assert delegates["gpu"]["candidates"]["slow"]["applied"] == "partially (15 of 20 operations)"
    assert all("--result_file_path=result.pb" in run and "--use_xnnpack" not in run for run in phone.runs())
    assert all("&& rm -f result.pb graph.pb &&" in run for run in phone.runs())
    text = printed(result.tables())
    assert "CompiledModel" in text
    assert "gpu, partially (15 of 20 operations)" in text
    assert phone.left_behind() == []


def test_a_gpu_that_fell_back_to_the_cpu_is_told(phone):
    scenario = in_app(phone, gpu=runs.graph(20, TfLiteXNNPackDelegate=20))
    result = phone.measure(scenario, runtime="compiled", accelerators=("gpu",), repetitions=1)
    assert result.to_json()["devices"][0]["delegates"]["gpu"]["candidates"] == {}
    assert "slow on A1 with gpu: LiteRT ran all of it on the CPU and reported no error" in result.failures[0]


def test_the_libraries_of_an_npu_are_copied_and_found(phone):
    folder = phone.folder / "npu"
    folder.mkdir()
    settings = {"runtime": "compiled", "accelerators": ("npu",), "npu_libraries": folder, "repetitions": 1}
    scenario = in_app(phone, npu=runs.graph(1, DispatchDelegate=1))
    with pytest.raises(UsageError, match=r"no libLiteRtDispatch_\*\.so"):
        phone.measure(scenario, **settings)
    for name in ("libLiteRtDispatch_Qualcomm.so", "libQnnHtp.so"):
        (folder / name).write_text("library")
    result = phone.measure(scenario, **settings)
    assert result.to_json()["devices"][0]["delegates"]["npu"]["candidates"]["slow"]["applied"] == "completely"
    pushed = [call[-1] for call in phone.calls() if "push" in call]
    device = pushed[-1].rpartition("/")[0]
    assert f"{device}/libQnnHtp.so" in pushed
    assert f"LD_LIBRARY_PATH={device} ADSP_LIBRARY_PATH={device} taskset" in phone.runs()[-1]
    assert f"--dispatch_library_path={device} " in phone.runs()[-1]
    assert phone.left_behind() == []


def test_a_tool_without_results_is_read_by_its_log(phone):
    scenario = {"logs": {"--use_gpu": runs.LOG.replace("TfLiteXNNPackDelegate", "LITERT_CL")}}
    result = phone.measure(scenario, runtime="compiled", accelerators=("gpu",), repetitions=1)
    candidates = result.to_json()["devices"][0]["delegates"]["gpu"]["candidates"]
    assert candidates["slow"]["latency_ms"] == pytest.approx(20, rel=0.02)
    assert candidates["slow"]["applied"] == "completely"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accelerators": ("gpu",)}, "accelerators is not for runtime=interpreter: give delegates"),
        ({"runtime": "compiled", "delegates": ("gpu",)}, "delegates is not for runtime=compiled: give accelerators"),
        ({"runtime": "compiled", "accelerators": ()}, "cpu, gpu, npu. Received: none"),
        ({"runtime": "compiled", "accelerators": ("npu",)}, "npu_libraries=FOLDER"),
        ({"runtime": "compiled", "profile": True}, "profile shows the Interpreter's operations"),
        ({"runtime": "compiled", "benchmark_model": None}, "LiteRT's benchmark_model.*storage.googleapis.com/litert"),
    ],
)
def test_settings_of_the_other_runtime_are_refused(settings, words, phone):
    phone.write()
    with pytest.raises(UsageError, match=words):
        benchmark_android(phone.files, AndroidSettings(**{"benchmark_model": phone.binary} | settings))


@pytest.mark.parametrize(
    ("scenario", "settings", "error", "words"),
    [
        ({"devices": {}}, {}, UsageError, "no Android device is connected.*USB debugging"),
        ({"devices": {"A1": "unauthorized"}}, {}, UsageError, "A1 has not authorized this computer: unlock it"),
        ({"devices": {"A1": "offline"}}, {}, UsageError, "A1 is offline: unplug"),
        ({"devices": {"A1": "no permissions (verify udev rules); see [x]"}}, {}, UsageError, "udev"),
        ({"devices": {"A1": "device", "B2": "device"}}, {}, UsageError, "serials=A1,B2"),
        ({}, {"serials": ["C3"]}, UsageError, r"no device 'C3'; connected: A1 \(device\)"),
        ({"push_error": "remote No space left on device"}, {}, RunError, "cannot be copied.*No space left on device"),
        ({"codes": {"--use_xnnpack": 139}}, {}, RunError, r"crashed \(signal 11\) with 'slow' \(cpu\) on A1"),
        ({"codes": {"--use_xnnpack": 126}}, {}, RunError, "cannot be started"),
        ({"vanish_at": 3}, {}, RunError, r"A1 was lost \(closed\): check the cable"),
        ({}, {"cores": "medium"}, UsageError, "hexadecimal mask. Received: 'medium'"),
        ({}, {"cores": "100"}, UsageError, r"means cores \[8\] for 1 threads \(device A1 has 0, 1"),
        ({}, {"cores": "-1"}, UsageError, "hexadecimal mask. Received: '-1'"),
        ({}, {"delegates": ("tpu",)}, UsageError, "cpu, gpu, nnapi, received .'tpu'"),
        ({}, {"delegates": ()}, UsageError, "cpu, gpu, nnapi. Received: none"),
        ({}, {"threads": 9}, UsageError, "has 8 cores"),
        ({}, {"runs": 0}, UsageError, "runs must be"),
        ({}, {"adb": "/nowhere/adb"}, UsageError, "adb=/nowhere/adb"),
    ],
)
def test_a_failure_is_one_clear_line_and_leaves_nothing_behind(scenario, settings, error, words, phone, capsys):
    with pytest.raises(error, match=words) as raised:
        phone.measure(scenario, **settings)
    assert "\n" not in str(raised.value)
    if "vanish_at" in scenario:  # nothing can be removed from a device that is not there; the user is told how
        assert "still on device A1" in capsys.readouterr().err
        assert any(call[-1].startswith("( rm -rf /data/local/tmp/dcp_tf_") for call in phone.calls()) is True
    else:
        assert phone.left_behind() == []


def test_the_binary_must_be_there_and_fit_the_device(phone):
    phone.write()
    for path, words in (
        (None, "https://storage.googleapis.com/tensorflow-nightly-public/.*android_aarch64_benchmark_model"),
        (phone.folder / "none", "there is no file"),
        (phone.files["slow"], "not an ELF file"),
    ):
        with pytest.raises(UsageError, match=words):
            benchmark_android(phone.files, AndroidSettings(path))
    phone.binary.write_bytes(elf(62))
    with pytest.raises(UsageError, match=r"is a program for x86_64; device A1 runs arm64-v8a"):
        phone.measure()


def test_without_adb_it_is_said_where_to_get_it(phone, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="platform-tools"):
        phone.measure()
    (phone.folder / "platform-tools").mkdir()
    (phone.folder / "platform-tools" / "adb").symlink_to(phone.folder / "adb")
    monkeypatch.setenv("ANDROID_HOME", str(phone.folder))
    assert adb.find_adb().startswith(str(phone.folder))


def test_a_tool_that_does_not_know_the_flags_is_refused(phone):
    text = "WARN: Unconsumed cmdline flags: --use_xnnpack=true\n" + template(logs.CPU)
    with pytest.raises(RunError, match=r"does not know --use_xnnpack=true.*Interpreter"):
        phone.measure({"logs": {"--use_xnnpack": text}})
    assert phone.left_behind() == []
    text = "WARN: Unconsumed cmdline flags: --use_cpu=true --result_file_path=result.pb\n" + template(logs.CPU)
    with pytest.raises(RunError, match=r"for the Interpreter, or an old one.*storage.googleapis.com/litert/"):
        phone.measure({"logs": {"--use_cpu": text}}, runtime="compiled")


def test_one_of_two_devices_may_fail(phone):
    devices = {"devices": {"A1": "device", "B2": "device"}, "vanish_at": 12}
    result = phone.measure(devices, serials=["A1", "B2"])
    assert [device.device.serial for device in result.devices] == ["A1"]
    assert result.failures == (result.failures[0],)
    assert "B2 was lost" in result.failures[0]


def test_the_device_is_given_time_to_cool(phone, monkeypatch, capsys):
    monkeypatch.setattr(device, "POLL_SECONDS", 0.01)
    result = phone.measure({"temperatures": [412, 390, 360, 349, 330]}, repetitions=2)
    (measured,) = result.devices
    assert measured.temperatures == (34.9, 33.0)
    assert measured.cool
    assert "A1 has 41.2 °C: waiting for 35.0 °C" in capsys.readouterr().err


def test_a_device_that_stays_hot_is_measured_and_it_is_said(phone, monkeypatch, capsys):
    monkeypatch.setattr(device, "POLL_SECONDS", 0.01)
    result = phone.measure({"temperatures": [412]}, repetitions=1, cool_minutes=0.001)
    assert not result.devices[0].cool
    assert "still has 41.2 °C" in capsys.readouterr().err
    assert "may have been throttled" in printed(result.tables())


def test_ctrl_c_leaves_the_device_clean(phone):
    script = (phone.folder / "adb").read_text()
    endless = "        import time\n        time.sleep(60)\n        return run(serial, command, state)"
    (phone.folder / "adb").write_text(script.replace("        return run(serial, command, state)", endless))
    phone.write()
    code = (
        # A shell's background jobs ignore the signal, and so would this process.
        "import signal, sys; from dcp_tf.tflite.android.session import *\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"benchmark_android({{'slow': {str(phone.files['slow'])!r}}}, AndroidSettings({str(phone.binary)!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not phone.runs() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert phone.left_behind()
    process.send_signal(signal.SIGINT)
    with contextlib.closing(process.stderr) as stream:
        said = stream.read()
    process.wait()
    assert "KeyboardInterrupt" in said
    assert phone.left_behind() == []
    kill, remove = (call[-1] for call in phone.calls()[-2:])
    assert kill.startswith("( pkill -f /data/local/tmp/dcp_tf_")
    assert remove.startswith("( rm -rf /data/local/tmp/dcp_tf_")


@pytest.mark.parametrize(
    ("which", "threads", "mask"),
    [("big", 1, 0b1100_0000), ("big", 2, 0b1100_0000), ("big", 3, 0b1111_0000), ("little", 1, 0b1111), ("f0", 4, 0xF0)],
)
def test_cores_are_chosen_by_frequency(which, threads, mask):
    cores = dict(enumerate([1803000] * 4 + [2348000] * 2 + [2850000] * 2))
    device = Device("A1", "m", "s", "15", 35, ("arm64-v8a",), cores)
    assert core_mask(device, which, threads) == mask
    assert core_mask(device, "all", threads) is None


def test_the_program_writes_and_prints(phone, tmp_path, capsys):
    phone.write()
    models = f"--models={phone.files['slow']},{phone.files['fast']}"
    flags = [models, "--device=android", f"--benchmark_model={phone.binary}", "--repetitions=2", "--cores=little"]
    assert program.run([*flags, f"--output_dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert found["devices"][0]["core_mask"] == "f"
    assert "Pixel 7" in capsys.readouterr().out
    broken = {"--use_gpu": logs.HEAD + logs.GPU_REFUSED}
    phone.write({"logs": phone.scenario["logs"] | broken, "codes": {"--use_gpu": 1}})
    assert program.run([*flags, "--delegates=cpu,gpu"]) == 1
    captured = capsys.readouterr()
    assert "refused" in captured.out
    assert "benchmark: slow.tflite on A1 with gpu: the GPU delegate cannot be applied" in captured.err
    assert program.run([models, "--serial=A1"]) == 2
    assert program.run([*flags, "--cpu=1"]) == 2
    assert program.run([models, "--device=android"]) == 2
    assert "android_aarch64_benchmark_model" in capsys.readouterr().err
