"""Latency of TFLite files against each other on Android devices.

adb copies TFLite's benchmark_model and the files into a folder of their own under /data/local/tmp, runs them
interleaved (A B, B A, ...), pinned to chosen cores of a device that has cooled down, and removes the folder whatever
happens.
"""

import contextlib
import dataclasses
import os
import pathlib
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.android import log
from dcp_tf.tflite.android.adb import Adb, choose_devices, find_adb
from dcp_tf.tflite.android.device import Device, check_program, core_mask, read_device, wait_until_cool
from dcp_tf.tflite.android.log import BenchmarkLog
from dcp_tf.tflite.android.result import AndroidLatency, AndroidResult, DeviceResult, times
from dcp_tf.tflite.latency.speedup import compare
from dcp_tf.tflite.latency.stopwatch import interleaved
from dcp_tf.tflite.types import TFLiteFile, read_content

DELEGATES = {"cpu": "--use_xnnpack=true", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}
LEAST_REPETITIONS = 5  # of a ratio; each is the median or mean of many inferences
MAX_SECONDS = 60  # of the warm-up and of the measurement of one run; benchmark_model stops there
DOWNLOAD = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
    "android_aarch64_benchmark_model"
)


@dataclasses.dataclass(frozen=True)
class AndroidSettings:
    """How to measure on Android.

    Attributes:
        benchmark_model: TFLite's benchmark_model, built for the device.
        serials: the devices; none: the only one that is connected.
        adb: the program; None: the one on PATH or in the Android SDK.
        cores: "big", "little", "all" or a mask in hexadecimal.
        delegates: of `DELEGATES`.
        threads: of the kernels.
        runs: inferences of each repetition, at least.
        least_seconds: that a repetition lasts at least.
        repetitions: runs of benchmark_model for each file and delegate.
        warmup: inferences before the measured ones, at least.
        profile: take one more run of each with the profiler on, for the time of each operation and the peak memory.
        cool_to: degrees Celsius that the device may have when a repetition starts.
        cool_minutes: the longest wait for that.
    """

    benchmark_model: str | os.PathLike | None
    serials: Sequence[str] = ()
    adb: str | None = None
    cores: str = "big"
    delegates: Sequence[str] = ("cpu",)
    threads: int = 1
    runs: int = 50
    least_seconds: float = 1.0
    repetitions: int = LEAST_REPETITIONS
    warmup: int = 10
    profile: bool = False
    cool_to: float = 35.0
    cool_minutes: float = 10.0

    def program(self) -> pathlib.Path:
        """The path of benchmark_model.

        Raises:
            UsageError: it is missing, or another setting cannot be used.
        """
        if self.benchmark_model is None:
            raise UsageError(
                "say where TFLite's benchmark_model for Android is: --benchmark_model=PATH. Download the nightly build "
                f"for 64-bit phones from {DOWNLOAD} (docs/android.md tells more)"
            )
        path = pathlib.Path(self.benchmark_model)
        if not path.is_file():
            raise UsageError(f"there is no file {path}; benchmark_model for 64-bit phones is at {DOWNLOAD}")
        unknown = [name for name in self.delegates if name not in DELEGATES]
        if unknown or not self.delegates:
            raise UsageError(f"delegates must be some of {', '.join(DELEGATES)}. Received: {unknown or 'none'}")
        for name in ("threads", "runs", "repetitions"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1. Received: {getattr(self, name)}")
        return path


def benchmark_android(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike], settings: AndroidSettings, *, seed: int = 0
) -> AndroidResult:
    """Measures files against each other on one or several devices, one after another.

    Args:
        candidates: name -> converted model or path of a .tflite file. The first is what the others are compared with.
        settings: how.
        seed: of the bootstrap.

    Returns:
        What was measured. A device that failed while others did not, and a delegate that refused a file, are among
        `failures`.

    Raises:
        UsageError: a setting, a file or a device cannot be used.
        RunError: the only device failed, or all of them did.
    """
    if not candidates:
        raise UsageError("there is nothing to measure; give at least one file")
    contents = {name: read_content(source) for name, source in candidates.items()}
    settings.program()
    program = find_adb(settings.adb)
    devices, failures = [], []
    serials = choose_devices(program, settings.serials)
    for serial in serials:
        try:
            with DeviceSession(Adb(program, serial), contents, settings) as session:
                devices.append(_measure(session, list(candidates), settings, seed))
        except (RunError, UsageError) as error:
            if len(serials) == 1:
                raise
            failures.append(str(error))
    if not devices:
        raise RunError("; ".join(failures))
    for result in devices:
        for delegate, files in result.refused.items():
            failures += [f"{name} on {result.device.serial} with {delegate}: {why}" for name, why in files.items()]
    return AndroidResult(
        devices=tuple(devices),
        failures=tuple(failures),
        files=tuple(candidates),
        threads=settings.threads,
        runs=settings.runs,
        repetitions=settings.repetitions,
        warmup=settings.warmup,
    )


class DeviceSession(contextlib.AbstractContextManager):
    """Files on a device, ready to be measured; they are gone when the session ends, however it ends.

    Args:
        adb: the device.
        contents: name -> bytes of a .tflite file.
        settings: how to measure.

    Attributes:
        device: what it is.
        mask: the cores that the tool is pinned to; None: all.
        repetitions: how often each file is to be measured.

    Raises:
        UsageError: benchmark_model or the cores do not fit the device.
        RunError: (any method) the device refused something or went away.
    """

    def __init__(self, adb: Adb, contents: Mapping[str, bytes], settings: AndroidSettings):
        self._adb = adb
        self._settings = settings
        self.device: Device = read_device(adb)
        check_program(settings.program(), self.device)
        self.mask = core_mask(self.device, settings.cores, settings.threads)
        self._folder = f"/data/local/tmp/dcp_tf_{secrets.token_hex(4)}"
        self._places: dict[str, str] = {}
        self._copied = 0
        self.repetitions = settings.repetitions
        try:
            adb.checked_shell(f"mkdir {self._folder}")
            adb.push(settings.program(), f"{self._folder}/benchmark_model")
            adb.checked_shell(f"chmod 755 {self._folder}/benchmark_model")
            for name, content in progress.bar(contents.items(), what="Copying", unit=" files"):
                self.add(name, content)
        except BaseException:
            self._clean()
            raise

    def __exit__(self, kind: type | None, *exception: Any) -> None:
        self._clean(running=kind is not None)

    def add(self, name: str, content: bytes) -> None:
        """Copies one more file to the device."""
        place = f"{self._folder}/{self._copied}.tflite"
        self._copied += 1
        with tempfile.TemporaryDirectory(prefix="dcp_tf-android-") as folder:
            path = pathlib.Path(folder, pathlib.PurePath(name).name)
            path.write_bytes(content)
            self._adb.push(path, place)
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Removes a file from the device."""
        self._adb.checked_shell(f"rm -f {self._places.pop(name)}")

    def cool(self) -> tuple[float | None, bool]:
        """Waits as the settings say; returns the temperature, and whether it is within the limit."""
        return wait_until_cool(self._adb, self._settings.cool_to, self._settings.cool_minutes)

    def run(self, name: str, delegate: str, profile: bool = False) -> BenchmarkLog | str:
        """Runs benchmark_model once.

        Args:
            name: of the file.
            delegate: of `DELEGATES`.
            profile: with the profiler on, which slows it.

        Returns:
            What it measured, or why the delegate does not run the file.
        """
        settings = self._settings
        flags = [
            f"--graph={self._places[name]}",
            f"--num_threads={settings.threads}",
            f"--num_runs={settings.runs}",
            f"--warmup_runs={settings.warmup}",
            f"--min_secs={settings.least_seconds:g}",
            f"--warmup_min_secs={min(settings.least_seconds, 0.5):g}",
            f"--max_secs={MAX_SECONDS}",
            DELEGATES[delegate],
        ]
        if profile:
            flags += ["--enable_op_profiling=true", "--report_peak_memory_footprint=true"]
        pin = "" if self.mask is None else f"taskset {self.mask:x} "
        command = f"cd {self._folder} && {pin}./benchmark_model {' '.join(flags)}"
        output, code = self._adb.shell(command, timeout=2 * MAX_SECONDS + 180)
        if unknown := log.unknown_flags(output):
            raise RunError(
                f"this benchmark_model does not know {unknown}: it may be the one for CompiledModel; take the one for "
                f"the Interpreter, {DOWNLOAD}"
            )
        if delegate != "cpu" and (why := log.refusal(output)):
            return why
        if code != 0:
            raise RunError(
                f"{_ending(code)} with {name!r} ({delegate}) on {self.device.serial}: {log.complaint(output)}"
            )
        return log.parse(output)

    def _clean(self, running: bool = True) -> None:
        """Removes the folder; says so if it cannot, for the error that may be under way matters more."""
        if running:  # a tool that was interrupted keeps running on the device
            with contextlib.suppress(RunError):
                self._adb.shell(f"pkill -f {self._folder[:-1]}[{self._folder[-1]}]/", timeout=20)
        try:
            self._adb.checked_shell(f"rm -rf {self._folder}", timeout=30)
        except RunError as error:
            progress.say(
                f"{self._folder} is still on device {self._adb.serial} ({error}); remove it with "
                f"`adb -s {self._adb.serial} shell rm -rf {self._folder}`"
            )


def _ending(code: int) -> str:
    if code in (126, 127):
        return "benchmark_model cannot be started"
    return f"benchmark_model crashed (signal {code - 128})" if code > 128 else f"benchmark_model failed (code {code})"


def _measure(session: DeviceSession, names: list[str], settings: AndroidSettings, seed: int) -> DeviceResult:
    """All repetitions on one device."""
    delegates = list(dict.fromkeys(settings.delegates))
    logs: dict[tuple[str, str], list[BenchmarkLog]] = {(d, n): [] for d in delegates for n in names}
    refused: dict[str, dict[str, str]] = {delegate: {} for delegate in delegates}
    temperatures, cool = [], True
    total = settings.repetitions * len(logs)
    with progress.bar(what=session.device.model, total=total, unit=" runs") as bar:
        for repetition in range(settings.repetitions):
            degrees, within = session.cool()
            temperatures.append(degrees)
            cool = cool and within
            for delegate in delegates:
                for name in interleaved(names, repetition):
                    if name not in refused[delegate]:
                        outcome = session.run(name, delegate)
                        if isinstance(outcome, str):
                            refused[delegate][name] = outcome
                        else:
                            logs[delegate, name].append(outcome)
                    bar.update()
    ran = [(delegate, name) for delegate, name in logs if name not in refused[delegate]]
    profiles = _profiles(session, ran) if settings.profile else {}
    return DeviceResult(
        device=session.device,
        mask=session.mask,
        temperatures=tuple(temperatures),
        cool=cool,
        latencies={d: _compare(d, [n for n in names if n not in refused[d]], logs, profiles, seed) for d in delegates},
        refused=refused,
    )


def _profiles(session: DeviceSession, ran: Sequence[tuple[str, str]]) -> dict[tuple[str, str], BenchmarkLog]:
    profiles = {}
    for delegate, name in progress.bar(ran, what="Profile", unit=" runs"):
        log_or_refusal = session.run(name, delegate, profile=True)
        if isinstance(log_or_refusal, BenchmarkLog):
            profiles[delegate, name] = log_or_refusal
    return profiles


def _compare(
    delegate: str,
    names: Sequence[str],
    logs: Mapping[tuple[str, str], list[BenchmarkLog]],
    profiles: Mapping[tuple[str, str], BenchmarkLog],
    seed: int,
) -> dict[str, AndroidLatency]:
    """The files that a delegate ran, each against the first of them."""
    random, latencies = np.random.default_rng(seed), {}
    for name in names:
        own, baseline = tuple(logs[delegate, name]), tuple(logs[delegate, names[0]])
        profile = profiles.get((delegate, name))
        latencies[name] = AndroidLatency(
            repetitions=own,
            ratio=compare(times(baseline), times(own), LEAST_REPETITIONS, random),
            operations=profile.operations if profile else (),
            memory_peak=profile.memory_peak if profile else None,
        )
    return latencies
