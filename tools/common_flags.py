"""Flags that several programs have, and what they stand for."""

import dataclasses
import pathlib
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.tools.program import Program

NORMALIZATIONS = ("none", "unit", "raw", "digits", "cifar10", "imagenet", "tf", "caffe")


def define_model(program: Program, default: str | None = None, about: str = "The model") -> None:
    """`--model` and `--weights`."""
    program.string(
        "model", default, f"{about}: zoo:NAME, keras:NAME (keras.applications) or a path to a .keras / .h5 file."
    )
    program.string("weights", None, "For zoo: a weights file; for keras: a weights file or imagenet.")


def define_data_source(program: Program) -> None:
    """`--dataset` and where it lies."""
    program.string(
        "dataset",
        "digits",
        "digits (comes with scikit-learn), npz:FILE (x_train y_train x_test y_test), folder:DIR (one folder per class) "
        "or tfds:NAME.",
    )
    program.string("data_dir", None, "Where TensorFlow Datasets keeps its files.")


def define_dataset(program: Program) -> None:
    """`--dataset` and how its images are read."""
    define_data_source(program)
    program.enum(
        "normalization",
        None,
        NORMALIZATIONS,
        "What the model was trained on, after integer pixels became 0..1. zoo: and keras: models bring theirs, a model "
        "file in the folder of a run too; else none.",
    )
    program.list("mean", [], "In place of --normalization: the mean of each channel, for pixels of 0..1.")
    program.list("std", [], "Goes with --mean.")


def define_outputs(program: Program) -> None:
    """`--outputs`."""
    program.enum(
        "outputs",
        None,
        ("logits", "probabilities"),
        "What the model's outputs are, where its last activation does not tell.",
    )


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model with the data it is for.

    Attributes:
        model: the Keras model.
        dataset: images in the form that the model takes.
        outputs_kind: "logits", "softmax" or "sigmoid".
        normalization: name of what was done to the pixels, or "mean/std".
        source: what `--model` said.
    """

    model: Any
    dataset: Any
    outputs_kind: str
    normalization: str
    source: str


def load_subject(flags: Any) -> Subject:
    """The model and the data set that the flags name, fitted to each other.

    Raises:
        UsageError: one of them cannot be used, or they do not fit.
    """
    from dcp_tf import data, models

    if not flags.model:
        raise UsageError("say which model: --model=zoo:NAME, keras:NAME or a path to a .keras file")
    loaded = models.load(flags.model, weights=flags.weights, **_zoo_shape(flags))
    shape = tuple(loaded.model.inputs[0].shape[1:])
    dataset, normalization = load_dataset(flags, shape, _normalization(flags, loaded.normalization))
    kind = read_outputs_kind(flags, loaded.model)
    if len(loaded.model.outputs) == 1 and len(loaded.model.outputs[0].shape) == 2:
        data.check_labels(dataset, loaded.model.outputs[0].shape[-1])
    return Subject(loaded.model, dataset, kind, normalization, flags.model)


def load_dataset(flags: Any, shape: tuple, normalization: str) -> tuple[Any, str]:
    """The data set in the shape that a model takes, and the name of its normalization."""
    from dcp_tf import data

    if len(shape) != 3:
        raise UsageError(f"the model takes inputs of shape {shape}; image data sets need (height, width, channels)")
    mean, std = (numbers(flags, name) for name in ("mean", "std"))
    dataset = data.load(
        flags.dataset,
        input_shape=shape,
        normalization="none" if mean or std else normalization,
        mean=mean,
        std=std,
        seed=flags.seed if "seed" in flags else 0,
        data_dir=flags.data_dir,
    )
    return dataset, "mean/std" if mean else normalization


def load_tflite(flags: Any) -> tuple[Any, Any, str]:
    """A function from images to a .tflite file's outputs, the data set for it, and what the outputs are."""
    from dcp_tf import tflite

    runner = tflite.Runner(flags.model)
    dataset, _ = load_dataset(flags, runner.input_shapes[0][1:], _normalization(flags, "none"))
    kind = {"logits": "logits", "probabilities": "softmax", None: "logits"}[flags.outputs]
    return runner.predict, dataset, kind


def numbers(flags: Any, name: str) -> tuple[float, ...] | None:
    """A list of numbers from a flag, None where it is empty."""
    try:
        return tuple(float(value) for value in flags[name].value) or None
    except ValueError as error:
        raise UsageError(f"--{name} takes numbers with commas between them, received {flags[name].value}") from error


def read_outputs_kind(flags: Any, model: Any) -> str:
    """What the model's outputs are; what is read off the model is said."""
    from dcp_tf import models, progress

    found = models.outputs_kind(model)
    if "outputs" not in flags or flags.outputs is None:
        progress.say(f"outputs: {found} (from the last activation; --outputs overrides)")
        return found
    if flags.outputs == "logits":
        return "logits"
    return "sigmoid" if model.outputs[0].shape[-1] == 1 or found == "sigmoid" else "softmax"


def _normalization(flags: Any, of_the_model: str) -> str:
    if flags.normalization is not None:
        return flags.normalization
    summary = pathlib.Path(flags.model).parent / "summary.json"
    if of_the_model == "none" and pathlib.Path(flags.model).is_file() and summary.is_file():
        from dcp_tf import progress
        from dcp_tf.files import read_json

        recorded = read_json(summary).get("normalization")
        if recorded in NORMALIZATIONS:
            progress.say(f"normalization: {recorded} (from {summary}; --normalization overrides)")
            return recorded
    return of_the_model


def _zoo_shape(flags: Any) -> dict[str, Any]:
    """Networks that are built here take the shape and the number of classes from the data set."""
    if not flags.model.startswith("zoo:"):
        return {}
    from dcp_tf import data

    raw = data.load(flags.dataset, seed=flags.seed if "seed" in flags else 0, data_dir=flags.data_dir)
    return {"input_shape": zoo_input_shape(raw.input_shape), "num_classes": raw.num_classes}


def zoo_input_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The size at which our networks see images: very small ones are enlarged so that three stages make sense."""
    height, width, channels = shape
    factor = max(1, -(-16 // min(height, width)))
    return height * factor, width * factor, channels
