"""Loads a .tflite file with its data set; its metadata take precedence over the summary beside it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dcp_tf.tools.app.tflite_parts import load_parts
from dcp_tf.tools.cli import data_flags, objective_flags
from dcp_tf.tools.cli.run_record import read_metadata


def load_tflite(flags: Any) -> Any:
    """A `data_flags.ModelAndData` whose `model` is a function from images to outputs.

    Raises:
        UsageError: the file, the data set or a flag cannot be used.
    """
    from dcp_tf import tflite

    runner = tflite.Runner(flags.model)
    metadata, notes = read_metadata(flags.model)
    if len(runner.input_shapes) > 1 or len(runner.output_shapes) > 1:
        return load_parts(flags, runner, metadata, notes)
    dataset, normalization = data_flags.load_dataset(flags, runner.input_shapes[0][1:], "none", notes)
    if metadata is not None:
        dataset = match_classes(metadata.labels, dataset, notes)
    shape = (None, *runner.output_shapes[0][1:])
    objective = objective_flags.read_for_file(flags, shape, dataset, notes)
    kind = objective.outputs_kind
    return data_flags.ModelAndData(runner.predict, dataset, kind, normalization, flags.model, tuple(notes), objective)


def match_classes(labels: Sequence[str], dataset: Any, notes: list[str]) -> Any:
    """The data set with the class numbers of a model, matched by name.

    Args:
        labels: names of the model's classes in the order of its outputs.
        dataset: its classes may differ, be fewer, or have another order.
        notes: gets a line if numbers changed or names do not match.
    """
    names, test = tuple(getattr(dataset, "class_names", ())), dataset.test
    have_only_numbers = names == tuple(map(str, range(len(names))))
    if not labels or have_only_numbers or test.labels is None or test.labels.ndim != 1:
        return dataset
    numbers = {_plain(label): number for number, label in enumerate(labels)}
    unknown = [name for name in names if _plain(name) not in numbers]
    if unknown or len(numbers) < len(labels):
        if all(map(str.isdecimal, labels)) and len(labels) == len(names):
            return dataset
        shown = ", ".join(unknown[:3]) + ", ..." * (len(unknown) > 3) if unknown else "which are not unique"
        notes.append(
            f"the file names its classes {', '.join(labels[:3])}{', ...' * (len(labels) > 3)}, {dataset.name} has "
            f"others ({shown}): classes are taken by their order"
        )
        return dataset
    class_numbers = np.array([numbers[_plain(name)] for name in names], np.int32)
    if np.array_equal(class_numbers, np.arange(len(class_numbers))) and len(names) == len(labels):
        return dataset
    notes.append(
        f"classes: {len(names)} of {dataset.name} are among the {len(labels)} that the file names, and are measured by "
        "their names"
    )
    return dataclasses.replace(
        dataset, test=test.with_labels(class_numbers[test.labels]), class_names=tuple(labels), num_classes=len(labels)
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
