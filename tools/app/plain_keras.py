"""Runs `.keras` files in a new process in which dcp_tf cannot be imported, and compares outputs."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

# Arguments: the inputs, the module that imports custom objects, the user's file of them (or nothing), whether code in
# the model file may run (1 or nothing), and for each model its file and the file for its outputs.
_SCRIPT = """
import json, runpy, sys, types
sys.modules["dcp_tf"] = None  # an import of it would fail
import keras, numpy as np
images, importer, objects, unsafe, *files = sys.argv[1:]
def nothing(name):
    if name.startswith("_"):
        raise AttributeError(name)
    return object
if objects:
    # What the file registers, such as rules and criteria, stays without effect.
    sys.modules["dcp_tf"] = inert = types.ModuleType("dcp_tf")
    inert.register_rule = lambda *classes: lambda rule: rule
    inert.register_importance = lambda criterion: criterion
    inert.__getattr__ = nothing
    runpy.run_path(importer)["import_custom_objects"](objects)
    sys.modules["dcp_tf"] = None
with np.load(images) as arrays:
    inputs = [arrays[name] for name in arrays.files]
for path, outputs in zip(files[::2], files[1::2]):
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=not unsafe)
        values = inputs[0]
        if len(inputs) > 1 or isinstance(getattr(model, "_inputs_struct", None), dict):
            values = keras.tree.pack_sequence_as(model._inputs_struct, inputs)
        values = keras.tree.flatten(model(values, training=False))
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        line = lines[0] + (" ... " + lines[-1]) * (len(lines) > 1)
        print(json.dumps([path, "%s: %s" % (type(error).__name__, line)]))
    else:
        np.savez(outputs, *[keras.ops.convert_to_numpy(value) for value in values])
"""


def run_in_plain_keras(
    images: Any, files: Sequence[pathlib.Path], custom_objects: str | None = None, allow_lambda: bool = False
) -> list[list | str]:
    """Loads model files in a new process and runs them.

    Args:
        images: the inputs, of several a tuple in the order of the models' inputs.
        files: the `.keras` files.
        custom_objects: a Python file with the user's own layers, or None.
        allow_lambda: whether code that is stored in a model file may run.

    Returns:
        For each file its outputs, or the reason why it cannot be loaded.
    """
    import keras
    import numpy as np

    from dcp_tf.models import custom_objects as importer

    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        np.savez(folder / "images.npz", *keras.tree.flatten(images))
        targets = [folder / f"{number}.npz" for number in range(len(files))]
        arguments = [folder / "images.npz", importer.__file__, custom_objects or "", "1" if allow_lambda else ""]
        arguments += [path for pair in zip(files, targets, strict=True) for path in pair]
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, *map(str, arguments)],
            # This process holds the GPU.
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        errors = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith('["'))
        results: list[list | str] = []
        for file, target in zip(files, targets, strict=True):
            if target.exists():
                with np.load(target) as arrays:
                    results.append([arrays[name] for name in arrays.files])
            else:
                results.append(" ".join(errors.get(str(file), _ending(done)).split())[:300])
        return results


def _ending(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f"the process died of signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or [""])[-1] or "it wrote no outputs"


def run_here(model: Any, images: Any) -> list:
    """The outputs of a model on the CPU of this process."""
    import keras
    import tensorflow as tf

    with tf.device("CPU:0"):
        outputs = keras.tree.flatten(model(images, training=False))
        return [keras.ops.convert_to_numpy(output) for output in outputs]


def largest_difference(actual: Any, expected: Any) -> float:
    """The largest difference relative to the largest value; NaN and infinities must be equal."""
    import numpy as np

    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    differs = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    if not differs.any():
        return 0.0
    error = np.abs(actual[differs] - expected[differs]).max()
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return float(error / max(scale, 1e-12)) if np.isfinite(error) else float("inf")


def first_images(dataset: Any, count: int) -> Any:
    """The first test images of a data set; of several inputs a tuple."""
    from dcp_tf.data import split_batch

    return split_batch(next(iter(dataset.test.batches(count).as_numpy_iterator())))[0]
