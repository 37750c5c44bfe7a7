"""Whether the `.keras` files of a run are, for plain Keras in a process of its own, the models that were measured."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from dcp_tf import progress
from dcp_tf.errors import UsageError, first_line
from dcp_tf.tools.app.failures import collect

IMAGES = 48
# Largest difference of the outputs, relative to the largest output.
TOLERANCE = 1e-4

# Arguments: the images, the file that tells how to import custom objects, the user's file of them (or nothing),
# whether code in the model file may run (1 or nothing), and for each model its file and where its outputs go.
_SCRIPT = """
import json, runpy, sys
sys.modules["dcp_tf"] = None  # an import of it would fail
import keras, numpy as np
images, importer, objects, unsafe, *files = sys.argv[1:]
if objects:
    runpy.run_path(importer)["import_custom_objects"](objects)
images = np.load(images)
for path, outputs in zip(files[::2], files[1::2]):
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=not unsafe)
        made = keras.tree.flatten(model(images, training=False))
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        line = lines[0] + (" ... " + lines[-1]) * (len(lines) > 1)
        print(json.dumps([path, "%s: %s" % (type(error).__name__, line)]))
    else:
        np.savez(outputs, *[keras.ops.convert_to_numpy(each) for each in made])
"""


def reload_records(
    folder: pathlib.Path, models: Mapping[str, Any], dataset: Any, flags: Any, failures: list[str]
) -> dict[str, dict]:
    """Loads each `NAME.keras` in a new process that has no dcp_tf, and compares its outputs with those in memory.

    Args:
        folder: where the files lie.
        models: the measured models by the names of their files.
        dataset: its first test images are what they are compared on.
        flags: say whether that is done, and what code the files need (`--custom_objects`, `--allow_lambda`).
        failures: gets a line for each file that is not its model.

    Returns:
        What was found for each file, for summary.json.
    """
    records: dict[str, dict] = {}
    if flags.reload_check:
        with collect(failures, "the check of the written models", flags.debug):
            _check(folder, models, _first_images(dataset), flags, records, failures)
    return records


def _check(folder: pathlib.Path, models: Mapping, images: Any, flags: Any, records: dict, failures: list) -> None:
    import numpy as np

    files = {name: folder / f"{name}.keras" for name in models}
    progress.say(f"loading {', '.join(file.name for file in files.values())} in plain Keras to compare the outputs")
    with tempfile.TemporaryDirectory() as scratch:
        targets = {name: pathlib.Path(scratch) / f"{name}.npz" for name in models}
        said = _run_plain_keras(pathlib.Path(scratch), images, files, targets, flags)
        for name, model in models.items():
            if targets[name].exists():
                with np.load(targets[name]) as arrays:
                    record, line = _compare(model, images, [arrays[key] for key in arrays.files])
            else:
                reason = " ".join(said.get(str(files[name]), said[""]).split())[:300]
                record, line = {"equal": False, "max_error": None}, f"it cannot be loaded: {reason}"
            records[files[name].name] = {"images": len(images), **record}
            if line is not None:
                failures.append(f"{files[name].name}, loaded in plain Keras: {line}")


def check_custom_layers_reload(model: Any, dataset: Any) -> None:
    """Writes, loads and compares a copy of a model with layers of a user's own, before anything is trained.

    Raises:
        UsageError: such a layer cannot be copied, or its state does not come back from a file.
    """
    import keras

    from dcp_tf.graph import ChannelGraph, copy_model
    from dcp_tf.models.custom_objects import is_custom, lambdas
    from dcp_tf.models.layer_copies import check_config

    if not (any(map(is_custom, model._flatten_layers())) or lambdas(model)):
        return
    images, graph = _first_images(dataset), ChannelGraph(model)
    for record in graph.records.values():
        if isinstance(record.operation, keras.Layer) and is_custom(record.operation):
            check_config(record.operation)
    copy = copy_model(graph)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "copy.keras"
        try:
            copy.save(path)
            loaded = keras.models.load_model(path, compile=False, safe_mode=False)
            from_file = _outputs(loaded, images)
        except Exception as error:  # of any kind: of a user's own code
            reason = str(error).rpartition("Exception encountered: ")[2]
            raise UsageError(
                f"a .keras file of this model cannot be written and loaded again: {first_line(Exception(reason))}"
            ) from error
    for what, other in (("a copy", _outputs(copy, images)), ("the model loaded from a file of it", from_file)):
        _, line = _compare(model, images, other)
        if line:
            raise UsageError(f"{what} is not the model: {line}")


def disagreements(measured: Mapping[str, Mapping], files: Mapping[str, Mapping], metric: str) -> list[str]:
    """A line for each float32 file whose figure is not that of its Keras model, up to a few images that tie.

    Args:
        measured: what was measured of "baseline" and "pruned", by name.
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


def _run_plain_keras(
    scratch: pathlib.Path, images: Any, files: Mapping, targets: Mapping, flags: Any
) -> dict[str, str]:
    """Lets the script write the outputs; returns what it said of each file, and under "" how it ended itself."""
    import numpy as np

    from dcp_tf.models import custom_objects
    from dcp_tf.tools.cli.model_flags import code_of

    np.save(scratch / "images.npy", images)
    code = code_of(flags)
    arguments = [scratch / "images.npy", custom_objects.__file__, code["custom_objects"] or ""]
    arguments.append("1" if code["allow_lambda"] else "")
    for name, file in files.items():
        arguments += [file, targets[name]]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},  # this process holds the GPU
        capture_output=True,
        text=True,
        check=False,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    ending = f"the process died of signal {-done.returncode}" if done.returncode < 0 else last or "it wrote no outputs"
    said = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
    return said | {"": ending}


def _compare(model: Any, images: Any, loaded: list) -> tuple[dict[str, Any], str | None]:
    """What is written down of a model's outputs and those of another process, and a line where they differ."""
    import numpy as np

    expected = _outputs(model, images)
    if [each.shape for each in loaded] != [each.shape for each in expected]:
        return {"equal": False, "max_error": None}, "its outputs have other shapes"
    error = max(_difference(a, b) for a, b in zip(loaded, expected, strict=True))
    record = {"equal": error <= TOLERANCE, "max_error": error if np.isfinite(error) else None}
    if record["equal"]:
        return record, None
    return record, (
        f"its outputs differ by {error:.2g} of the largest: a layer has state that a file does not hold "
        "(get_config, save_own_variables)"
    )


def _outputs(model: Any, images: Any) -> list:
    import keras
    import tensorflow as tf

    with tf.device("CPU:0"):
        return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(model(images, training=False))]


def _first_images(dataset: Any) -> Any:
    batch = next(iter(dataset.test.batches(IMAGES).as_numpy_iterator()))
    return batch[0] if isinstance(batch, tuple) else batch


def _difference(loaded: Any, expected: Any) -> float:
    """The largest difference relative to the largest value; NaN and infinities have to be equal."""
    import numpy as np

    loaded, expected = (np.asarray(each, np.float64) for each in (loaded, expected))
    differs = ~((loaded == expected) | (np.isnan(loaded) & np.isnan(expected)))
    if not differs.any():
        return 0.0
    error = np.abs(loaded[differs] - expected[differs]).max()
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return float(error / max(scale, 1e-12)) if np.isfinite(error) else float("inf")
