"""Runs a file, compares it with its model, and records what is in it."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from dcp_tf.errors import RunError
from dcp_tf.tflite.schema.inspect import inspect
from dcp_tf.tflite.schema.kernel_support import outside_xnnpack, unsupported_operations
from dcp_tf.tflite.schema.memory_plan import memory_plan
from dcp_tf.tflite.schema.metadata import read_metadata
from dcp_tf.tflite.types import TFLiteFile
from dcp_tf.tflite.verify.divergence import first_divergence
from dcp_tf.tflite.verify.parity import check_parity, check_tolerance


def check_file(
    file: TFLiteFile,
    model: Any,
    images: Any,
    *,
    outputs: str = "logits",
    independent: bool = False,
    calibration_images: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Compares a file with the model that it was converted from.

    Args:
        file: the converted model.
        model: the Keras model.
        images: what both run on, as for `check_parity`; the accuracies are those of the class numbers of `Samples`.
        outputs: kind of the outputs, as for `check_parity`.
        independent: as for `check_parity`.
        calibration_images: returns the calibration images of integer files, to find the cause of a large error.

    Returns:
        The file's entry in summary.json and export.json.

    Raises:
        RunError: an operation has no kernel, or the file differs too much from its model; the line names the first
            layer where it does.
    """
    mode = file.quantization
    if missing := unsupported_operations(file):
        raise RunError(f"{len(missing)} operations cannot be run in {mode.value}: {'; '.join(missing[:3])}")
    compare = functools.partial(check_parity, file, model, outputs=outputs, independent=independent)
    parity = compare(images)
    try:
        check_tolerance(parity, mode)
    except RunError as error:
        if mode.is_calibrated and calibration_images is not None:
            error = _with_cause(error, parity, mode, compare(calibration_images()))
        layer = first_divergence(file, model, images)
        where = f"first beyond the limit: {layer}" if layer else "each layer by itself is within the limit"
        raise RunError(f"{error}; {where}") from error
    content, plan = inspect(file), memory_plan(file)
    return {
        "quantization": mode.value,
        "bytes": content.size,
        **{name: _finite(value) for name, value in dataclasses.asdict(parity).items()},
        "macs": content.macs,
        "arena_bytes": plan.arena,
        "fullest_operation": plan.fullest,
        "operations": content.operations,
        "tensor_types": content.tensor_types,
        "float_operations": content.float_operations if mode.is_integer else [],
        "conversions": content.conversions,
        "outside_xnnpack": outside_xnnpack(file),
        "metadata": dataclasses.asdict(read_metadata(file)),
    }


def _with_cause(error: RunError, parity: Any, mode: Any, on_calibration: Any) -> RunError:
    """The error with advice that depends on whether the calibration images are the cause."""
    try:
        check_tolerance(parity, mode, on_calibration)
    except RunError as better:
        return better
    return error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
