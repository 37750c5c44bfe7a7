"""Converts a model to a TFLite file, adds metadata, and checks the file against the model."""

import dataclasses
from collections.abc import Callable
from typing import Any

from dcp_tf.tools.app.qat_file import make_qat_file
from dcp_tf.tools.app.run_summary import measure_figures


def fixed_size(model: Any, dataset: Any) -> Any:
    """The model with the image size of the data set, because TFLite needs fixed sizes."""
    from dcp_tf.tflite.conversion.fixed_size import with_fixed_size

    return with_fixed_size(model, dataset.train.shapes)


def make(model: Any, mode: str, dataset: Any, objective: Any, settings: Any, seed: int) -> tuple:
    """Makes a TFLite file of a model and checks it.

    Args:
        model: a Keras model, see `fixed_size`.
        mode: quantization mode.
        dataset: its training images are used for calibration, and for training in mode "qat".
        objective: of the model, None if it has several outputs.
        settings: a `Deployment`.
        seed: of the calibration images.

    Raises:
        UsageError: the model does not suit this mode.
        RunError: the model cannot be converted, or the file differs too much from it.
    """
    from dcp_tf.tflite.conversion.files_of_modes import model_of_mode

    model, about = model_of_mode(model, mode, settings.replace_prelu)
    if mode == "qat":
        file, source = make_qat_file(model, dataset, objective, settings, seed)
    else:
        file, source = convert(model, mode, dataset, settings, seed), model
    file, record = check(file, source, dataset, objective, lambda: _calibration_images(dataset, settings, seed))
    record |= about
    if settings.check_on != "host":
        from dcp_tf.tflite.verify import elsewhere
        from dcp_tf.tflite.verify.samples import samples_of_split

        check_there, more = {
            "arm": (elsewhere.check_on_arm, {"core": settings.arm_core}),
            "micro": (elsewhere.check_on_micro, {}),
        }[settings.check_on]
        record[settings.check_on] = check_there(
            file, source, samples_of_split(dataset.test), **more, **_outputs(objective)
        )
    return file, record


def convert(model: Any, mode: str, dataset: Any, settings: Any, seed: int) -> Any:
    """Converts a model; integer files are calibrated on training images.

    Args:
        model: a Keras model, see `fixed_size`.
        mode: quantization mode.
        dataset: its training images are used for calibration.
        settings: a `Deployment`.
        seed: of the calibration images.

    Raises:
        UsageError: the model does not suit this mode.
        RunError: the model cannot be converted.
    """
    from dcp_tf.tflite.conversion.files_of_modes import convert_in_mode, model_of_mode

    model, _ = model_of_mode(model, mode, settings.replace_prelu)
    return convert_in_mode(
        model,
        mode,
        lambda: _calibration_images(dataset, settings, seed),
        settings.io,
        settings.strict,
        settings.bias_correction,
    )


def _calibration_images(dataset: Any, settings: Any, seed: int) -> Any:
    return dataset.train.representative(settings.calibration_samples, seed)


def add_metadata(file: Any, model: Any, dataset: Any, objective: Any) -> Any:
    """The file with metadata about its model and its data."""
    from dcp_tf import tflite

    normalization = getattr(dataset.train, "normalization", None)
    loss, output_type = (getattr(objective, name, None) for name in ("name", "output_type"))
    mode = file.quantization.value
    several = _of_several(model, dataset.train, objective)
    images = [own for own in getattr(dataset.train, "normalizations", ()) if own is not None]
    normalization = images[0] if len(images) == 1 else normalization
    about = tflite.image_metadata(model, mode, normalization, dataset.class_names, output_type, loss)
    return tflite.with_metadata(file, dataclasses.replace(about, **several))


def _of_several(model: Any, train: Any, objective: Any) -> dict[str, tuple]:
    """What the metadata say of single inputs and outputs; nothing where there is one of both."""
    from dcp_tf.models.signature import input_names

    names, parts = input_names(model), getattr(objective, "parts", ())
    if len(names) == 1 and not parts:
        return {}
    used = getattr(train, "normalizations", ()) or [getattr(train, "normalization", None)] * len(names)
    return {
        "inputs": tuple({"name": n, "normalization": own and own.name} for n, own in zip(names, used, strict=True)),
        "parts": tuple({"name": n, "kind": o.outputs_kind, "loss": o.name, "weight": w} for n, o, w in parts),
    }


def _outputs(objective: Any) -> dict[str, Any]:
    """What `check_parity` has to know of a model's outputs."""
    independent = getattr(objective, "multilabel", False) or (
        getattr(objective, "independent", False) and objective.is_dense
    )
    return {"outputs": "embeddings" if objective is None else objective.parity, "independent": independent}


def check(
    file: Any,
    model: Any,
    dataset: Any,
    objective: Any,
    calibration_images: Callable[[], Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Adds metadata to a file, runs it on all test images, and compares it with its model.

    Args:
        file: the converted model.
        model: the Keras model that it was converted from.
        dataset: its class names and normalization become metadata.
        objective: of the model, None if it has several outputs.
        calibration_images: returns the calibration images of integer files, to find the cause of a large error.

    Returns:
        The file with metadata, and its record for summary.json and export.json.

    Raises:
        RunError: an operation has no kernel, or the file differs too much from its model; the line names the first
            layer where it does.
    """
    from dcp_tf import tflite
    from dcp_tf.tflite.verify.checked_file import check_file
    from dcp_tf.tflite.verify.samples import samples_of_split

    file = add_metadata(file, model, dataset, objective)
    class_numbers = (lambda _: None) if objective is None else objective.class_numbers
    samples = samples_of_split(dataset.test, class_numbers)
    record = check_file(file, model, samples, calibration_images=calibration_images, **_outputs(objective))
    if objective is not None and dataset.test.labels is not None and class_numbers(dataset.test.labels) is None:
        record |= measure_figures(tflite.Runner(file).predict, dataset, objective)
    if record["quantization"] == "sparse":
        sparse = tflite.sparse_inference_report(file)
        record["sparse_inference"] = {"accepted": sparse.accepted, **dataclasses.asdict(sparse)}
    return file, record
