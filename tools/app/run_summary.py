"""What the models of a run cost and achieve, and summary.json, which holds it."""

import datetime
import importlib.metadata
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dcp_tf
from dcp_tf.files import readable_name, write_json
from dcp_tf.tools.app import baseline

_OF_THE_CALL = ("help", "helpfull", "debug", "flagfile")  # flags that change no result


def measure_model(
    model: Any,
    dataset: Any,
    objective: Any,
    known: Mapping[str, Any] | None = None,
    *,
    count_zero_kernels: bool = True,
) -> dict[str, Any]:
    """Parameters, costs and the objective's figures of a Keras model, as summary.json holds them.

    Args:
        model: the Keras model, or its graph for images of the data set's shape.
        dataset: the figures are measured on its test images.
        objective: of the model.
        known: the figures, where they were measured before.
        count_zero_kernels: whether zero kernels are counted. Channels that a dead ReLU reads leave some in models of
            which only channels were pruned.
    """
    from dcp_tf.graph import ChannelGraph, count_cost, kernel_sparsity, nominal_macs

    graph = (
        model
        if isinstance(model, ChannelGraph)
        else ChannelGraph(model, [(None, *shape) for shape in dataset.test.shapes])
    )
    cost = count_cost(graph)
    measured: dict[str, Any] = {"params": cost.params, "macs": cost.macs, "flops": cost.flops}
    if count_zero_kernels and (layers := kernel_sparsity(graph)):
        measured["nominal_macs"] = nominal_macs(graph)
        measured["kernel_sparsity"] = {
            layer.path: {"kernels": layer.total, "kept": layer.kept, "sparsity": layer.sparsity} for layer in layers
        }
    if dataset.test.labels is not None:
        measured |= known or measure_figures(graph.trace.model, dataset, objective)
    return measured


def measure_figures(model_or_predict: Any, dataset: Any, objective: Any) -> dict[str, Any]:
    """The objective's figures on the test images; for verified faces also those of each fold, in `verification`."""
    from dcp_tf.data import images_per_measurement
    from dcp_tf.training import verified

    batches = dataset.test.batches(images_per_measurement(dataset.test.shape))
    if isinstance(objective, verified.Verified):
        verification = objective.verify(model_or_predict, batches)
        return {**verified.figures(verification), "verification": verification.summary()}
    figures = objective.evaluate(model_or_predict, batches)
    return {name: value for name, value in figures.items() if name != "loss" or objective.primary == "loss"}


def known_figures(baseline_check: Any) -> dict[str, Any] | None:
    """The figures of the test images that the check of the baseline measured; None if it measured others or none."""
    return baseline_check.figures if baseline_check is not None and baseline_check.part == "test" else None


def provenance(model_and_data: Any, baseline_check: Any = None) -> dict[str, Any]:
    """What every JSON file of a program says about its origin.

    Args:
        model_and_data: the model with its data.
        baseline_check: what `baseline.report_baseline` returned.
    """
    packages = ("tensorflow", "keras", "numpy", "ai-edge-litert")
    return {
        "dcp_tf_version": dcp_tf.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": model_and_data.source,
        "dataset": model_and_data.dataset.name,
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        **({} if baseline_check is None else {"baseline_check": baseline.as_json(baseline_check)}),
    }


def settings_of(flags: Any, resolved: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All flags as summary.json holds them.

    Args:
        flags: of the program.
        resolved: what the run used for flags that were not given, and have no default or one that follows others.
    """
    values = {name: flags[name].value for name in flags if name not in _OF_THE_CALL}
    open_flags = {name for name in values if values[name] is None}
    open_flags |= {name for name in ("finetune_lr", "weight_decay") if name in values and not flags[name].present}
    values |= {name: value for name, value in (resolved or {}).items() if name in open_flags}
    return {name: readable_name(value) if isinstance(value, str) else value for name, value in values.items()}


def _resolved_of_data(model_and_data: Any) -> dict[str, Any]:
    """The settings that follow from the model and the data."""
    augmentation = getattr(model_and_data.dataset.train, "augmentation", None)
    outputs = model_and_data.outputs_kind and ("logits" if model_and_data.outputs_kind == "logits" else "probabilities")
    normalization = None if model_and_data.normalization == "mean/std" else model_and_data.normalization
    return {"normalization": normalization, "outputs": outputs, "augmentation": augmentation}


def _resolved_of_training(phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the last training resolved."""
    last = next((phase for phase in reversed(phases) if "clip_norm" in phase), {})
    names = {"clip_norm": "clip_norm", "batch_size": "batch_size", "epochs": "finetune_epochs"}
    held_out = {"held_out": (last.get("held_out") or {"images": 0})["images"]} if last else {}
    return {flag: last[name] for name, flag in names.items() if name in last} | held_out


def write_summary(
    folder: pathlib.Path,
    started: float,
    model_and_data: Any,
    flags: Any,
    resolved: Mapping[str, Any] | None = None,
    baseline_check: Any = None,
    **content: Any,
) -> dict[str, Any]:
    """Writes summary.json and returns its content.

    Args:
        folder: of the run.
        started: `time.time()` at the start.
        model_and_data: the model with its data.
        flags: of the program.
        resolved: see `settings_of`.
        baseline_check: what `baseline.report_baseline` returned.
        **content: what was measured: `baseline` and `pruned`, `tflite`, `phases`, ...
    """
    primaries = model_and_data.objective.primaries
    resolved = {
        **_resolved_of_data(model_and_data),
        **_resolved_of_training(content.get("phases", ())),
        **(resolved or {}),
    }
    summary = {
        **provenance(model_and_data, baseline_check),
        "normalization": model_and_data.normalization,
        "outputs": model_and_data.outputs_kind,
        "loss": model_and_data.objective.name,
        "metric": model_and_data.objective.primary,
        **({"metrics": list(primaries)} if len(primaries) > 1 else {}),
        "settings": settings_of(flags, resolved),
        "seed": flags.seed,
        **content,
        "wall_seconds": time.time() - started,
    }
    write_json(folder / "summary.json", summary)
    return summary
