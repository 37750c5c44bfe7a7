"""Runs commands on Android devices through adb."""

import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import NoReturn

from dcp_tf.errors import RunError, UsageError

_EXIT_MARK = "dcp_tf_exit="
_LOST = ("not found", "offline", "no devices", "closed", "protocol fault", "cannot connect", "connection reset")


class DeviceLostError(RunError):
    """The connection to a device broke."""


def find_adb(path: str | None = None) -> str:
    """The adb program: the given one, the one on PATH, or the one in the Android SDK.

    Raises:
        UsageError: there is no adb.
    """
    if path is not None:
        if shutil.which(path) is None:
            raise UsageError(f"adb={path} is not an executable program", "adb")
        return path
    folders = [
        pathlib.Path(os.environ[name], "platform-tools")
        for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT")
        if os.environ.get(name)
    ]
    for program in (shutil.which("adb"), *(shutil.which("adb", path=folder) for folder in folders)):
        if program:
            return program
    raise UsageError(
        "adb is not on PATH: install Android's platform tools "
        "(https://developer.android.com/tools/releases/platform-tools) or give adb=PATH",
        setting="adb",
    )


def choose_devices(adb: str, serials: Sequence[str] = ()) -> list[str]:
    """The serial numbers of the devices to use.

    Args:
        adb: the program.
        serials: the devices; empty: the only connected one.

    Raises:
        UsageError: there is no such device, several are connected without a choice, or one is not ready.
        RunError: adb does not work.
    """
    states = _states(adb)
    connected = ", ".join(f"{serial} ({state})" for serial, state in states.items()) or "none"
    if missing := [serial for serial in serials if serial not in states]:
        raise UsageError(f"there is no device {missing[0]!r}; connected: {connected}")
    if not states:
        raise UsageError(
            "no Android device is connected: plug one in, enable USB debugging in its developer options, and check "
            "with `adb devices`"
        )
    if not serials and len(states) > 1:
        raise UsageError(
            f"several devices are connected ({connected}): say which, serials={','.join(states)}", "serials"
        )
    chosen = list(dict.fromkeys(serials)) or list(states)
    for serial in chosen:
        _require_usable(serial, states[serial])
    return chosen


def _states(adb: str) -> dict[str, str]:
    output = _call([adb, "devices"], 60)
    if output.returncode != 0:
        raise RunError(f"`adb devices` failed: {_last_line(output.stderr) or _last_line(output.stdout)}")
    _, _, listed = output.stdout.partition("List of devices attached")
    rows = [line.split(maxsplit=1) for line in listed.splitlines() if line.strip() and not line.startswith("*")]
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _require_usable(serial: str, state: str) -> None:
    if state == "device":
        return
    if state == "unauthorized":
        raise UsageError(f"device {serial} has not authorized this computer: unlock it and allow USB debugging")
    if state.startswith("no permissions"):
        raise UsageError(f"this user has no permission to open device {serial}: set up udev rules for it ({state})")
    raise UsageError(f"device {serial} is {state}: unplug it, plug it in again, and check with `adb devices`")


class Adb:
    """One device.

    Args:
        program: adb.
        serial: of the device.
    """

    def __init__(self, program: str, serial: str):
        self.program = program
        self.serial = serial

    def shell(self, command: str, timeout: float = 60) -> tuple[str, int]:
        """Runs a shell command on the device.

        Args:
            command: for the device's sh.
            timeout: seconds.

        Returns:
            What it printed (both streams), and its exit code.

        Raises:
            DeviceLostError: the device disconnected.
            RunError: the device does not answer.
        """
        # adb passes on the exit code only since Android 7, and returns its own code if the device is lost.
        done = self._call("shell", f"( {command} ) 2>&1; echo {_EXIT_MARK}$?", timeout=timeout)
        output, mark, code = done.stdout.rpartition(_EXIT_MARK)
        if not mark or not code.strip().isdecimal():
            reason = _last_line(done.stderr) or f"adb ended with code {done.returncode}"
            raise DeviceLostError(f"device {self.serial} was lost ({reason}): check the cable and run again")
        return output, int(code)

    def checked_shell(self, command: str, timeout: float = 60) -> str:
        """Like `shell`, for commands that must succeed.

        Raises:
            RunError: the command failed, or the device disconnected.
        """
        output, code = self.shell(command, timeout)
        if code != 0:
            raise RunError(f"device {self.serial} refused `{command}`: {_last_line(output) or f'exit code {code}'}")
        return output

    def push(self, source: pathlib.Path, target: str) -> None:
        """Copies a file to the device.

        Raises:
            RunError: the file cannot be copied, or the device disconnected.
        """
        done = self._call("push", str(source), target, timeout=600)
        if done.returncode != 0:
            self._refuse(done, f"{source.name} cannot be copied to device {self.serial}")

    def pull(self, source: str) -> bytes | None:
        """The content of a file of the device; None if there is no such file.

        Raises:
            RunError: the file cannot be copied, or the device disconnected.
        """
        with tempfile.TemporaryDirectory(prefix="dcp_tf-android-") as folder:
            path = pathlib.Path(folder, "pulled")
            done = self._call("pull", source, str(path), timeout=60)
            if "No such file" in done.stderr + done.stdout:
                return None
            if done.returncode != 0:
                self._refuse(done, f"{source} cannot be copied from device {self.serial}")
            return path.read_bytes()

    def _refuse(self, done: subprocess.CompletedProcess, what: str) -> NoReturn:
        reason = _last_line(done.stderr) or _last_line(done.stdout)
        if any(sign in reason for sign in _LOST) and "failed to copy" not in reason:
            raise DeviceLostError(f"device {self.serial} was lost ({reason}): check the cable and run again")
        raise RunError(f"{what}: {reason}")

    def _call(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess:
        return _call([self.program, "-s", self.serial, *arguments], timeout)


def _call(command: list[str], timeout: float) -> subprocess.CompletedProcess:
    """Runs adb in its own session, because the terminal's Ctrl-C would stop it before it can clean up."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"`{' '.join(command[:4])} ...` did not answer for {timeout:.0f} seconds") from error
    except OSError as error:
        raise RunError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("adb: ").removeprefix("error: ") if lines else ""
