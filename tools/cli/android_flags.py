"""The flags of measurements, here and on Android devices."""

from typing import Any

from dcp_tf.settings.measurement import AndroidSettings
from dcp_tf.tools.cli.flags_from_settings import define, read, values_of
from dcp_tf.tools.cli.program import FLAG_OF, Program

FLAG_OF["cpus"] = "cpu"


def define_device(program: Program) -> None:
    """`--device`."""
    program.enum("device", "host", ("host", "android"), "Where to measure.")


def define_android(program: Program) -> None:
    """The flags that every program has which measures on Android."""
    program.section("Android")
    fields = ("benchmark_model", "serials", "adb", "cores", "cool_to", "cool_minutes")
    define(program, AndroidSettings, fields, {"benchmark_model": {"default": None}})


def read_android(flags: Any) -> AndroidSettings:
    """The settings that the flags state; a program may lack flags that have no meaning for it."""
    return read(values_of(flags), AndroidSettings, benchmark_model=flags.benchmark_model)
