"""The objective of a model file with several outputs, and its data by the names of the outputs."""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

from dcp_tf.errors import UsageError, first_line


def bind(dataset: Any, model: Any, notes: list[str]) -> Any:
    """The data set in the order and under the names of the model's inputs and outputs.

    Args:
        dataset: of any nesting.
        model: with flat inputs and outputs.
        notes: gets a line where one label per sample belongs to none of several outputs.

    Raises:
        UsageError: they do not fit each other.
    """
    from dcp_tf.models.signature import output_names

    if len(model.outputs) > 1 and hasattr(dataset.train.labels, "shape"):
        names = output_names(model)
        notes.append(
            f"the data has one label per sample, the model the outputs {', '.join(names)}: the labels are not "
            f"used, the model's own outputs are the targets (npz: takes labels as y_train/{names[0]} and so on)"
        )
        train, test = (part.converted(_without_labels) for part in (dataset.train, dataset.test))
        dataset = dataclasses.replace(dataset, train=train, test=test)
    return dataset.bound_to(model)


def names_of_labels(model_and_data: Any) -> str:
    """How labels of several outputs are called, as the end of a sentence; empty for one output."""
    names = getattr(model_and_data.objective, "names", ())
    return f"; those of its outputs are called {', '.join(f'y_test/{name}' for name in names)} in an npz" * bool(names)


def _without_labels(inputs: Any, labels: Any, weights: Any) -> tuple[Any, None, None]:
    return inputs, None, None


def read(flags: Any, file_model: Any, model: Any, dataset: Any, notes: list[str]) -> tuple[Any, Any]:
    """The objective of each output: what the file was compiled with, else what outputs and labels suggest.

    Args:
        flags: of the program; `--loss` and `--outputs` speak of one output and may not be given.
        file_model: the model as its file has it.
        model: the same with flat inputs and outputs.
        dataset: bound to it.
        notes: gets a line that says what was chosen.

    Returns:
        The objective, and the model as its file has it, compiled where that can be read.

    Raises:
        UsageError: outputs, labels and losses do not fit each other.
    """
    from dcp_tf.training import as_objective, output_shape
    from dcp_tf.training.compiled import compiled_objective

    given = [name for name in ("loss", "outputs") if name in flags and flags[name].present]
    if given:
        raise UsageError(
            f"--{given[0]} is for one output; of several each loss is that of model.compile, or follows from its labels"
        )
    compiled, train = _compiled(flags.model, file_model, notes), dataset.train
    objective = None if compiled is None else compiled_objective(compiled, model, train)
    if objective is None:
        objective = as_objective(None, model, train)
        notes.append(f"losses: {objective.describe()} (from the outputs and the labels)")
    objective.check(dataset.test.labels, output_shape(model, dataset.test), f"{dataset.name} (test)")
    return objective, compiled or file_model


def _compiled(source: str, model: Any, notes: list[str]) -> Any:
    """The same layers, compiled as the file says; None where it says nothing, or what cannot be had."""
    import keras

    if not pathlib.Path(source).is_file() or not zipfile.is_zipfile(source):
        return None
    with zipfile.ZipFile(source) as archive:
        config = json.loads(archive.read("config.json")).get("compile_config")
    if not config:
        return None
    again = keras.Model(model._inputs_struct, model._outputs_struct, name=model.name)
    try:
        again.compile_from_config(config)
    except Exception as error:  # of many kinds, such as a loss of the user's own
        notes.append(
            f"the losses of model.compile cannot be read ({first_line(error)}): --custom_objects=FILE.py brings them"
        )
        return None
    return again if again.compiled else None
