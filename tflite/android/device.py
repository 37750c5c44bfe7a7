"""Properties of an Android device that measurements depend on: model, cores, temperature."""

import dataclasses
import pathlib
import re
import struct
import time

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.tflite.android.adb import Adb

POLL_SECONDS = 10.0  # between two readings of the temperature
_FREQUENCIES = "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo $f $(cat $f); done"  # kHz
_MACHINES = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}  # e_machine of an ELF file


@dataclasses.dataclass(frozen=True)
class Device:
    """A device.

    Attributes:
        serial: adb's name for it.
        model: maker and model.
        soc: system on a chip.
        android: version of Android.
        sdk: its API level.
        abis: supported native ABIs, the preferred one first.
        cores: core -> largest frequency in kHz; empty if the device does not report it.
    """

    serial: str
    model: str
    soc: str
    android: str
    sdk: int
    abis: tuple[str, ...]
    cores: dict[int, int]


def read_device(adb: Adb) -> Device:
    """Reads the properties of a device.

    Raises:
        RunError: the device does not answer.
    """
    properties = dict(re.findall(r"^\[(.+?)\]: \[(.*?)\]\s*$", adb.checked_shell("getprop"), re.MULTILINE))

    def first(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "unknown")

    listed, _ = adb.shell(_FREQUENCIES)
    cores = {int(core): int(khz) for core, khz in re.findall(r"/cpu(\d+)/cpufreq/cpuinfo_max_freq (\d+)", listed)}
    maker, chip = properties.get("ro.soc.manufacturer", ""), first("ro.soc.model", "ro.board.platform", "ro.hardware")
    sdk = first("ro.build.version.sdk")
    return Device(
        serial=adb.serial,
        model=f"{properties.get('ro.product.manufacturer', '')} {first('ro.product.model')}".strip(),
        soc=f"{maker} {chip}".strip(),
        android=first("ro.build.version.release"),
        sdk=int(sdk) if sdk.isdecimal() else 0,
        abis=tuple(first("ro.product.cpu.abilist", "ro.product.cpu.abi").split(",")),
        cores=dict(sorted(cores.items())),
    )


def core_mask(device: Device, which: str, threads: int) -> int | None:
    """The cores to run on as a bit mask.

    Args:
        device: the device.
        which: "big" (the fastest cores, and the next kind if there are fewer than threads), "little" (the slowest
            cores likewise), "all", or a mask in hexadecimal such as "f0".
        threads: number of cores needed.

    Returns:
        The mask; None for "all" (no pinning).

    Raises:
        UsageError: `which` is none of these, the device has no such core, or does not report its frequencies.
    """
    if which == "all":
        return None
    if which not in ("big", "little"):
        return _given_mask(device, which, threads)
    if not device.cores:
        raise UsageError(
            f"device {device.serial} does not report the frequencies of its cores: give a mask (cores=f0) or cores=all",
            setting="cores",
        )
    chosen: list[int] = []
    for frequency in sorted(set(device.cores.values()), reverse=which == "big"):
        if len(chosen) < threads:
            chosen += [core for core, khz in device.cores.items() if khz == frequency]
    if len(chosen) < threads:
        raise UsageError(f"device {device.serial} has {len(device.cores)} cores. Received: {threads} threads")
    return sum(1 << core for core in chosen)


def _given_mask(device: Device, which: str, threads: int) -> int:
    if not re.fullmatch(r"(0x)?[0-9a-f]+", which, re.IGNORECASE | re.ASCII):
        raise UsageError(f"cores takes big, little, all or a hexadecimal mask. Received: {which!r}", setting="cores")
    mask = int(which, 16)
    cores = [core for core in range(mask.bit_length()) if mask >> core & 1]
    if len(cores) < threads or (device.cores and not set(cores) <= set(device.cores)):
        known = f" (device {device.serial} has {', '.join(map(str, device.cores))})" if device.cores else ""
        raise UsageError(f"cores={which} means cores {cores} for {threads} threads{known}", setting="cores")
    return mask


def describe_cores(device: Device, mask: int | None) -> str:
    """Such as "cores 6, 7 (2.85 GHz)"."""
    if mask is None:
        return "all cores"
    cores = [core for core in range(mask.bit_length()) if mask >> core & 1]
    speeds = sorted({device.cores[core] for core in cores if core in device.cores}, reverse=True)
    ghz = f" ({', '.join(f'{khz / 1e6:.2f}' for khz in speeds)} GHz)" if speeds else ""
    return f"core{'s' * (len(cores) > 1)} {', '.join(map(str, cores))}{ghz}"


def check_program(path: pathlib.Path, device: Device) -> None:
    """Raises UsageError if a file is no program for this device."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise UsageError(
            f"benchmark_model={path} cannot be read: {error.strerror or error}", "benchmark_model"
        ) from error
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise UsageError(f"benchmark_model={path} is not an Android program (not an ELF file)", "benchmark_model")
    kind = _MACHINES.get(struct.unpack_from("<H", head, 18)[0], "of an unknown kind")
    if kind not in device.abis:
        raise UsageError(
            f"benchmark_model={path} is a program for {kind}; device {device.serial} runs {', '.join(device.abis)}",
            setting="benchmark_model",
        )


def temperature(adb: Adb) -> float | None:
    """Degrees Celsius: of the battery, or else of the warmest processor sensor; None if neither can be read."""
    battery, _ = adb.shell("dumpsys battery")
    if match := re.search(r"^\s*temperature: (-?\d+)\s*$", battery, re.MULTILINE):
        return int(match[1]) / 10
    zones, _ = adb.shell("for z in /sys/class/thermal/thermal_zone*; do echo $(cat $z/type) $(cat $z/temp); done")
    values = [
        int(value) for kind, value in re.findall(r"^(\S+) (-?\d+)\s*$", zones, re.MULTILINE) if "cpu" in kind.lower()
    ]
    return max(value / 1000 if value > 1000 else float(value) for value in values) if values else None


def wait_until_cool(adb: Adb, limit: float, minutes: float) -> tuple[float | None, bool]:
    """Waits until a device has cooled down to a limit.

    Args:
        adb: the device.
        limit: degrees Celsius.
        minutes: the longest wait.

    Returns:
        The temperature at the end (None: it cannot be read), and whether it is within the limit.

    Raises:
        RunError: the device disconnected.
    """
    now = temperature(adb)
    if now is None or now <= limit:
        return now, now is not None
    progress.say(f"{adb.serial} has {now:.1f} °C: waiting for {limit:.1f} °C, at most {minutes:g} minutes")
    end = time.monotonic() + 60 * minutes
    with progress.bar(what="Cooling", total=round(10 * (now - limit)), unit=" x 0.1 °C") as bar:
        start = now
        while now is not None and now > limit and time.monotonic() < end:
            time.sleep(min(POLL_SECONDS, max(end - time.monotonic(), 0.0)))
            now = temperature(adb)
            bar.update(max(0, round(10 * (start - (now or start))) - bar.n))
    if now is None:
        raise RunError(f"device {adb.serial} no longer reports its temperature")
    if now > limit:
        progress.say(f"{adb.serial} still has {now:.1f} °C after {minutes:g} minutes: measuring anyway")
    return now, now <= limit
