"""The objective of a model file with several outputs, and its data by the names of the outputs."""

import dataclasses
from typing import Any

from dcp_tf.errors import UsageError


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
    if not names:
        return ""
    return (
        f"; those of its outputs are called {', '.join(f'y_test/{name}' for name in names)} in an npz, and a function "
        f"returns them as a dict {{{', '.join(f'{name!r}: ...' for name in names)}}}"
    )


def _without_labels(inputs: Any, labels: Any, weights: Any) -> tuple[Any, None, None]:
    return inputs, None, None


def read(flags: Any, file_model: Any, model: Any, dataset: Any, notes: list[str]) -> Any:
    """The objective of each output: what the file was compiled with, else what outputs and labels suggest.

    Args:
        flags: of the program; `--loss` and `--outputs` speak of one output and may not be given.
        file_model: the model as its file has it, compiled.
        model: the same with flat inputs and outputs.
        dataset: bound to it.
        notes: gets a line that says what was chosen.

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
    train = dataset.train
    try:
        objective = compiled_objective(file_model, model, train, what=f"{dataset.name} (train)", say=notes.append)
        if objective is None:
            objective = as_objective(None, model, train)
            notes.append(f"losses: {objective.describe()} (from the outputs and the labels)")
        objective.check(dataset.test.labels, output_shape(model, dataset.test), f"{dataset.name} (test)")
    except UsageError as error:  # without settings: --loss is for one output
        raise UsageError(str(error)) from error
    return objective
