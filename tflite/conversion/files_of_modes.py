"""How the file of a quantization mode is called, and how it is made from calibration samples."""

from collections.abc import Callable
from typing import Any

from dcp_tf import progress
from dcp_tf.tflite.types import Quantization, TFLiteFile


def file_name(name: str, mode: str, io: str) -> str:
    """NAME_MODE.tflite, or NAME_MODE_io8.tflite with integer inputs and outputs."""
    return f"{name}_{mode}{'_io8' if io == 'int8' and mode in ('int8', 'qat') else ''}.tflite"


def model_of_mode(model: Any, mode: str, replaces_prelu: bool) -> tuple[Any, dict[str, int]]:
    """The model that a file is made of, and compared with: in 8 bits one without PReLUs, where they are replaced.

    Args:
        model: a Keras model.
        mode: quantization mode.
        replaces_prelu: whether they are.

    Returns:
        The model, and what the file's record says of it.
    """
    if not replaces_prelu or mode not in ("int8", "qat"):
        return model, {}
    from dcp_tf.graph import ChannelGraph
    from dcp_tf.graph.prelu import with_maximum

    new, count, left = with_maximum(ChannelGraph(model))
    if left:
        why = "it has no single slope for each channel of an image (shared_axes=[1, 2])"
        progress.say(f"{', '.join(left)}: PReLU stays, {why}")
    return (new, {"replaced_prelus": count}) if count else (model, {})


def convert_in_mode(
    model: Any, mode: str, samples: Callable[[], Any], io: str, strict: bool, bias_correction: bool
) -> TFLiteFile:
    """Converts a model; only integer files ask for calibration samples.

    Args:
        model: a Keras model of fixed sizes.
        mode: quantization mode.
        samples: returns an array (N, ...), or one such array for each input.
        io: "float" or "int8": inputs and outputs of int8 files.
        strict: refuse integer files in which an operation stays in float.
        bias_correction: of `convert`.

    Raises:
        UsageError: the model does not suit this mode.
        RunError: the model cannot be converted.
    """
    from dcp_tf.tflite import convert  # here: it imports TensorFlow

    quantization = Quantization(mode)
    if not quantization.is_calibrated and not (quantization.takes_samples and bias_correction):
        return convert(model, mode)
    io = io if mode == "int8" else "float"
    return convert(
        model,
        mode,
        representative_data=samples(),
        io=io,
        allow_float=not strict,
        bias_correction=bias_correction,
    )
