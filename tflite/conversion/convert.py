"""Converts a Keras model to a TFLite file, and checks that integer files compute in integers."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import RunError, UsageError
from dcp_tf.settings.deployment import IO, Deployment
from dcp_tf.tflite.conversion.bias_correction import SAMPLES, correct_means
from dcp_tf.tflite.conversion.biases import correct_biases
from dcp_tf.tflite.conversion.calibration import calibration_samples, spread
from dcp_tf.tflite.conversion.converter_options import configure, require_zeros
from dcp_tf.tflite.conversion.keras_inference import check_model, infer
from dcp_tf.tflite.conversion.layer_normalization import centred_layer_normalization
from dcp_tf.tflite.conversion.symmetric_operands import symmetric_operands
from dcp_tf.tflite.conversion.weight_only import quantize_weights, require_quantizer
from dcp_tf.tflite.output_capture import OutputCapture
from dcp_tf.tflite.schema.inspect import inspect
from dcp_tf.tflite.types import Quantization, TFLiteFile


def convert(
    model: Any,
    quantization: str | Quantization = "float32",
    *,
    representative_data: Any = None,
    io: str = Deployment.io,
    allow_float: bool = False,
    bias_correction: bool = Deployment.bias_correction,
) -> TFLiteFile:
    """Converts a Keras model to TFLite at batch size 1.

    Args:
        model: a functional or sequential Keras 3 model with fixed input sizes, any number of inputs and outputs.
        quantization: a mode of `Quantization`, such as "float32", or "int8": all operations in integers, weights per
            channel.
        representative_data: for int8 and int16x8, and for the biases of weight-only files: typical inputs as the model
            takes them, an array (N, ...), a list or dict of arrays (several inputs), or an iterable of batches, with or
            without labels. Some hundred are enough: see `calibration.CALIBRATION_SAMPLES`.
        io: int8 only, "float" (floats go in and out, converted inside) or "int8" (integers go in and out).
        allow_float: int8 and int16x8 only, whether operations without an integer kernel may stay in float; `inspect`
            lists them. Otherwise such a file is an error.
        bias_correction: whether biases make up for the shift of each channel's mean that rounded weights cause, as
            measured on some of the samples.

    Returns:
        The file, in memory. Its signature calls the inputs input_0, input_1 ... in the order of `model.inputs`, and
        the outputs output_0 ... in the order of `model.outputs`.

    Raises:
        UsageError: an argument does not fit, a model for a sparse file has too few zeros, or ai-edge-quantizer is not
            installed for a weight-only file.
        RunError: the converter has no kernel for an operation, or left an operation of an integer file in float.
    """
    from dcp_tf.models.names import (
        with_valid_names,
    )  # here: it imports TensorFlow, whose start-up output is captured first

    quantization = Quantization.parse(quantization)
    check_model(model)
    model, _ = with_valid_names(model)
    _check_arguments(quantization, representative_data, io)
    if quantization is Quantization.SPARSE:
        require_zeros(model)
    if quantization.weight_bits:
        require_quantizer()
    corrects = bias_correction and quantization.is_calibrated
    data = representative_data if quantization.is_calibrated else None
    content = run_converter(model, quantization, data, io, allow_float, corrects)
    if quantization.weight_bits:
        content, reference = quantize_weights(content, quantization), content
        if bias_correction and representative_data is not None:
            content = correct_means(content, reference, list(calibration_samples(model, representative_data)[0]))
    file = TFLiteFile(content=content, quantization=quantization)
    if quantization.is_integer and not allow_float:
        check_integer(model, file)
    return file


def _check_arguments(quantization: Quantization, representative_data: Any, io: str) -> None:
    if io not in IO:
        raise UsageError(f"io must be one of {', '.join(IO)}. Received: {io!r}")
    if quantization is Quantization.QAT:
        raise UsageError("qat needs training: tflite.quantization_aware_training, then tflite.convert_qat")
    if quantization.is_calibrated and representative_data is None:
        raise UsageError(
            f"{quantization.value} needs representative_data (some hundred typical images) to measure the ranges on"
        )
    if io == "int8" and quantization is not Quantization.INT8:
        raise UsageError(f"io='int8' is for quantization='int8'. Received: {quantization.value!r}")
    if representative_data is not None and not quantization.takes_samples:
        raise UsageError(
            f"representative_data is for quantization='int8', 'int16x8' and weight-only files; {quantization.value} "
            "measures no ranges"
        )


def run_converter(
    model: Any,
    quantization: Quantization,
    data: Any,
    io: str = Deployment.io,
    allow_float: bool = False,
    bias_correction: bool = False,
) -> bytes:
    """The bytes of a file, without checks; the arguments are those of `convert`.

    `model` may be any object with `name`, `inputs`, `input` and a call as a Keras model has.

    Raises:
        UsageError: the data do not fit the model.
        RunError: the converter failed, or is known to fail for this model.
    """
    _refuse_half_floats(model)
    capture = OutputCapture()
    samples, total = (None, None) if data is None else calibration_samples(model, data)
    bar = None if samples is None else progress.bar(what="Calibration", total=total, unit=" samples")
    seen: list = []  # samples on which biases are corrected
    if bias_correction:
        samples = spread(samples, total, SAMPLES, seen)
    try:
        with capture, centred_layer_normalization():
            concrete = _concrete_call(model)
            if data is not None:
                _refuse_loops(model, concrete, quantization)
            converter = _converter(concrete)
            named = None if samples is None else _named(_watched(samples, bar, capture))
            configure(converter, quantization, named, io, allow_float)
            content = converter.convert()
            reference = _converter(concrete).convert() if bias_correction else None
    except (UsageError, RunError):
        raise
    except Exception as error:  # the converter raises its own, ValueError, RuntimeError, TypeError, and more
        raise RunError(_explain(model, error, capture)) from error
    finally:
        if bar is not None:
            bar.close()
    content = symmetric_operands(correct_biases(content)) if quantization.is_integer else content
    return content if reference is None else correct_means(content, reference, seen)


def _refuse_half_floats(model: Any) -> None:
    """Rejects mixed precision, for which the converter's error gives no reason."""
    layers = list(_all_layers(model))
    halves = sorted({layer.compute_dtype for layer in layers if layer.compute_dtype in ("float16", "bfloat16")})
    if halves:
        raise RunError(
            f"{model.name!r} computes in {halves[0]} (mixed precision), for which TFLite has no kernels; convert "
            "in_full_precision(model) of dcp_tf.models, which computes in float32 with the same weights"
        )


def _all_layers(model: Any) -> Iterator[Any]:
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _all_layers(layer)


def _refuse_loops(model: Any, concrete: Any, quantization: Quantization) -> None:
    """Rejects loops (recurrent layers, `keras.ops.map`): calibrating one kills the process (TensorFlow 2.21)."""
    if loops := _loops(model, concrete.graph.as_graph_def()):
        raise RunError(
            f"TFLite cannot calibrate the loops of {model.name!r} ({', '.join(loops[:3])}) for {quantization.value}; "
            "choose float32, float16 or dynamic, or build recurrent layers with unroll=True, which have no loop"
        )


def _loops(model: Any, graph: Any) -> list[str]:
    """The layers with loops; for a loop without a layer, its scope in the graph."""
    layers = {layer.name for layer in _all_layers(model)}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    names = []
    for node in nodes:
        if node.op in ("While", "StatelessWhile"):
            # A name can end in the number of the call.
            parts = [part if part in layers else re.sub(r"_\d+$", "", part) for part in node.name.split("/")]
            names.append(next((part for part in reversed(parts) if part in layers), node.name))
    return list(dict.fromkeys(names))


def _concrete_call(model: Any) -> Any:
    """Inference at batch size 1 as one graph.

    This is faster than TFLiteConverter.from_keras_model and gives the same operations (docs/decisions/054). The batch
    size is fixed, so that shapes are constants and not computed in the file.
    """
    import tensorflow as tf

    signature = [
        tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, _numbered("input", len(model.inputs)), strict=True)
    ]

    def call(*inputs):
        outputs = infer(model, list(inputs))
        return dict(zip(_numbered("output", len(outputs)), outputs, strict=True))

    return tf.function(call, autograph=False).get_concrete_function(*signature)


def _converter(concrete: Any) -> Any:
    """A converter for a concrete function."""
    import tensorflow as tf

    owner = tf.Module()
    owner.weights = list(concrete.variables)  # the converter only freezes variables of this object
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], owner)


def _numbered(word: str, count: int) -> list[str]:
    """Names whose alphabetical order is numeric, because signatures are stored sorted by name."""
    width = len(str(count - 1))
    return [f"{word}_{number:0{width}d}" for number in range(count)]


def _named(samples: Iterator[list]) -> Callable[[], Iterator[dict]]:
    """The samples as dictionaries by input name, in the form that the converter takes."""

    def dataset() -> Iterator[dict]:
        for sample in samples:
            yield dict(zip(_numbered("input", len(sample)), sample, strict=True))

    return dataset


def _watched(samples: Iterator[list], bar: Any, capture: OutputCapture) -> Iterator[list]:
    """Yields the samples and updates the bar, which stays visible while the converter's output is captured."""
    for sample in samples:
        yield sample
        with capture.lifted():
            bar.update()


def _explain(model: Any, error: Exception, capture: OutputCapture) -> str:
    """One line that names the unsupported operations, or else the last lines of the converter's output."""
    refused = {}
    for entry in getattr(error, "errors", []):
        scope = entry.location.call[0].name.split("@")[0] if entry.location.call else ""
        refused[entry.operator.name.removeprefix("tf.")] = scope
    for name in re.findall(r"'(?:tf|tfl)\.(\w+)' op is neither", str(error)):
        refused.setdefault(name, "")
    for name in re.findall(r"not yet supported for op: '(\w+)'", str(error)):
        refused.setdefault(f"{name} in int16x8", "")
    refused.pop("", None)
    if refused:
        names = ", ".join(f"{name} (at {scope})" if scope else name for name, scope in sorted(refused.items()))
        return f"TFLite has no kernel for these operations of {model.name!r}: {names}; replace them in the model"
    if unmeasured := re.search(r"recorded during calibration: Failed for tensor (\S+)", str(error)):
        return (
            f"TFLite cannot calibrate {model.name!r} for this mode, as it measures no range of {unmeasured.group(1)} "
            "(such as of inputs of whole numbers in int16x8); choose int8, float16 or dynamic"
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    output = capture.tail()
    return f"{model.name!r} cannot be converted to TFLite: {first}" + (f" (converter: {output})" if output else "")


def check_integer(model: Any, file: TFLiteFile) -> None:
    """Rejects a file with operations in float.

    Raises:
        RunError: there are some; the line names them.
    """
    floats = inspect(file).float_operations
    if floats:
        raise RunError(
            f"{len(floats)} operations of {model.name!r} have no integer kernel and were left in float: "
            f"{', '.join(floats[:5])}{', ...' if len(floats) > 5 else ''}; replace them, allow float, or export float32"
        )
