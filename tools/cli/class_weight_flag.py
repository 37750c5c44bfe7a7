"""`--class_weight`: how much the samples of each class count in all losses, as in `keras.Model.fit`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from dcp_tf.errors import UsageError, did_you_mean
from dcp_tf.tools.cli.program import Program

_FORM = "CLASS:WEIGHT,... or balanced (of several outputs OUTPUT=CLASS:WEIGHT,... or OUTPUT=balanced)"


def define_class_weight(program: Program) -> None:
    """`--class_weight`."""
    program.list(
        "class_weight",
        [],
        "How much the samples of a class count in losses and in the selection: 0:1,1:5 by number, cat:1,dog:5 by name; "
        "1 for classes that are left out. balanced: in reverse to how many training samples a class has. Of several "
        "outputs kind=0:1,kind=1:5 or kind=balanced.",
    )


def weigh_classes(flags: Any, model_and_data: Any) -> Any:
    """The same model and data, whose training samples count as `--class_weight` says.

    Raises:
        UsageError: it has another form, or names no class or no output.
    """
    if not flags.class_weight:
        return model_and_data
    from dcp_tf.data import with_class_weight

    dataset, outputs = model_and_data.dataset, getattr(model_and_data.objective, "names", ())
    given = read_class_weight(flags.class_weight, getattr(dataset, "class_names", ()), outputs)
    for output in given if outputs else [""]:
        objective = model_and_data.objective.part(output) if output else model_and_data.objective
        if objective.name in ("mse", "multilabel"):
            what = f"output {output!r}" if output else "the model"
            raise UsageError(f"--class_weight is for one class per sample; {what} learns {objective.describe()}")
    train = with_class_weight(dataset.train, given)
    return dataclasses.replace(model_and_data, dataset=dataclasses.replace(dataset, train=train))


def read_class_weight(entries: Sequence[str], names: Sequence[str], outputs: Sequence[str] = ()) -> Any:
    """The `class_weight` of `dcp_tf.prune` that the entries of the flag stand for.

    Args:
        entries: of the flag.
        names: of the classes, by number.
        outputs: names of the outputs of a model with several.

    Raises:
        UsageError: as for `weigh_classes`.
    """
    found: dict[str, Any] = {}
    for entry in entries:
        output, _, weight = entry.rpartition("=") if outputs else ("", "", entry)
        if outputs and output not in outputs:
            raise UsageError(
                f"--class_weight={entry} names no output; {did_you_mean(output, outputs)}: OUTPUT=CLASS:WEIGHT"
            )
        if weight == "balanced":
            found[output] = weight
            continue
        label, _, number = weight.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            label = ""
        if not label:
            raise UsageError(f"--class_weight takes {_FORM}; received {entry!r}")
        if not label.isdecimal() and label not in names:
            known = did_you_mean(label, names) if any(not name.isdecimal() for name in names) else "give its number"
            raise UsageError(f"--class_weight={entry}: there is no class {label!r}; {known}")
        position = list(names).index(label) if label in names else int(label)
        table = found.setdefault(output, {})
        if table == "balanced" or position in table:
            raise UsageError(f"--class_weight={','.join(entries)} says two things about {output or label}")
        table[position] = value
    return found if outputs else found[""]
