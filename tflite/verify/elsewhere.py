"""Compares a file that runs elsewhere, on Arm or in TFLite Micro, with its Keras model and with this machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.errors import RunError
from dcp_tf.models.signature import pack
from dcp_tf.settings.measurement import ARM_CORE
from dcp_tf.tflite.types import TFLiteFile
from dcp_tf.tflite.verify.parity import check_parity, check_tolerance
from dcp_tf.tflite.verify.samples import samples_of

SAMPLES = 100  # emulated cores and reference kernels are slow


def check_on_arm(
    file: TFLiteFile, model: Any, images: np.ndarray | Sequence[np.ndarray], *, core: str = ARM_CORE, **outputs: Any
) -> dict[str, Any]:
    """Runs a file on an emulated Arm core, on the first images, with XNNPACK's kernels for Arm.

    Args:
        file: the converted model.
        model: the Keras model that it was converted from.
        images: inputs (N, ...) as the model takes them, or one such array for each input.
        core: name of the core.
        **outputs: the kind of the outputs, as for `check_parity`.

    Returns:
        `machine`, `samples`, errors relative to the outputs' spread as `check_parity` gives them, `top1_agreement`
        with the Keras model, and `host_difference`, the largest absolute difference to the outputs on this machine.

    Raises:
        UsageError: Arm emulation is not set up, or the images do not fit.
        RunError: the file differs from its model by more than its mode allows, or the emulator died.
    """
    from dcp_tf.tflite.arm.emulator import Emulator
    from dcp_tf.tflite.arm.runner import ArmRunner

    with Emulator(core) as emulator:
        return {"machine": emulator.machine} | _compare(
            ArmRunner(file, emulator), emulator.machine, file, model, images, outputs
        )


def check_on_micro(
    file: TFLiteFile, model: Any, images: np.ndarray | Sequence[np.ndarray], **outputs: Any
) -> dict[str, Any]:
    """Runs a file with TFLite Micro's interpreter, on the first images.

    Args:
        file: the converted model.
        model: the Keras model that it was converted from.
        images: inputs (N, ...) as the model takes them, or one such array for each input.
        **outputs: the kind of the outputs, as for `check_parity`.

    Returns:
        As `check_on_arm`, and the bytes of the arena: `activation_bytes` (with scratch memory) and `persistent_bytes`.

    Raises:
        UsageError: tflite-micro is not installed, or the images do not fit.
        RunError: TFLite Micro lacks an operation, or the file differs from its model by more than its mode allows.
    """
    from dcp_tf.tflite.micro.interpreter import MicroRunner

    runner = MicroRunner(file)
    sizes = {"activation_bytes": runner.activations, "persistent_bytes": runner.persistent}
    return {"machine": "TFLite Micro"} | sizes | _compare(runner, "TFLite Micro", file, model, images, outputs)


class _Answered:
    """A runner whose outputs are known; batches come in order."""

    def __init__(self, outputs: np.ndarray | list[np.ndarray]):
        self._outputs, self._begin = (outputs if isinstance(outputs, list) else [outputs]), 0

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of the next images."""
        rows = slice(self._begin, self._begin + len(images if isinstance(images, np.ndarray) else images[0]))
        self._begin = rows.stop
        return [part[rows] for part in self._outputs]


def _compare(
    runner: Any, machine: str, file: TFLiteFile, model: Any, images: Any, outputs: dict[str, Any]
) -> dict[str, Any]:
    few = pack(samples_of(images, len(model.inputs)).first(SAMPLES))
    answers = runner.predict(few)  # once, as it is slow
    parity = check_parity(file, model, few, runner=_Answered(answers), **outputs)
    try:
        check_tolerance(parity, file.quantization)
    except RunError as error:
        raise RunError(f"on {machine}, {error}") from error
    return {
        "samples": parity.samples,
        "max_error": parity.max_error,
        "mean_error": parity.mean_error,
        "top1_agreement": parity.top1_agreement,
        "host_difference": runner.host.difference(answers, few),
    }
