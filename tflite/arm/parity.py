"""Compares a file on an emulated Arm core with its Keras model and with this machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.errors import RunError
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.tflite.arm.emulator import Emulator
from dcp_tf.tflite.arm.runner import ArmRunner
from dcp_tf.tflite.types import TFLiteFile
from dcp_tf.tflite.verify.parity import check_parity, check_tolerance

SAMPLES = 100  # an emulated core is slow


def check_on_arm(
    file: TFLiteFile,
    model: Any,
    images: np.ndarray | Sequence[np.ndarray],
    *,
    core: str = ARM_CORE,
    outputs: str = "logits",
    independent: bool = False,
) -> dict[str, Any]:
    """Runs a file on an emulated Arm core, on the first images, with XNNPACK's kernels for Arm.

    Args:
        file: the converted model.
        model: the Keras model that it was converted from.
        images: inputs (N, ...) as the model takes them, or one such array for each input.
        core: name of the core.
        outputs: kind of the outputs, as for `check_parity`.
        independent: as for `check_parity`.

    Returns:
        `machine`, `samples`, errors relative to the outputs' spread as `check_parity` gives them, `top1_agreement`
        with the Keras model, and `host_difference`, the largest absolute difference to the outputs on this machine.

    Raises:
        UsageError: Arm emulation is not set up, or the images do not fit.
        RunError: the file differs from its model by more than its mode allows, or the emulator died.
    """
    few = images[:SAMPLES] if isinstance(images, np.ndarray) else [np.asarray(part)[:SAMPLES] for part in images]
    with Emulator(core) as emulator:
        runner = ArmRunner(file, emulator)
        parity = check_parity(file, model, few, outputs=outputs, independent=independent, runner=runner)
        difference = runner.difference(few)
    try:
        check_tolerance(parity, file.quantization)
    except RunError as error:
        raise RunError(f"on {emulator.machine}, {error}") from error
    return {
        "machine": emulator.machine,
        "samples": parity.samples,
        "max_error": parity.max_error,
        "mean_error": parity.mean_error,
        "top1_agreement": parity.top1_agreement,
        "host_difference": difference,
    }
