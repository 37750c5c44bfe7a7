"""A .tflite file with several inputs or outputs: what Keras calls them, and the objective of each output."""

from collections.abc import Mapping, Sequence
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.settings.data import LOSSES
from dcp_tf.tools.cli import data_flags, image_inputs, joint_outputs


def load_parts(flags: Any, runner: Any, metadata: Any, notes: list[str]) -> Any:
    """A `data_flags.ModelAndData` whose `model` is a function from a tuple of inputs to a list of outputs.

    Args:
        flags: of the program.
        runner: of the file.
        metadata: of the file; None without any.
        notes: on the metadata.

    Raises:
        UsageError: the file, the data set or a flag cannot be used.
    """
    known = (getattr(metadata, "inputs", ()), getattr(metadata, "parts", ()))
    names = [[part["name"] for part in told] or own for told, own in zip(known, runner.names, strict=True)]
    if len(runner.output_shapes) == 1 and not known[1]:
        names[1] = names[1][:1]
    stand_in = _stand_in(runner, *names)
    count = len(runner.input_shapes)
    dataset, normalization = data_flags.load_dataset(flags, runner.input_shapes[0][1:], "none", notes, count)
    dataset = joint_outputs.bind(dataset, stand_in, notes)
    if count > 1 and flags.dataset.startswith("npz:"):
        chosen = data_flags.read_normalization(flags, "none", notes)
        dataset, normalization = image_inputs.normalize(flags, stand_in, dataset, chosen, notes)
    objective = _objective(runner, names[1], known[1], dataset, flags)
    kind = objective.outputs_kind if len(names[1]) == 1 else None
    return data_flags.ModelAndData(runner.predict, dataset, kind, normalization, flags.model, tuple(notes), objective)


def _stand_in(runner: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """A Keras model with the inputs and outputs of the file, for data to be bound to; it computes zeros."""
    import keras

    from dcp_tf.models.signature import pack

    shapes = [shape[1:] for shape in runner.output_shapes]

    class File(keras.layers.Layer):
        def call(self, first):
            rows = keras.ops.shape(first)[0]
            return tuple(keras.ops.zeros((rows, *shape)) for shape in shapes)

    tensors = [keras.Input(shape[1:]) for shape in runner.input_shapes]
    model = keras.Model(pack(tensors), pack(File()(tensors[0])))
    model._names_of_signature = tuple(inputs), tuple(outputs)
    return model


def _objective(runner: Any, names: Sequence[str], known: Sequence[Mapping[str, Any]], dataset: Any, flags: Any) -> Any:
    """The objective of all outputs, from what the file tells of them and from the labels."""
    from dcp_tf.tools.cli import objective_flags
    from dcp_tf.training import Classification, choose_for_outputs
    from dcp_tf.training.joint_objective import Joint, data_of

    shapes, test = [(None, *shape[1:]) for shape in runner.output_shapes], dataset.test
    if len(names) == 1:
        return objective_flags.read_for_file(flags, shapes[0], dataset, [])
    parts = []
    for name, shape, told in zip(names, shapes, known or [{}] * len(names), strict=True):
        own, kind, what = data_of(test, name), told.get("kind"), f"{dataset.name} (test, output {name!r})"
        objective: Any = Classification()  # of an output without labels, which is not measured
        if own.labels is not None:
            loss = told.get("loss") if told.get("loss") in LOSSES else "auto"
            objective = choose_for_outputs(kind or "logits", shape, own, loss, what=what)
            if kind is None and getattr(objective, "independent", False):
                raise UsageError(f"the file does not tell what its output {name!r} is, logits or probabilities")
        parts.append((name, objective, float(told.get("weight", 1.0))))
    return Joint(tuple(parts))
