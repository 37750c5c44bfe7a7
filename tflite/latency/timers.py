"""Timers of many small TFLite files: on this machine, or on an Android device."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.measurement import AndroidSettings
from dcp_tf.tflite.android.adb import Adb, choose_devices, find_adb
from dcp_tf.tflite.android.device import describe_cores
from dcp_tf.tflite.android.result import times
from dcp_tf.tflite.android.session import DeviceSession
from dcp_tf.tflite.latency.stopwatch import Stopwatch, check_cpus, interleaved, machine_name, measure_interleaved

SAMPLE_MS = 1.0  # short, so that undisturbed samples fit between two interruptions
UNDISTURBED = 10  # percentile: other load makes samples longer, never shorter


class Timer(Protocol):
    """Times files interleaved.

    Attributes:
        machine: the machine, the delegate and the cores.
    """

    machine: str

    def measure(self, contents: Mapping[str, bytes]) -> dict[str, float]:
        """Milliseconds of one inference of each file; runs of all of them are interleaved."""


class HostTimer(contextlib.AbstractContextManager):
    """Times files on this machine in one process, undisturbed by other load.

    Args:
        threads: threads of the kernels.
        runs: samples of each file; the result is their tenth percentile.
        seed: of the inputs.
        cpus: processors to run on; empty: all.

    Raises:
        UsageError: a processor cannot be used.
        RunError: (when measuring) the process died.
    """

    def __init__(self, threads: int = 1, runs: int = 25, seed: int = 0, cpus: Sequence[int] = ()):
        check_cpus(cpus, threads)
        self.machine = machine_name() + (f", processor {', '.join(map(str, cpus))}" if cpus else "")
        self._runs = runs
        self._stopwatch = Stopwatch(threads, seed, cpus)

    def __exit__(self, *exception) -> None:
        self._stopwatch.__exit__()

    def measure(self, contents: Mapping[str, bytes]) -> dict[str, float]:
        """See `Timer`."""
        names = list(contents)
        with tempfile.TemporaryDirectory(prefix="dcp_tf-timer-") as folder:
            for number, (name, content) in enumerate(contents.items()):
                path = pathlib.Path(folder, f"{number}.tflite")
                path.write_bytes(content)
                self._stopwatch.load(name, path)
        repeats = [self._stopwatch.settle(name, 2, SAMPLE_MS) for name in names]
        latencies = measure_interleaved([self._stopwatch] * len(names), names, repeats, self._runs)
        for name in names:
            self._stopwatch.unload(name)
        return dict(zip(names, np.percentile(latencies, UNDISTURBED, axis=1).tolist(), strict=True))


def open_device(settings: AndroidSettings) -> DeviceSession:
    """A session for a `DeviceTimer` on one device, with many short runs.

    Raises:
        UsageError: there is no such device, or a setting does not fit the device.
        RunError: the device refused something.
    """
    settings.program()
    adb = find_adb(settings.adb)
    serials = choose_devices(adb, settings.serials)
    if len(serials) > 1:
        raise UsageError(f"a latency table is of one device. Received: serials={','.join(serials)}", "serials")
    short = dataclasses.replace(settings, runs=20, warmup=3, least_seconds=0.1, repetitions=3)
    return DeviceSession(Adb(adb, serials[0]), {}, short)


class DeviceTimer:
    """Times files on an Android device.

    Args:
        session: with the device; its settings give the number of repetitions.
        delegate: "cpu", "gpu" or "nnapi".
    """

    def __init__(self, session: DeviceSession, delegate: str = "cpu"):
        device = session.device
        self.machine = f"{device.model} ({device.soc}, Android {device.android}), {delegate}, " + describe_cores(
            device, session.mask
        )
        self._session = session
        self._delegate = delegate

    def measure(self, contents: Mapping[str, bytes]) -> dict[str, float]:
        """See `Timer`.

        Raises:
            RunError: the device disconnected, or the delegate refuses a file.
        """
        names = list(contents)
        logs: dict[str, list] = {name: [] for name in names}
        for name, content in contents.items():
            self._session.add(name, content)
        for repetition in range(self._session.repetitions):
            self._session.cool()
            for name in interleaved(names, repetition):
                log = self._session.run(name, self._delegate)
                if isinstance(log, str):
                    raise RunError(f"{name} cannot be measured with {self._delegate}: {log}")
                logs[name].append(log)
        for name in names:
            self._session.remove(name)
        return {name: float(np.median(times(tuple(runs)))) for name, runs in logs.items()}
