"""From the flags, a model and its data to the objective: what the model is for."""

import dataclasses
import re
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.data import MARGINS
from dcp_tf.tools.cli.run_record import read_run_record

_CLASSES = ("softmax", "sigmoid")  # losses of one class
_MAPS_OF_LABELS = "labels are maps, which would not move with them"


def read(flags: Any, kind: str, model: Any, dataset: Any, notes: list[str], file_model: Any = None) -> tuple[Any, Any]:
    """The objective of a model with one output, and the data set as it is to be used for that.

    Without `--loss` and `--outputs` it is the loss that the model is compiled with, where that fits the labels.

    Args:
        flags: of the program; `--loss` may be missing.
        kind: of the outputs, "logits", "softmax" or "sigmoid".
        model: the Keras model.
        dataset: in the form that the model takes.
        notes: gets a line for all that was read off, and where the data set changed.
        file_model: the model as its file has it, compiled.

    Raises:
        UsageError: outputs, labels and loss do not fit each other.
    """
    from dcp_tf.training import choose_for_outputs, output_shape
    from dcp_tf.training.label_checks import numbering_note

    shape, (train, test) = output_shape(model, dataset.train), _names(dataset)
    loss = _loss(flags, kind, notes, shape, dataset)
    is_read_off = loss == "auto"
    is_given = any(name in flags and flags[name].present for name in ("loss", "outputs"))
    objective = None
    if is_read_off and not is_given and file_model is not None and dataset.train.labels is not None:
        objective = _compiled(file_model, model, dataset, shape, notes)
    if objective is None and dataset.train.labels is None and dataset.test.labels is not None and loss not in MARGINS:
        # What the test labels are tells what the training labels would be.
        loss = choose_for_outputs(kind, shape, dataset.test, loss, what=test).name
    if objective is None:
        objective = choose_for_outputs(kind, shape, dataset.train, loss, model, train)
        objective.check(dataset.test.labels, shape, test)
        if is_read_off:
            notes.append(f"loss: {objective.describe()} ({_reason(objective, dataset, shape)})")
    names = getattr(dataset, "class_names", ())
    if objective.name in _CLASSES and 1 < len(names) < shape[-1] and not names[0].isdecimal():
        shown = ", ".join(f"{number}: {name}" for number, name in enumerate(names[:3]))
        notes.append(f"{len(names)} classes in {dataset.name}, {shape[-1]} outputs, which are taken for {shown}, ...")
    if objective.name in _CLASSES and (note := numbering_note(dataset.train.labels, shape)):
        notes.append(note)
    if dataset.train.labels is None:
        notes.append("there are no labels to learn from: the model's own predictions are the targets")
    shown = notes if "finetune_epochs" in flags else []  # who does not train need not know
    return objective, drop_geometric_augmentation(dataset, objective, flags["augmentation"].value, shown)


def _compiled(file_model: Any, model: Any, dataset: Any, shape: tuple, notes: list[str]) -> Any:
    """The objective that the model is compiled with; None where there is none, or it does not fit these labels."""
    from dcp_tf.training.compiled import compiled_objective

    train, test = _names(dataset)
    lines: list[str] = []
    try:
        objective = compiled_objective(file_model, model, dataset.train, what=train, say=lines.append)
        if objective is not None:
            objective.check(dataset.test.labels, shape, test)
    except UsageError as error:
        notes.append(f"the loss of model.compile does not fit the labels ({error})")
        return None
    notes += [f"{line} (--loss overrides)" for line in lines]
    if objective is not None and objective.keras_metrics is not None:  # its labels may have had another form
        objective.keras_metrics.leaves_out_failing = True
    return objective


def _reason(objective: Any, dataset: Any, shape: tuple) -> str:
    """Where a loss comes from, and what may be meant instead."""
    if dataset.train.labels is not None or dataset.test.labels is not None:
        return "from the outputs and the labels; --loss overrides"
    if objective.name == "mse" and shape[-1] > 1:
        return "from the outputs; --loss=softmax if they are logits of classes"
    return "from the outputs; --loss overrides"


def read_for_file(flags: Any, shape: tuple, dataset: Any, notes: list[str]) -> Any:
    """The objective of a .tflite file, which does not tell what its outputs are, from the labels of the test images.

    Args:
        flags: of the program.
        shape: of the outputs, with the batch axis.
        dataset: in the form that the file takes.
        notes: gets a line for what the summary of a run told.

    Raises:
        UsageError: outputs, labels and loss do not fit each other, or it must be said what the outputs are.
    """
    from dcp_tf.training import choose_for_outputs

    _, test = _names(dataset)
    if dataset.test.labels is None:
        raise UsageError(f"{flags.dataset} has no labels to measure on")
    kind = flags.outputs or read_run_record(flags.model).outputs
    loss = _loss(flags, kind or "logits", notes, shape, dataset)
    if kind == "probabilities":
        guessed = choose_for_outputs("sigmoid" if loss == "auto" else "logits", shape, dataset.test, loss, what=test)
        kind = "sigmoid" if shape[-1] == 1 or getattr(guessed, "multilabel", loss == "sigmoid") else "softmax"
    objective = choose_for_outputs(kind or "logits", shape, dataset.test, loss, what=test)
    if kind is None and getattr(objective, "independent", False):
        raise UsageError(
            "a .tflite file does not tell what its one output is: give --outputs=logits or probabilities"
            if shape[-1] == 1
            else "a .tflite file does not tell what its outputs are: give --outputs=logits or probabilities"
        )
    return objective


def teacher(objective: Any, model: Any, images: Any) -> Any:
    """From images to what a teacher says of them; it may end in another activation than its student.

    Args:
        objective: of the student.
        model: the teacher.
        images: the training images.
    """
    from dcp_tf.models import outputs_kind

    if objective.name in ("softmax", "sigmoid", "multilabel"):
        objective = dataclasses.replace(objective, outputs_kind=outputs_kind(model))
    return objective.targets(model, images)


def outputs_for(network: str, dataset: Any) -> int | None:
    """How many outputs a network of ours needs for the labels of a data set; None for one that gives embeddings.

    Raises:
        UsageError: there are no labels, or they are maps.
    """
    from dcp_tf.models.zoo import find_network

    if network.startswith("zoo:") and find_network(network.removeprefix("zoo:")).num_classes is None:
        return None
    if dataset.num_classes:
        return dataset.num_classes
    labels = dataset.train.labels if dataset.train.labels is not None else dataset.test.labels
    if labels is None:
        raise UsageError(f"{dataset.name} has no labels, so a zoo: network cannot be built for it; give a model file")
    if labels.ndim > 2:
        raise UsageError(
            f"the labels of {dataset.name} are maps of shape {labels.shape[1:]}, the networks of zoo: give one answer "
            "an image; give a model file"
        )
    return 1 if labels.ndim == 1 else labels.shape[1]


def face_loss(loss: str, dataset: str, kind: str) -> str:
    """The loss that `--loss` names; people are distinguished by embeddings, unless the model ends in probabilities."""
    return "arcface" if loss == "auto" and dataset.startswith("faces:") and kind == "logits" else loss


def of_cifar100(normalization: str, model: str, dataset: str) -> str:
    """The normalization of a network that is trained here: CIFAR-100 has its own in place of CIFAR-10's."""
    is_cifar100 = re.match(r"tfds:cifar100\b", dataset) is not None
    return "cifar100" if normalization == "cifar10" and model.startswith("zoo:") and is_cifar100 else normalization


def _loss(flags: Any, kind: str, notes: list[str], shape: tuple, dataset: Any) -> str:
    """What `--loss` says, else what the run of the model wrote down, else what suits the data set."""
    given = flags["loss"].value if "loss" in flags else "auto"
    record = read_run_record(flags.model)
    if given == "auto" and record.loss in MARGINS:  # the labels decide among all others
        notes.append(f"loss: {record.loss} (from {record.path}; --loss overrides)")
        return record.loss
    chosen = given if record.loss != "auto" else face_loss(given, flags.dataset, kind)
    if chosen != given:
        if "loss" in flags and shape[-1] == dataset.num_classes and not flags.model.startswith("zoo:"):
            raise UsageError(
                f"{flags.model} has as many outputs as there are people, {shape[-1]}: say --loss=softmax if they are "
                "logits, one a person, or --loss=arcface if they are an embedding"
            )
        notes.append(f"loss: {chosen}, the {shape[-1]} outputs being an embedding (for faces; --loss overrides)")
    return chosen


def _names(dataset: Any) -> tuple[str, str]:
    return f"{dataset.name} (train)", f"{dataset.name} (test)"


def drop_geometric_augmentation(dataset: Any, objective: Any, given: str | None, notes: list[str]) -> Any:
    """The data set without random changes to the training images where the labels would not follow them.

    Args:
        dataset: its training images may be augmented.
        objective: what the model is for.
        given: what the user said of the augmentation, None for nothing.
        notes: gets a line where the augmentation is left out.

    Raises:
        UsageError: the user asked for what cannot be done.
    """
    labels = dataset.train.labels
    is_number = objective.name == "mse" or (objective.name == "custom" and getattr(labels, "dtype", float) != "int32")
    moves = objective.is_dense or is_number
    if getattr(dataset.train, "augmentation", "none") == "none" or not moves:
        return dataset
    if dataset.train.labels is None and given is not None:
        return dataset  # the targets are what the model says of the changed images
    if objective.is_dense:
        if given is not None:
            raise UsageError(f"--augmentation={given} would move the images, but not their labels, which are maps")
        of_what = "outputs are maps (--augmentation does)" if dataset.train.labels is None else _MAPS_OF_LABELS
        notes.append(f"the training images are not augmented: their {of_what}")
    elif given is not None:
        return dataset
    else:
        notes.append("the training images are not augmented: numbers may tell where things are (--augmentation does)")
    return dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, augmentation="none"))
