"""What a run leaves behind: models, plan, TFLite files, benchmark, summary, report."""

import dataclasses
import datetime
import importlib.metadata
import itertools
import math
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dcp_tf
from dcp_tf import progress
from dcp_tf.files import readable_name, write_json
from dcp_tf.tools.app import tflite_files
from dcp_tf.tools.app.failures import collect
from dcp_tf.tools.cli.qat_flags import QatSettings

LOW_SNR_DB = 15.0  # an error of some 18 % of the outputs


@dataclasses.dataclass(frozen=True)
class Deployment:
    """How the TFLite files are made and measured.

    Attributes:
        quantizations: modes, such as ("float32", "int8"); none: no files.
        io: "float" or "int8", the inputs and outputs of integer files.
        calibration_samples: training images that calibrate integer files.
        threads: of the benchmark.
        runs: of the benchmark; 0: no benchmark.
        strict: whether an operation left in float in an integer file is an error.
        debug: whether an unexpected error ends the run, for its traceback.
        qat: how models are trained for qat files.
    """

    quantizations: Sequence[str] = ("float32", "int8")
    io: str = "float"
    calibration_samples: int = 200
    threads: int = 1
    runs: int = 50
    strict: bool = False
    debug: bool = False
    qat: QatSettings = dataclasses.field(default_factory=QatSettings)


def measure_model(model: Any, dataset: Any, objective: Any, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Parameters, costs and the objective's figures of a Keras model, as they stand in summary.json.

    Args:
        model: the Keras model.
        dataset: it is measured on its test images.
        objective: of the model.
        known: its figures, where they were measured before.
    """
    from dcp_tf.graph import count_cost, kernel_sparsity, nominal_macs

    cost = count_cost(model, input_shape=dataset.input_shape)
    measured: dict[str, Any] = {"params": cost.params, "macs": cost.macs, "flops": cost.flops}
    if zeros := kernel_sparsity(model):
        measured["nominal_macs"] = nominal_macs(model, dataset.input_shape)
        measured["kernel_sparsity"] = {
            each.path: {"kernels": each.total, "kept": each.kept, "sparsity": each.sparsity} for each in zeros
        }
    if dataset.test.labels is not None:
        measured |= known or figures(model, dataset, objective)
    return measured


def leave_out_zeros(measured: dict[str, Any]) -> None:
    """Takes the counts of zero kernels out of what was measured: channels that a dead ReLU reads leave some, too."""
    for key in ("kernel_sparsity", "nominal_macs"):
        measured.pop(key, None)


def figures(model_or_predict: Any, dataset: Any, objective: Any) -> dict[str, Any]:
    """The objective's figures on the test images; of verified faces also those of each fold, in `verification`."""
    from dcp_tf.data import images_per_measurement
    from dcp_tf.training import verified

    batches = dataset.test.batches(images_per_measurement(dataset.test.shape))
    if isinstance(objective, verified.Verified):
        found = objective.verify(model_or_predict, batches)
        return {**verified.figures(found), "verification": found.summary()}
    return {name: value for name, value in objective.evaluate(model_or_predict, batches).items() if name != "loss"}


def deploy(
    models: Mapping[str, Any],
    dataset: Any,
    objective: Any,
    folder: pathlib.Path,
    settings: Deployment,
    seed: int,
    reference: Any = None,
) -> tuple[dict[str, dict], list[str]]:
    """Converts, checks and measures.

    Args:
        models: "baseline" and "pruned".
        dataset: calibrates on its train images and compares on all of its test images.
        objective: of the models, None if they have several outputs.
        folder: where the files go.
        settings: which files, and how they are measured.
        seed: of the calibration images and the benchmark.
        reference: what the baseline gives for images without labels, see `unlabelled.Reference`; None where there are
            labels or no baseline.

    Returns:
        The `tflite` part of summary.json, and a line for each file that could not be made or is not what its model is.
    """
    records: dict[str, dict] = {}
    failures: list[str] = []
    with collect(failures, "TFLite files", settings.debug):
        images = _test_images(dataset)
        models = {name: tflite_files.fixed_size(model, dataset) for name, model in models.items()}
        for mode, name in itertools.product(settings.quantizations, models):
            if mode == "sparse" and name == "baseline" and len(models) > 1:
                continue  # it was not pruned, so it has no zeros to leave out
            path = folder / tflite_files.file_name(name, mode, settings.io)
            progress.say(f"converting {path.name}")
            with collect(failures, path.name, settings.debug):
                checked = tflite_files.make(models[name], mode, dataset, images, objective, settings, seed)
                checked.file.save(path)
                records[path.name] = {"model": name, **checked.record, "operations_change": None}
                if reference is not None:
                    records[path.name] |= reference.compare_file(checked.file)
        compare_operations(records, folder, next(iter(models)))
    if settings.runs and records:
        with collect(failures, "latency", settings.debug):
            _benchmark(records, folder, settings, seed, failures)
    for line in [*remarks(records), *(reference.remarks(records) if reference is not None else ())]:
        progress.say(line)
    return records, failures


def _test_images(dataset: Any) -> Any:
    """All test images in one array."""
    import numpy as np

    batches = dataset.test.batches(256).as_numpy_iterator()
    return np.concatenate([batch[0] if isinstance(batch, tuple) else batch for batch in batches])


def compare_operations(records: Mapping[str, dict], folder: pathlib.Path, reference: str) -> None:
    """Notes in each record how many more or fewer of each operation its file has than the reference of its mode.

    Args:
        records: the `tflite` part of summary.json.
        folder: of the files.
        reference: name of the model whose files the others are compared with.
    """
    from dcp_tf import tflite

    references = {r["quantization"]: tflite.inspect(folder / n) for n, r in records.items() if r["model"] == reference}
    for name, record in records.items():
        other = references.get(record["quantization"])
        if other is not None and record["model"] != reference:
            record["operations_change"] = tflite.inspect(folder / name).difference(other)


def remarks(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a user would not expect of the files that were made, a line each.

    Args:
        records: the `tflite` part of summary.json.
    """
    lines = []
    for name, record in records.items():
        if record["float_operations"]:
            listed = ", ".join(record["float_operations"])
            lines.append(f"{name}: left in float, without an integer kernel: {listed}")
        if record["snr_db"] is not None and record["snr_db"] < LOW_SNR_DB:
            lines.append(
                f"{name}: its outputs are {record['snr_db']:.1f} dB above the error of its rounding (SNR; below "
                f"{LOW_SNR_DB:g} dB it shows): look at them, or export float16"
            )
    return [*lines, *larger_than_baseline(records), *slower_than_float(records)]


def larger_than_baseline(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each file of a pruned model that is no smaller than the baseline's of the same mode."""
    sizes = {r["quantization"]: r["bytes"] for r in records.values() if r["model"] == "baseline"}
    return [
        f"{name} is not smaller than the baseline's file, {record['bytes']:,} bytes against "
        f"{sizes[record['quantization']]:,}: what was pruned is less than what else the file holds"
        for name, record in records.items()
        if record["model"] == "pruned" and record["bytes"] >= sizes.get(record["quantization"], math.inf)
    ]


def slower_than_float(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each integer file that was measured to be slower than the float32 file of the same model.

    Args:
        records: the `tflite` part of summary.json.
    """
    timed = {name: record for name, record in records.items() if "latency_ms" in record}
    floats = {record["model"]: record for record in timed.values() if record["quantization"] == "float32"}
    lines = []
    for name, record in timed.items():
        reference = floats.get(record["model"])
        if reference is None or record["latency_ms"]["p10"] <= reference["latency_ms"]["p90"]:
            continue
        milliseconds = (f"{each['latency_ms']['median']:.3g}" for each in (record, reference))
        lines.append(f"{name} is slower here than float32, {' ms against '.join(milliseconds)} ms")
        if "PRELU" in record["operations"] and record["quantization"] in ("int8", "qat"):
            lines[-1] += ": PRELU has no fast kernel in 8 bits; float16 saves half of the size, and ReLU would be fast"
    return lines


def remove_files(folder: pathlib.Path, models: Mapping[str, Any]) -> None:
    """Deletes the TFLite files and the benchmark of an earlier run, which are not those of the new models."""
    for name in models:
        for path in folder.glob(f"{name}_*.tflite"):
            path.unlink()
    (folder / "benchmark.json").unlink(missing_ok=True)


def _benchmark(
    records: dict[str, dict], folder: pathlib.Path, settings: Deployment, seed: int, failures: list[str]
) -> None:
    """Adds latency and speed-up over the baseline's file of the same mode to each record."""
    from dcp_tf import tflite

    progress.say("measuring latency")
    found: dict[str, Any] = {}
    for mode in settings.quantizations:
        names = [n for n, r in records.items() if r["quantization"] == mode]
        if not names:
            continue
        with collect(failures, f"latency of {' and '.join(names)}", settings.debug):
            files = {n: folder / n for n in names}
            result = tflite.benchmark(files, threads=settings.threads, runs=settings.runs, seed=seed)
            found[mode] = result.to_json()
            for name in names:
                latency = result.latencies[name]
                records[name]["latency_device"] = result.machine
                records[name]["latency_ms"] = {
                    "median": latency.median_ms,
                    "p10": latency.p10_ms,
                    "p90": latency.p90_ms,
                }
                # Without the baseline's file there is nothing to be faster than.
                if records[names[0]]["model"] == "baseline":
                    records[name]["speedup"] = latency.speedup
                    records[name]["speedup_interval"] = [latency.speedup_low, latency.speedup_high]
                    records[name]["conclusive"] = latency.conclusive
                    records[name]["speedup_by"] = latency.speedup_by
                    if latency.speedup_quiet is not None:
                        records[name]["speedup_quiet"] = latency.speedup_quiet
                        records[name]["speedup_quiet_interval"] = [
                            latency.speedup_quiet_low,
                            latency.speedup_quiet_high,
                        ]
    if not found:
        return
    merged = {**next(iter(found.values())), "candidates": {}, "baseline": {}}
    for mode, result in found.items():
        merged["candidates"] |= result["candidates"]
        merged["baseline"][mode] = result["baseline"]
    write_json(folder / "benchmark.json", merged)


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    packages = ("tensorflow", "keras", "numpy", "ai-edge-litert")
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


def settings_of(flags: Any, resolved: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All flags as they stand in summary.json.

    Args:
        flags: of the program.
        resolved: what the run took where a flag was not given and has no default.
    """
    values = {name: flags[name].value for name in flags if name not in ("help", "debug")}
    values |= {name: value for name, value in (resolved or {}).items() if name in values and values[name] is None}
    return {name: readable_name(value) if isinstance(value, str) else value for name, value in values.items()}


def _resolved_of_data(subject: Any) -> dict[str, Any]:
    """What was read off the model and the data."""
    augmentation = getattr(subject.dataset.train, "augmentation", None)
    outputs = subject.outputs_kind and ("logits" if subject.outputs_kind == "logits" else "probabilities")
    normalization = None if subject.normalization == "mean/std" else subject.normalization
    return {"normalization": normalization, "outputs": outputs, "augmentation": augmentation}


def _resolved_of_training(phases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How long the last training was, and how it limited its gradients."""
    last = next((phase for phase in reversed(phases) if "clip_norm" in phase), {})
    names = {"clip_norm": "clip_norm", "batch_size": "batch_size", "epochs": "finetune_epochs"}
    held_out = {"held_out": (last.get("held_out") or {"images": 0})["images"]} if last else {}
    return {flag: last[name] for name, flag in names.items() if name in last} | held_out


def write_summary(
    folder: pathlib.Path,
    started: float,
    subject: Any,
    flags: Any,
    resolved: Mapping[str, Any] | None = None,
    **content: Any,
) -> dict[str, Any]:
    """Writes summary.json and returns its content.

    Args:
        folder: of the run.
        started: `time.time()` at the start.
        subject: the model with its data.
        flags: of the program.
        resolved: see `settings_of`.
        **content: what was measured: `baseline` and `pruned`, `tflite`, `phases`, ...
    """
    resolved = {**_resolved_of_data(subject), **_resolved_of_training(content.get("phases", ())), **(resolved or {})}
    summary = {
        "dcp_tf_version": dcp_tf.__version__,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": subject.source,
        "dataset": subject.dataset.name,
        "normalization": subject.normalization,
        "outputs": subject.outputs_kind,
        "loss": subject.objective.name,
        "metric": subject.objective.primary,
        "settings": settings_of(flags, resolved),
        "seed": flags.seed,
        **content,
        "versions": versions(),
        "wall_seconds": time.time() - started,
    }
    write_json(folder / "summary.json", summary)
    return summary
