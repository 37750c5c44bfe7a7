"""The Arm cores that can be emulated, and what XNNPACK reads about them.

XNNPACK chooses its kernels by the core's features and its part number, which it reads from /proc/cpuinfo and /sys. The
emulator passes the host's files through, so each core has files of its own.
"""

import dataclasses
import pathlib

from dcp_tf.errors import UsageError

_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V82 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclasses.dataclass(frozen=True)
class Core:
    """A core.

    Attributes:
        name: as users say it, one of `ARM_CORES`.
        part: its part number in /proc/cpuinfo.
        features: its features there.
        emulated_as: the emulator's name for it.
    """

    name: str
    part: int
    features: str
    emulated_as: str


CORES = {
    core.name: core
    for core in (
        Core("cortex-a53", 0xD03, _V8, "cortex-a53"),
        Core("cortex-a72", 0xD08, _V8, "cortex-a72"),
        Core("cortex-a76", 0xD0B, _V82, "cortex-a76"),
        Core("neoverse-n1", 0xD0C, _V82, "neoverse-n1"),
        # SME is off: under QEMU 7.2 int8 files compute wrong values with it.
        Core("max", 0xD40, f"{_V82} i8mm sve bf16", "max,sme=off"),
    )
}


def find_core(name: str) -> Core:
    """A core by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in CORES:
        raise UsageError(f"cpu must be one of {', '.join(CORES)}. Received: {name!r}", setting="cpu")
    return CORES[name]


def write_core_files(core: Core, root: pathlib.Path) -> None:
    """Writes proc/ and sys/ of a machine with one such core.

    Args:
        core: the core.
        root: the folder that stands for /.
    """
    cpu = "sys/devices/system/cpu"
    files = {
        "proc/cpuinfo": "\n".join(
            f"{name}\t: {value}"
            for name, value in (
                ("processor", 0),
                ("Features", core.features),
                ("CPU implementer", "0x41"),
                ("CPU architecture", 8),
                ("CPU variant", "0x4"),
                ("CPU part", hex(core.part)),
                ("CPU revision", 1),
            )
        ),
        **{f"{cpu}/{name}": "0" for name in ("possible", "present", "online")},
        **{
            f"{cpu}/cpu0/topology/{name}": "0"
            for name in ("physical_package_id", "cluster_id", "core_id", "core_siblings_list", "thread_siblings_list")
        },
        f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": "2000000",
        f"{cpu}/cpu0/cpufreq/cpuinfo_min_freq": "500000",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
