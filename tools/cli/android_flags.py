"""The flags of measurements, here, on Android devices and on an emulated Arm core."""

from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.measurement import ARM_CORE, ARM_CORES, AndroidSettings
from dcp_tf.tools.cli.flags_from_settings import define, read, values_of
from dcp_tf.tools.cli.program import FLAG_OF, Program

FLAG_OF["cpus"] = "cpu"


def define_device(program: Program) -> None:
    """`--device` and `--cpu`."""
    program.enum(
        "device",
        "host",
        ("host", "android", "arm"),
        "Where to measure; arm: executed instructions on an emulated Arm core, which repeat exactly but are not time "
        "(run `dcp-tf setup arm` once).",
    )
    cores = "; ".join(f"{name}: {about}" for name, about in ARM_CORES.items())
    program.list(
        "cpu",
        [],
        f"Host: pin the measuring processes to these processors, such as 1 or 2,3; default: no pinning. arm: the core "
        f"({cores}); default: {ARM_CORE}.",
    )


def read_arm_core(flags: Any) -> str:
    """The core that `--cpu` names; raises UsageError where it names several."""
    if len(flags.cpu) > 1:
        raise UsageError(f"--device=arm emulates one core: --cpu=cortex-a76. Received: --cpu={','.join(flags.cpu)}")
    return flags.cpu[0] if flags.cpu else ARM_CORE


def define_android(program: Program) -> None:
    """The flags that every program has which measures on Android."""
    program.section("Android")
    fields = ("benchmark_model", "serials", "adb", "cores", "cool_to", "cool_minutes")
    define(program, AndroidSettings, fields, {"benchmark_model": {"default": None}})


def read_android(flags: Any) -> AndroidSettings:
    """The settings that the flags state; a program may lack flags that have no meaning for it."""
    return read(values_of(flags), AndroidSettings, benchmark_model=flags.benchmark_model)
