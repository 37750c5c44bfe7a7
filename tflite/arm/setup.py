"""Fetches an emulator and the software of an Arm machine into a folder of the user's.

No root and no container is needed: apt fetches packages into folders of our own, which leave the system's package
lists alone; they are unpacked and not installed. What is fetched is what the system's package sources sign.
"""

import math
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from urllib.parse import unquote

from dcp_tf.errors import RunError, UsageError
from dcp_tf.files import write_json
from dcp_tf.tflite.arm.cores import CORES, write_core_files
from dcp_tf.tflite.arm.environment import ABOUT, ArmEnvironment, default_folder

_EMULATOR = ("qemu-user",)
_GUEST = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
_PORTS = "http://ports.ubuntu.com/ubuntu-ports"  # Ubuntu has its Arm packages on another server
_KEYS = "/usr/share/keyrings/{}-archive-keyring.gpg"
# Later releases link qemu-user statically, so that it cannot load plugins: the emulator is that of an earlier one then,
# with its own C library. Release from which on, server, suite, components.
_STATIC_QEMU = {
    "debian": (13, "http://deb.debian.org/debian", "bookworm", "main"),
    "ubuntu": (25, "http://archive.ubuntu.com/ubuntu", "noble", "main universe"),
}
_LOADER = "lib64/ld-linux-x86-64.so.2"


def set_up(
    folder: str | os.PathLike | None = None, *, overwrite: bool = False, say: Callable[[str], None] = print
) -> ArmEnvironment:
    """Fetches everything that Arm emulation needs: about 60 MB of packages, 350 MB unpacked.

    Args:
        folder: where to put it; by default a folder of the user's cache.
        overwrite: whether to fetch again what is there.
        say: called with a line about each step.

    Raises:
        UsageError: this machine cannot emulate, or a program is missing; the line names what to install.
        RunError: a download or the compiler failed.
    """
    folder = default_folder() if folder is None else pathlib.Path(folder)
    if (folder / ABOUT).exists() and not overwrite:
        environment = ArmEnvironment.find(folder)
        say(f"already set up in {folder}")
        return environment
    _check_machine()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        place = pathlib.Path(temporary, folder.name)
        place.mkdir()
        say("fetching the emulator (qemu-user) by apt")
        emulator = _fetch(_EMULATOR, "amd64", place / "host")
        if not (place / "host" / _LOADER).exists():
            raise RunError(
                f"qemu-user {emulator['qemu-user']} of this system loads no plugins, which count instructions"
            )
        say("fetching Python for Arm by apt")
        _fetch(_GUEST, "arm64", place / "guest")
        python = os.readlink(place / "guest/usr/bin/python3")
        say(f"fetching ai-edge-litert for Arm ({python}) by pip")
        litert = _fetch_wheels(python.removeprefix("python"), place / "site")
        say("compiling the plugin that counts instructions")
        _compile(place / "count.so")
        for core in CORES.values():
            root = place / "cores" / core.name
            write_core_files(core, root)
            for part in (place / "guest").iterdir():
                if part.name not in ("proc", "sys"):
                    (root / part.name).symlink_to(pathlib.Path("../../guest", part.name))
        about = {
            "python": python,
            "ai_edge_litert": litert,
            "emulator": re.sub(r"\d+:|\+.*", "", emulator["qemu-user"]),
        }
        write_json(place / ABOUT, about)
        if folder.exists():
            shutil.rmtree(folder)
        place.rename(folder)
    say(f"set up in {folder}")
    return ArmEnvironment(folder, about)


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UsageError(
            f"Arm emulation needs 64-bit x86 Linux with apt (Debian, Ubuntu, WSL). This is {platform.system()} "
            f"{platform.machine()}" + ("; `benchmark` measures Arm here itself" if _is_arm() else "")
        )
    for program, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("cc", "gcc")):
        if shutil.which(program) is None:
            raise UsageError(f"{program} is missing: install the package {package} (Debian or Ubuntu)")


def _is_arm() -> bool:
    return platform.machine() in ("aarch64", "arm64")


def _fetch(packages: Sequence[str], architecture: str, place: pathlib.Path) -> dict[str, str]:
    """Unpacks packages and all that they need; returns their versions by name."""
    with tempfile.TemporaryDirectory(prefix="dcp_tf-apt-") as temporary:
        lists = pathlib.Path(temporary)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (lists / name).mkdir(parents=True)
        (lists / "state/status").touch()  # nothing counts as installed: all that is needed is fetched
        options = {
            "Dir::State": lists / "state",
            "Dir::State::status": lists / "state/status",
            "Dir::Cache": lists / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": "root",  # no other user can read the temporary folder
            **_sources(platform.freedesktop_os_release(), architecture, lists),
        }
        apt = ["apt-get", "-qq", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
        _run([*apt, "update"], "apt cannot read its package lists")
        command = [*apt, "-y", "--no-install-recommends", "--download-only", "install", *packages]
        _run(command, f"apt cannot fetch {', '.join(packages)} for {architecture}")
        archives = sorted((lists / "cache/archives").glob("*.deb"))
        place.mkdir()
        for archive in archives:
            _run(["dpkg-deb", "-x", str(archive), str(place)], f"{archive.name} cannot be unpacked")
    _link_merged(place)
    return {package: unquote(version) for package, version in (archive.name.split("_")[:2] for archive in archives)}


def _link_merged(place: pathlib.Path) -> None:
    """Links /lib and the like to /usr, as newer systems do, whose packages hold files there alone."""
    for name in ("bin", "lib", "lib64"):
        if (place / "usr" / name).is_dir() and not (place / name).exists():
            (place / name).symlink_to(pathlib.Path("usr", name))


def _sources(system: Mapping[str, str], architecture: str, folder: pathlib.Path) -> dict[str, pathlib.Path | str]:
    """Options that name the package sources, where the system's own do not have what is needed."""
    name = system.get("ID", "")
    release, server, suites, components = _STATIC_QEMU.get(name, (math.inf, "", "", ""))
    if architecture == "arm64" and name == "ubuntu":
        server, components = _PORTS, "main universe"
        suites = " ".join(f"{system['VERSION_CODENAME']}{end}" for end in ("", "-updates", "-security"))
    elif architecture == "arm64" or float(system.get("VERSION_ID", math.inf)) < release:
        return {}
    keys = _KEYS.format(name)
    source = f"Types: deb\nURIs: {server}\nSuites: {suites}\nComponents: {components}\nSigned-By: {keys}\n"
    parts = folder / "parts"
    parts.mkdir()
    (parts / "dcp_tf.sources").write_text(source, encoding="ascii")
    return {"Dir::Etc::sourcelist": "/dev/null", "Dir::Etc::sourceparts": parts}


def _fetch_wheels(python: str, place: pathlib.Path) -> str:
    """Unpacks the wheels of ai-edge-litert and what it needs; returns its version, which is that installed here."""
    version = metadata.version("ai-edge-litert")
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(17, 40)] + ["manylinux2014_aarch64"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--implementation=cp", f"--python-version={python}", f"--target={place}"]
    command += [f"--platform={name}" for name in platforms]
    _run(
        [*command, f"ai-edge-litert=={version}"],
        f"pip cannot fetch ai-edge-litert {version} for Arm",
        PIP_ONLY_BINARY=":all:",
    )
    return version


def _compile(target: pathlib.Path) -> None:
    source = pathlib.Path(__file__).with_name("count.c")
    _run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(target)], "the plugin cannot be compiled")


def _run(command: Sequence[str], failure: str, **environment: str) -> None:
    """Runs a command, with more environment variables.

    Raises:
        RunError: it failed; the line has its last words.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, errors="replace")
    if done.returncode:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RunError(f"{failure}: {words[-1].strip() if words else f'exit code {done.returncode}'}")
