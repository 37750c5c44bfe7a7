"""Where the emulator and the Arm software lie that `setup` fetched, and how a program runs in them."""

import dataclasses
import os
import pathlib
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.files import read_json
from dcp_tf.tflite.arm.cores import Core

ABOUT = "about.json"  # written last: a folder that has it is complete


@dataclasses.dataclass(frozen=True)
class ArmEnvironment:
    """An emulator for this machine, and the software of an Arm machine for it.

    Attributes:
        folder: has host/ (the emulator), guest/ (an Arm Debian with Python), site/ (Python packages for Arm), cores/
            (what each core tells about itself), count.so (the counting plugin) and about.json.
        about: versions of what was fetched.
    """

    folder: pathlib.Path
    about: dict[str, Any]

    @classmethod
    def find(cls, folder: str | os.PathLike | None = None) -> "ArmEnvironment":
        """The environment in a folder, by default the user's.

        Raises:
            UsageError: it was not set up, or for another version of ai-edge-litert.
        """
        from importlib import metadata

        folder = default_folder() if folder is None else pathlib.Path(folder)
        if not (folder / ABOUT).exists():
            raise UsageError("Arm emulation is not set up on this machine: run `dcp-tf setup arm` once")
        about = read_json(folder / ABOUT)
        installed = metadata.version("ai-edge-litert")
        if about["ai_edge_litert"] != installed:
            raise UsageError(
                f"Arm emulation was set up for ai-edge-litert {about['ai_edge_litert']}, but {installed} is installed: "
                "run `dcp-tf setup arm --overwrite`"
            )
        return cls(folder, about)

    def command(self, core: Core, arguments: list[str], path: list[str], marks: str | None = None) -> list[str]:
        """The command that runs Arm's Python.

        Args:
            core: what is emulated.
            arguments: of Python.
            path: further folders of its modules.
            marks: the file in which the plugin counts; None: it is not loaded.
        """
        root = self.folder / "cores" / core.name  # guest/, with the core's own proc and sys
        libraries = [self.folder / "host" / name for name in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]
        guest = {
            "PYTHONHASHSEED": "0",  # else the number of instructions varies
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHOME": str(root / "usr"),
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), *path]),
            "LD_LIBRARY_PATH": f"{root}/usr/lib/aarch64-linux-gnu:{root}/lib/aarch64-linux-gnu",
        }
        return [
            str(self.folder / "host/lib64/ld-linux-x86-64.so.2"),
            *("--library-path", os.pathsep.join(map(str, libraries))),
            str(self.folder / "host/usr/bin/qemu-aarch64"),
            *("-cpu", core.emulated_as, "-L", str(root)),
            *(["-plugin", f"file={self.folder / 'count.so'},out={marks}"] if marks else []),
            *(part for name, value in guest.items() for part in ("-E", f"{name}={value}")),
            str(root / "usr/bin" / self.about["python"]),
            *arguments,
        ]


def default_folder() -> pathlib.Path:
    """The `dcp_tf/arm` folder of the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "dcp_tf", "arm")
