"""Reads the files of a run's folder and rejects malformed ones."""

import base64
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dcp_tf import files
from dcp_tf.errors import UsageError
from dcp_tf.report import table_rows


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The records of a run.

    Attributes:
        summary: `summary.json`.
        groups: the groups of `plan.json`; empty without a plan.
        kernels: its layers whose kernels were chosen.
        benchmark: `benchmark.json`; empty without a benchmark.
        answers: `answers.json`; empty where the model does not classify.
        flags: the text of `flags.txt`, with which the run can be repeated; empty without it.
    """

    summary: dict[str, Any]
    groups: list[dict[str, Any]]
    kernels: list[dict[str, Any]]
    benchmark: dict[str, Any]
    answers: dict[str, Any] = dataclasses.field(default_factory=dict)
    flags: str = ""


def read_run(output_dir: str | os.PathLike) -> RunFiles:
    """Reads `summary.json` and, where present, `plan.json` and `benchmark.json` of a run's folder.

    Raises:
        UsageError: the folder holds no summary, or one of the files is malformed.
    """
    folder = pathlib.Path(output_dir)
    if not (folder / "summary.json").is_file():
        raise UsageError(
            f"there is no summary.json in {folder}; --output_dir must be the folder of a run (of quickstart or prune)"
        )
    summary = table_rows.checked_summary(files.read_json(folder / "summary.json"))
    plan = _object(folder / "plan.json")
    groups = plan.get("groups") or []
    if not isinstance(groups, list) or not all(_is_group(group) for group in groups):
        raise UsageError(
            f"every group in {folder / 'plan.json'} must have a name, a size > 0 and a list of kept channels"
        )
    kernels = plan.get("kernels") or []
    if not isinstance(kernels, list) or not all(_is_layer(layer) for layer in kernels):
        raise UsageError(f"every layer of kernels in {folder / 'plan.json'} must have a name, a shape and kept kernels")
    flags = folder / "flags.txt"
    return RunFiles(
        summary,
        groups,
        kernels,
        _object(folder / "benchmark.json"),
        _object(folder / "answers.json"),
        flags.read_text(encoding="utf-8", errors="replace") if flags.is_file() else "",
    )


def epochs(phase: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The history of a phase: one record per epoch, one figure per key.

    A list, such as `losses` of several heads, becomes `losses 1`, `losses 2`, ...; a list of one keeps its name. Where
    the phase names its heads, they are `loss at LAYER`, and last `loss of the model`.
    """
    heads = phase.get("heads")
    names = [f"loss at {layer}" for layer in heads] if isinstance(heads, list) else []
    return [_flat(entry, names) for entry in phase.get("history") or [] if isinstance(entry, dict)]


def _flat(entry: Mapping[str, Any], heads: list[str]) -> dict[str, Any]:
    flat = {}
    for key, value in entry.items():
        items = value if isinstance(value, list) else [value]
        names = [*heads, "loss of the model"][: len(items)]
        if heads and key.endswith("losses") and len(names) == len(items):
            output = key.removesuffix("losses").rstrip("_")
            flat |= {f"{output} {name}".strip(): item for name, item in zip(names, items, strict=True)}
        else:
            flat |= {key if len(items) == 1 else f"{key} {n}": item for n, item in enumerate(items, start=1)}
    return flat


def _object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object at `path`; empty if there is no file."""
    if not path.exists():
        return {}
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold an object; received {type(value).__name__}")
    return value


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, dict)
        and isinstance(group.get("name"), str)
        and isinstance(group.get("size"), int)
        and group["size"] > 0
        and isinstance(group.get("kept"), list)
    )


def _is_layer(layer: Any) -> bool:
    try:
        rows, columns = layer["shape"]
        return isinstance(layer["layer"], str) and rows * columns > 0 and bool(base64.b64decode(layer["kept"]))
    except (KeyError, TypeError, ValueError):
        return False
