"""Sets up what is no Python package: an emulated Arm machine for TFLite files.

    dcp-tf setup arm
    dcp-tf setup --overwrite arm

It fetches QEMU, Python for Arm and ai-edge-litert for Arm through apt and pip into a folder of the user's cache (350
MB), without root and without changing the system, compiles a small plugin that counts instructions, and checks all of
it: a file runs on every emulated core and gives what it gives on this machine. After that `benchmark --device=arm`
counts the instructions of files, and `export --check_on=arm` compares files on Arm.
"""

import os
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dcp_tf.errors import RunError, UsageError
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("setup", __doc__)
PROGRAM.section("What is set up")
PROGRAM.enum("device", None, ("arm",), "What to set up; --device= may be left out.")
PROGRAM.boolean("overwrite", False, "Fetch again what is there.")


def main(flags) -> None:
    """Fetches, then compares the outputs of a small file on all cores."""
    if flags.device is None:
        raise UsageError("say what to set up: setup arm")
    from dcp_tf import progress
    from dcp_tf.tflite.arm.setup import set_up

    set_up(overwrite=flags.overwrite, say=progress.say)
    for name, difference in differences().items():
        if difference:
            raise RunError(f"an int8 file gives other values on the emulated {name} than here: {difference:g} apart")
        progress.say(f"{name}: an int8 file gives the same values as on this machine")


def differences() -> dict[str, float]:
    """By core, how far the outputs of a small int8 file lie from those of this machine."""
    import keras
    import numpy as np

    from dcp_tf import tflite
    from dcp_tf.settings.measurement import ARM_CORES
    from dcp_tf.tflite.arm.emulator import Emulator
    from dcp_tf.tflite.arm.runner import ArmRunner

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(16, 3, activation="relu"), keras.layers.Conv2D(8, 1)]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(4)])
    images = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)
    file = tflite.convert(model, quantization="int8", representative_data=images)
    apart = {}
    for core in ARM_CORES:
        with Emulator(core) as emulator:
            apart[core] = ArmRunner(file, emulator).difference(images)
    return apart


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    words = sys.argv[1:] if argv is None else argv
    return PROGRAM.run(main, [word if word.startswith("-") else f"--device={word}" for word in words])


if __name__ == "__main__":
    sys.exit(run())
