"""The flags of measurements on Android devices."""

from dcp_tf.tools.cli.program import Program


def define_android(program: Program) -> None:
    """Defines the flags."""
    program.section("Android")
    program.string(
        "benchmark_model",
        None,
        "TFLite's benchmark_model, built for the device; without it the error says where it is.",
    )
    program.list("serial", [], "The devices, as `adb devices` calls them; by default the only one that is connected.")
    program.path("adb", None, "The adb program; by default the one on PATH or in the Android SDK.")
    program.string("cores", "big", "Where to run: big, little, all, or a mask of cores in hexadecimal, such as f0.")
    program.float("cool_to", 35.0, "Wait until the device has at most this temperature (degrees Celsius).")
    program.float("cool_minutes", 10.0, "The longest wait; after it the measurement goes on and says so.")


def read_android(flags):
    """The `AndroidSettings` that the flags state; a program may lack flags that have no meaning for it."""
    from dcp_tf.tflite.android.session import AndroidSettings

    optional = ("delegates", "runs", "repetitions", "warmup", "profile")
    return AndroidSettings(
        benchmark_model=flags.benchmark_model,
        serials=flags.serial,
        adb=flags.adb,
        cores=flags.cores,
        threads=flags.threads,
        cool_to=flags.cool_to,
        cool_minutes=flags.cool_minutes,
        **{name: flags[name].value for name in optional if name in flags},
    )
