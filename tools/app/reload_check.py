"""Checks that the `.keras` files of a run are, for plain Keras in a new process, the models that were measured."""

import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError, first_line
from dcp_tf.tools.app.failures import collect
from dcp_tf.tools.app.plain_keras import first_images, largest_difference, run_here, run_in_plain_keras
from dcp_tf.tools.cli.model_flags import code_of

IMAGES = 48
TOLERANCE = 1e-4  # largest difference of the outputs, relative to the largest output


def reload_records(
    folder: pathlib.Path, models: Mapping[str, Any], dataset: Any, flags: Any, failures: list[str]
) -> dict[str, dict]:
    """Loads each `NAME.keras` in a new process without dcp_tf, and compares its outputs with those of the model here.

    Args:
        folder: of the files.
        models: the measured models by the names of their files.
        dataset: the outputs are compared on its first test images.
        flags: whether to do this, and which code the files need (`--custom_objects`, `--allow_lambda`).
        failures: gets a line for each file that differs from its model.

    Returns:
        A record for each file, for summary.json.
    """
    records: dict[str, dict] = {}
    if flags.reload_check:
        import keras

        with collect(failures, "the check of the written models", flags.debug):
            files = [folder / f"{name}.keras" for name in models]
            names = ", ".join(file.name for file in files)
            progress.say(f"loading {names} in plain Keras to compare the outputs")
            images = first_images(dataset, IMAGES)
            results = run_in_plain_keras(images, files, **code_of(flags))
            for file, model, outputs in zip(files, models.values(), results, strict=True):
                record, difference = _compare(model, images, outputs)
                records[file.name] = {"images": len(keras.tree.flatten(images)[0]), **record}
                if difference is not None:
                    failures.append(f"{file.name}, loaded in plain Keras: {difference}")
    return records


def check_custom_layers_reload(model: Any, dataset: Any) -> None:
    """Saves, loads and compares a copy of a model with custom layers, before anything is trained.

    Raises:
        UsageError: such a layer cannot be copied, or a file does not restore its state.
    """
    import keras

    from dcp_tf.graph import ChannelGraph, copy_model
    from dcp_tf.models.custom_objects import is_custom, lambdas
    from dcp_tf.models.layer_copies import check_config

    if not (any(map(is_custom, model._flatten_layers())) or lambdas(model)):
        return
    images, graph = first_images(dataset, IMAGES), ChannelGraph(model)
    for record in graph.records.values():
        if isinstance(record.operation, keras.Layer) and is_custom(record.operation):
            check_config(record.operation)
    copy = copy_model(graph)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "copy.keras"
        try:
            copy.save(path)
            from_file = run_here(keras.models.load_model(path, compile=False, safe_mode=False), images)
        except Exception as error:  # of any kind: a user's own code runs here
            reason = str(error).rpartition("Exception encountered: ")[2]
            raise UsageError(
                f"a .keras file of this model cannot be written and loaded again: {first_line(Exception(reason))}"
            ) from error
    for what, outputs in (("a copy", run_here(copy, images)), ("the model loaded from a file of it", from_file)):
        _, difference = _compare(model, images, outputs)
        if difference:
            raise UsageError(f"{what} is not the model: {difference}")


def disagreements(measured: Mapping[str, Mapping], files: Mapping[str, Mapping], metric: str) -> list[str]:
    """A line for each float32 file whose figure differs from that of its Keras model by more than a few tied images.

    Args:
        measured: "baseline" and "pruned" -> what was measured of the model.
        files: the `tflite` part of summary.json.
        metric: name of the figure.
    """
    lines = []
    for name, record in files.items():
        figures = record.get(metric), measured.get(record["model"], {}).get(metric)
        if record["quantization"] != "float32" or None in figures:
            continue
        if abs(figures[0] - figures[1]) > 0.02 * max(1.0, abs(figures[1])):
            lines.append(f"{name}: {metric} {figures[0]:.4f}, but its Keras model has {figures[1]:.4f}")
    return lines


def _compare(model: Any, images: Any, outputs: list | str) -> tuple[dict[str, Any], str | None]:
    """The record of a reloaded model, and a line if its outputs differ from the model's.

    Args:
        model: as it was measured.
        images: the inputs.
        outputs: of the reloaded model, or the reason why it cannot be loaded.
    """
    if isinstance(outputs, str):
        return {"equal": False, "max_error": None}, f"it cannot be loaded: {outputs}"
    expected = run_here(model, images)
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        return {"equal": False, "max_error": None}, "its outputs have other shapes"
    error = max(map(largest_difference, outputs, expected))
    record = {"equal": error <= TOLERANCE, "max_error": error if math.isfinite(error) else None}
    if record["equal"]:
        return record, None
    return record, (
        f"its outputs differ by {error:.2g} of the largest: a layer has state that a file does not hold "
        "(get_config, save_own_variables)"
    )
