"""What is recorded about a model file: in its own metadata, or in the summary.json beside it."""

import dataclasses
import pathlib
from typing import Any

from dcp_tf.errors import UsageError
from dcp_tf.files import read_json
from dcp_tf.settings.data import LOSSES
from dcp_tf.settings.normalization import NORMALIZATIONS

_ACTIVATIONS = {"softmax": "softmax", "sigmoid": "sigmoid", "multilabel": "sigmoid"}  # by the loss


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What is recorded about a model; fields without a record keep their defaults.

    Attributes:
        normalization: its name, or None.
        mean: in place of a name.
        std: the standard deviation, as `mean`.
        outputs: "logits", "softmax" or "sigmoid", for .tflite files also "probabilities", or None.
        path: the source of the record.
        loss: one of `LOSSES`.
    """

    normalization: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: str | None = None
    path: pathlib.Path | str | None = None
    loss: str = "auto"


def read_run_record(model: str) -> RunRecord:
    """The record of a model file; the metadata of a .tflite file take precedence over the summary beside it."""
    record = _read_summary(model)
    return _override_by_metadata(model, record) if model.endswith(".tflite") else record


def read_metadata(path: str) -> tuple[Any, list[str]]:
    """The metadata of a .tflite file (None without any), and a note if they are damaged."""
    from dcp_tf import tflite

    try:
        return tflite.read_metadata(path), []
    except UsageError as error:
        return None, [f"{error}; until then set --normalization and --outputs"]


def is_of_first_version(flags: Any) -> bool:
    """Whether `--resume` goes on with a run of version 0.1.0, which read no model.compile: it ends as it began."""
    if "resume" not in flags or not flags.resume or not flags.output_dir:
        return False
    folder = pathlib.Path(flags.output_dir)
    state, compared = folder / "state" / "pruning" / "settings.json", folder / "compare.json"
    trained = folder / "state" / "finetuning.npz"
    names: set[str] = set()
    if state.is_file():
        names = set(read_json(state).get("finetuning", ()))
    elif compared.is_file():
        names = {key.removeprefix("finetuning ") for key in read_json(compared).get("conditions", ())}
    elif trained.is_file():
        from dcp_tf.training import TrainState

        names = set(TrainState(trained).settings())
    return bool(names) and "optimizer" not in names


def is_normalization(name: Any) -> bool:
    """Whether it is the name of a normalization, or of several inputs INPUT=NAME,..."""
    return isinstance(name, str) and all(part.rpartition("=")[2] in NORMALIZATIONS for part in name.split(","))


def _read_summary(model: str) -> RunRecord:
    summary = pathlib.Path(model).parent / "summary.json"
    content = read_json(summary) if pathlib.Path(model).is_file() and summary.is_file() else None
    if not isinstance(content, dict):
        return RunRecord()
    kind = content.get("outputs") if content.get("outputs") in ("logits", "softmax", "sigmoid") else None
    loss = content.get("loss") if content.get("loss") in LOSSES else "auto"
    if content.get("normalization") == "mean/std":
        try:
            mean, std = (tuple(float(x) for x in content["settings"][name]) for name in ("mean", "std"))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{summary} names no mean and std as numbers: give --mean and --std") from error
        return RunRecord(None, mean or None, std or None, kind, summary, loss)
    name = content.get("normalization") if is_normalization(content.get("normalization")) else None
    return RunRecord(name, None, None, kind, summary, loss)


def _override_by_metadata(path: str, record: RunRecord) -> RunRecord:
    metadata, _ = read_metadata(path)
    if metadata is None:
        return record
    changes: dict[str, Any] = {"path": f"the metadata of {path}"}
    if metadata.loss in LOSSES:
        changes["loss"] = metadata.loss
    if metadata.outputs == "logits":
        changes["outputs"] = "logits"
    elif metadata.outputs == "probabilities":
        changes["outputs"] = _ACTIVATIONS.get(metadata.loss, "probabilities")
    if any(own["normalization"] for own in metadata.inputs[1:]):
        named = [f"{own['name']}={own['normalization']}" for own in metadata.inputs if own["normalization"]]
        changes |= {"normalization": ",".join(named), "mean": None, "std": None}
    elif is_normalization(metadata.normalization):
        changes |= {"normalization": metadata.normalization, "mean": None, "std": None}
    elif metadata.mean and metadata.std:
        # Metadata are for pixels of 0 to 255, flags for pixels of 0 to 1.
        mean, std = (tuple(value / 255.0 for value in values) for values in (metadata.mean, metadata.std))
        changes |= {"normalization": None, "mean": mean, "std": std}
    return dataclasses.replace(record, **changes)
