"""Latency of TFLite files against each other on Android devices.

adb copies TFLite's benchmark_model and the files into a new folder under /data/local/tmp, runs them interleaved (A B,
B A, ...) on chosen cores after the device has cooled down, and always removes the folder.
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
from dcp_tf.settings.measurement import (
    ACCELERATORS,
    COMPILED_DOWNLOAD,
    DELEGATES,
    DOWNLOAD,
    LEAST_REPETITIONS,
    AndroidSettings,
)
from dcp_tf.tflite.android import compiled, log
from dcp_tf.tflite.android.adb import Adb, choose_devices, find_adb
from dcp_tf.tflite.android.device import Device, check_program, core_mask, read_device, wait_until_cool
from dcp_tf.tflite.android.log import BenchmarkLog
from dcp_tf.tflite.android.result import AndroidLatency, AndroidResult, DeviceResult, times
from dcp_tf.tflite.latency.speedup import compare
from dcp_tf.tflite.latency.stopwatch import interleaved
from dcp_tf.tflite.types import TFLiteFile, read_content

MAX_SECONDS = 60  # limit for the warm-up and for the measurement of one run


def benchmark_android(
    candidates: Mapping[str, TFLiteFile | str | os.PathLike], settings: AndroidSettings, *, seed: int = 0
) -> AndroidResult:
    """Measures files against each other on one or several devices, one after another.

    Args:
        candidates: name -> converted model or path of a .tflite file. The others are compared with the first.
        settings: how to measure.
        seed: of the bootstrap.

    Returns:
        The results. If one of several devices fails, or a delegate rejects a file, `failures` says so.

    Raises:
        UsageError: a setting, a file or a device cannot be used.
        RunError: all devices failed.
    """
    if not candidates:
        raise UsageError("there is nothing to measure; give at least one file")
    contents = {name: read_content(source) for name, source in candidates.items()}
    settings.program()
    settings.libraries()
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
        runtime=settings.runtime,
    )


class DeviceSession(contextlib.AbstractContextManager):
    """Files on a device, ready to be measured; they are always removed at the end of the session.

    Args:
        adb: the device.
        contents: name -> bytes of a .tflite file.
        settings: how to measure.

    Attributes:
        device: its properties.
        mask: the cores that the tool is pinned to; None: all.
        repetitions: number of measurements of each file.

    Raises:
        UsageError: benchmark_model or the cores do not fit the device.
        RunError: (any method) a command failed on the device, or it disconnected.
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
            for library in settings.libraries():
                adb.push(library, f"{self._folder}/{library.name}")
            for name, content in progress.bar(contents.items(), what="Copying", unit=" files"):
                self.add(name, content)
        except BaseException:
            self._clean()
            raise

    def __exit__(self, kind: type | None, *exception: Any) -> None:
        self._clean(running=kind is not None)

    def add(self, name: str, content: bytes) -> None:
        """Copies a file to the device."""
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
        """Waits for the device to cool down; returns the temperature, and whether it is within the limit."""
        return wait_until_cool(self._adb, self._settings.cool_to, self._settings.cool_minutes)

    def run(self, name: str, delegate: str, profile: bool = False) -> BenchmarkLog | str:
        """Runs benchmark_model once.

        Args:
            name: of the file.
            delegate: of `DELEGATES`, or of `ACCELERATORS` with CompiledModel.
            profile: whether to use the profiler, which slows the run.

        Returns:
            The parsed log, or why the delegate rejects the file.
        """
        settings, in_app = self._settings, self._settings.runtime == "compiled"
        flags = [
            f"--graph={self._places[name]}",
            f"--num_threads={settings.threads}",
            f"--num_runs={settings.runs}",
            f"--warmup_runs={settings.warmup}",
            f"--min_secs={settings.least_seconds:g}",
            f"--warmup_min_secs={min(settings.least_seconds, 0.5):g}",
            f"--max_secs={MAX_SECONDS}",
            *((ACCELERATORS[delegate], *compiled.FILES) if in_app else (DELEGATES[delegate],)),
        ]
        libraries = ""
        if delegate == "npu":
            flags += [f"--dispatch_library_path={self._folder}", f"--compiler_plugin_library_path={self._folder}"]
            libraries = f"LD_LIBRARY_PATH={self._folder} ADSP_LIBRARY_PATH={self._folder} "
        if profile:
            flags += ["--enable_op_profiling=true", "--report_peak_memory_footprint=true"]
        pin = "" if self.mask is None else f"taskset {self.mask:x} "
        stale = f"rm -f {compiled.RESULT} {compiled.GRAPH} && " if in_app else ""
        command = f"cd {self._folder} && {stale}{libraries}{pin}./benchmark_model {' '.join(flags)}"
        output, code = self._adb.shell(command, timeout=2 * MAX_SECONDS + 180)
        if unknown := log.unknown_flags(output):
            other, mine, place = ("CompiledModel", "the Interpreter", DOWNLOAD)
            if in_app:
                other, mine, place = ("the Interpreter, or an old one", "CompiledModel", COMPILED_DOWNLOAD)
            raise RunError(
                f"this benchmark_model does not know {unknown}: it may be the one for {other}; take the one for "
                f"{mine}, {place}"
            )
        if delegate != "cpu" and (why := log.refusal(output)):
            return why
        if code != 0:
            raise RunError(
                f"{_ending(code)} with {name!r} ({delegate}) on {self.device.serial}: {log.complaint(output)}"
            )
        return self._compiled_result(delegate, output) if in_app else log.parse(output)

    def _compiled_result(self, accelerator: str, output: str) -> BenchmarkLog | str:
        """What CompiledModel's tool measured, or that it fell back to the CPU."""
        result, graph = (self._adb.pull(f"{self._folder}/{name}") for name in (compiled.RESULT, compiled.GRAPH))
        applied = compiled.share(graph, output, accelerator)
        if accelerator != "cpu" and applied == "not applied":
            return compiled.FELL_BACK
        if result:
            return compiled.figures(result, applied)
        return dataclasses.replace(log.parse(output), applied=applied)

    def _clean(self, running: bool = True) -> None:
        """Removes the folder; a failure is only logged, so that it does not replace another error."""
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
    delegates = settings.targets
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
    """Results of the files that a delegate ran, compared with the first of them."""
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
